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
        Self { request: request.to_owned(), next: 0 }
    }

    /// One event. JSON has no raw line breaks, so the data is a single line whatever it says.
    pub fn event(&mut self, name: &str, data: &impl Serialize) -> Bytes {
        let mut out = Vec::with_capacity(160);
        out.extend_from_slice(format!("id: {}/{}\nevent: {name}\ndata: ", self.request, self.next).as_bytes());
        self.next += 1;
        if serde_json::to_writer(&mut out, data).is_err() {
            // Only a map with keys that are no strings fails, and no answer has one.
            out.extend_from_slice(b"null");
        }
        out.extend_from_slice(b"\n\n");
        Bytes::from(out)
    }
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
    }
}
