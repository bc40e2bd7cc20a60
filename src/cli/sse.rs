//! Server-sent events out of bytes that may be split anywhere. Pure.

/// Longest event that is taken, in bytes.
const MAX_EVENT_BYTES: usize = 32 << 20;

/// One event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// By which the stream can be taken up again after it.
    pub id: Option<String>,
    pub name: String,
    pub data: String,
}

/// An event was longer than what is taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("an event of the answer is longer than {MAX_EVENT_BYTES} bytes")]
pub struct TooLong;

/// Takes bytes as they come and gives events as they are complete. Comments and unknown fields are passed over.
#[derive(Debug, Default)]
pub struct Decoder {
    line: Vec<u8>,
    id: Option<String>,
    name: String,
    data: String,
}

impl Decoder {
    /// # Errors
    /// When an event grows past the bound.
    pub fn push(&mut self, bytes: &[u8]) -> Result<Vec<Event>, TooLong> {
        let mut events = Vec::new();
        let mut rest = bytes;
        while let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
            self.line.extend_from_slice(&rest[..end]);
            rest = &rest[end + 1..];
            let line = std::mem::take(&mut self.line);
            events.extend(self.line(String::from_utf8_lossy(&line).trim_end_matches('\r')));
        }
        self.line.extend_from_slice(rest);
        if self.line.len() + self.data.len() > MAX_EVENT_BYTES { Err(TooLong) } else { Ok(events) }
    }

    fn line(&mut self, line: &str) -> Option<Event> {
        if line.is_empty() {
            let event = Event { id: self.id.take(), name: std::mem::take(&mut self.name), data: std::mem::take(&mut self.data) };
            return (!event.data.is_empty()).then_some(event);
        }
        let (field, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "id" => self.id = Some(value.to_owned()),
            "event" => value.clone_into(&mut self.name),
            "data" => {
                if !self.data.is_empty() {
                    self.data.push('\n');
                }
                self.data.push_str(value);
            }
            _ => {}
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const TEXT: &str = ": hi\r\n\nid: 1\nevent: token\ndata: {\"text\":\"é🐪\"}\n\nevent: x\r\ndata:a\r\ndata: b\r\n\r\ndata: cut";

    fn expected() -> Vec<Event> {
        let event = |id: Option<&str>, name: &str, data: &str| Event { id: id.map(Into::into), name: name.into(), data: data.into() };
        vec![event(Some("1"), "token", "{\"text\":\"é🐪\"}"), event(None, "x", "a\nb")]
    }

    proptest! {
        #[test]
        fn the_same_events_come_out_wherever_the_bytes_are_split(cuts in proptest::collection::vec(0..TEXT.len(), 0..8)) {
            let mut cuts = cuts;
            cuts.extend([0, TEXT.len()]);
            cuts.sort_unstable();
            let mut decoder = Decoder::default();
            let mut events = Vec::new();
            for pair in cuts.windows(2) {
                events.extend(decoder.push(&TEXT.as_bytes()[pair[0]..pair[1]]).expect("short"));
            }
            prop_assert_eq!(events, expected());
        }
    }

    #[test]
    fn an_event_without_end_is_refused() {
        let mut decoder = Decoder::default();
        let chunk = vec![b'x'; 1 << 20];
        assert!((0..40).any(|_| decoder.push(&chunk).is_err()));
    }
}
