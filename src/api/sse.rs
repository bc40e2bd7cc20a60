//! Server-sent events, as bytes. One event is one piece, ready to be written.

use bytes::Bytes;
use serde::Serialize;

/// Keeps a silent connection open; clients ignore it.
pub const HEARTBEAT: Bytes = Bytes::from_static(b": heartbeat\n\n");

/// Numbers the events of one answer: `<request id>/<n>`.
pub struct Encoder {
    request: String,
    next: u64,
}

impl Encoder {
    pub fn new(request: &str) -> Self {
        Self::from(request, 0)
    }

    /// For an answer that goes on after its first `next` events.
    pub fn from(request: &str, next: u64) -> Self {
        Self { request: request.to_owned(), next }
    }

    /// Whether no event was numbered yet.
    pub fn is_at_start(&self) -> bool {
        self.next == 0
    }

    /// An event without a number, for news that are old when the next one comes: they cannot be resumed from.
    pub fn news(name: &str, data: &impl Serialize) -> Bytes {
        let mut out = Vec::with_capacity(96);
        out.extend_from_slice(format!("event: {name}\ndata: ").as_bytes());
        finish(out, data)
    }

    /// One event. JSON has no raw line breaks, so the data is a single line whatever it says.
    pub fn event(&mut self, name: &str, data: &impl Serialize) -> Bytes {
        let mut out = Vec::with_capacity(160);
        out.extend_from_slice(format!("id: {}/{}\nevent: {name}\ndata: ", self.request, self.next).as_bytes());
        self.next += 1;
        finish(out, data)
    }
}

fn finish(mut out: Vec<u8>, data: &impl Serialize) -> Bytes {
    if serde_json::to_writer(&mut out, data).is_err() {
        // Only a map with keys that are no strings fails, and no answer has one.
        out.extend_from_slice(b"null");
    }
    out.extend_from_slice(b"\n\n");
    Bytes::from(out)
}

/// Reads the id of an event, as a client gives it back in `Last-Event-ID`: the request, and how many events it has had.
pub fn resume_point(last_event_id: &str) -> Option<(&str, u64)> {
    let (request, number) = last_event_id.trim().rsplit_once('/')?;
    Some((request, number.parse::<u64>().ok()?.checked_add(1)?)).filter(|_| !request.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn events_are_numbered_and_single_lined() {
        let mut encoder = Encoder::new("r1");
        assert_eq!(encoder.event("token", &json!({"text": "a\nb"})), "id: r1/0\nevent: token\ndata: {\"text\":\"a\\nb\"}\n\n");
        assert!(encoder.event("done", &json!({})).starts_with(b"id: r1/1\nevent: done\n"));
        assert_eq!(Encoder::news("queued", &json!({})), "event: queued\ndata: {}\n\n");
    }

    #[test]
    fn a_stream_goes_on_after_the_event_that_came_last() {
        assert_eq!(resume_point("a/b/7"), Some(("a/b", 8)));
        for wrong in ["", "7", "/7", "a/", "a/-1", "a/18446744073709551615"] {
            assert_eq!(resume_point(wrong), None, "{wrong}");
        }
    }
}
