//! A tiny incremental parser of server-sent events (the `text/event-stream` chapter of the HTML standard).
//!
//! Promises: any split of the bytes gives the same events; `\n`, `\r\n` and `\r` end lines; an event that was begun but
//! not ended by an empty line is not reported (ask [`Parser::pending`]). It does not reconnect and keeps no last event id.

/// One event. A comment line is reported as an event of its own kind, because heartbeats are worth testing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Event {
    /// The `event:` field; empty when there was none.
    pub event: String,
    /// The `data:` lines, joined with a newline.
    pub data: String,
    /// The `id:` field of this event, if it had one.
    pub id: Option<String>,
    /// Text after the colon of a comment line; all other fields are empty then.
    pub comment: Option<String>,
}

/// Feeds on bytes, yields events.
#[derive(Debug, Default)]
pub struct Parser {
    line: Vec<u8>,
    current: Event,
    has_data: bool,
    begun: bool,
    after_cr: bool,
}

impl Parser {
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes the next bytes and appends the events they complete to `out`.
    pub fn feed(&mut self, bytes: &[u8], out: &mut Vec<Event>) {
        for &byte in bytes {
            let after_cr = std::mem::replace(&mut self.after_cr, byte == b'\r');
            match byte {
                b'\n' if after_cr => {}
                b'\n' | b'\r' => self.end_line(out),
                other => self.line.push(other),
            }
        }
    }

    /// Whether bytes of an unfinished event or line are held: true at the end of a stream means that it was cut.
    pub fn pending(&self) -> bool {
        self.begun || !self.line.is_empty()
    }

    fn end_line(&mut self, out: &mut Vec<Event>) {
        let line = String::from_utf8_lossy(&std::mem::take(&mut self.line)).into_owned();
        if line.is_empty() {
            self.dispatch(out);
        } else if let Some(comment) = line.strip_prefix(':') {
            out.push(Event { comment: Some(comment.strip_prefix(' ').unwrap_or(comment).to_owned()), ..Event::default() });
        } else {
            let (field, value) = line.split_once(':').unwrap_or((&line, ""));
            self.field(field, value.strip_prefix(' ').unwrap_or(value));
        }
    }

    fn field(&mut self, field: &str, value: &str) {
        self.begun = true;
        match field {
            "event" => value.clone_into(&mut self.current.event),
            "id" => self.current.id = Some(value.to_owned()),
            "data" => {
                if std::mem::replace(&mut self.has_data, true) {
                    self.current.data.push('\n');
                }
                self.current.data.push_str(value);
            }
            _ => {}
        }
    }

    fn dispatch(&mut self, out: &mut Vec<Event>) {
        let event = std::mem::take(&mut self.current);
        let has_data = std::mem::take(&mut self.has_data);
        if std::mem::take(&mut self.begun) && has_data {
            out.push(event);
        }
    }
}

/// All events of a finished body, and whether something unfinished was left.
pub fn parse(body: &[u8]) -> (Vec<Event>, bool) {
    let (mut parser, mut events) = (Parser::new(), Vec::new());
    parser.feed(body, &mut events);
    (events, parser.pending())
}

#[cfg(test)]
mod tests {
    use super::*;

    const BODY: &[u8] = b": beat\n\nevent: token\r\nid: 3\r\ndata: {\"a\":\r\ndata:1}\r\n\r\ndata: last\r\rid: 9\n\ndata: cut";

    #[test]
    fn any_split_gives_the_same_events() {
        let (whole, pending) = parse(BODY);
        assert!(pending);
        assert_eq!(whole.len(), 3);
        assert_eq!(whole[0].comment.as_deref(), Some("beat"));
        assert_eq!(whole[1], Event { event: "token".into(), data: "{\"a\":\n1}".into(), id: Some("3".into()), comment: None });
        assert_eq!(whole[2].data, "last");
        for step in 1..BODY.len() {
            let (mut parser, mut events) = (Parser::new(), Vec::new());
            for part in BODY.chunks(step) {
                parser.feed(part, &mut events);
            }
            assert_eq!(events, whole, "in steps of {step}");
        }
    }
}
