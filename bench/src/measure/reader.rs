//! Reads answers of the two dialects, streamed and whole, and checks every chunk against what was said.

use crate::sse;
use serde::Deserialize;
use std::borrow::Cow;

/// Whose answer is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dialect {
    /// `/api/generate`: a line of JSON a token.
    Ollama,
    /// `/generate`: an event a token.
    Native,
}

#[derive(Deserialize)]
struct Line<'a> {
    #[serde(borrow, default)]
    response: Cow<'a, str>,
    #[serde(default)]
    done: bool,
    #[serde(borrow)]
    error: Option<Cow<'a, str>>,
}

#[derive(Deserialize)]
struct Token<'a> {
    #[serde(borrow)]
    text: Cow<'a, str>,
}

/// What is wrong with an answer.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum Fault {
    #[error("token {expected} was expected and {got:?} came")]
    Token { expected: usize, got: String },
    #[error("{got} tokens of {expected}")]
    Count { expected: usize, got: usize },
    #[error("the answer ended without its end")]
    Cut,
    #[error("unreadable: {0}")]
    Unreadable(String),
    #[error("the answer is an error: {0}")]
    Error(String),
}

/// Reads one streamed answer. Token texts are ` t<n>` or ` <n>@<stamp>`, in order.
pub struct Reader {
    dialect: Dialect,
    line: Vec<u8>,
    sse: sse::Parser,
    events: Vec<sse::Event>,
    next: usize,
    done: bool,
    /// Stamps of the tokens read by the last `feed`.
    pub stamps: Vec<u64>,
}

impl Reader {
    pub fn new(dialect: Dialect) -> Self {
        Self { dialect, line: Vec::new(), sse: sse::Parser::new(), events: Vec::new(), next: 0, done: false, stamps: Vec::new() }
    }

    /// Tokens so far.
    pub fn tokens(&self) -> usize {
        self.next
    }

    pub fn feed(&mut self, bytes: &[u8]) -> Result<(), Fault> {
        self.stamps.clear();
        if self.dialect == Dialect::Ollama {
            return self.lines(bytes);
        }
        self.sse.feed(bytes, &mut self.events);
        for event in std::mem::take(&mut self.events) {
            match event.event.as_str() {
                "token" => {
                    let token: Token<'_> = serde_json::from_str(&event.data).map_err(|_| Fault::Unreadable(event.data.clone()))?;
                    self.token(&token.text)?;
                }
                "done" => self.done = true,
                "error" => return Err(Fault::Error(event.data)),
                _ => {}
            }
        }
        Ok(())
    }

    fn lines(&mut self, bytes: &[u8]) -> Result<(), Fault> {
        for part in bytes.split_inclusive(|&byte| byte == b'\n') {
            self.line.extend_from_slice(part);
            if part.ends_with(b"\n") {
                let line = std::mem::take(&mut self.line);
                self.json(&line)?;
            }
        }
        Ok(())
    }

    fn json(&mut self, line: &[u8]) -> Result<(), Fault> {
        let read: Line<'_> = serde_json::from_slice(line).map_err(|_| Fault::Unreadable(String::from_utf8_lossy(line).into_owned()))?;
        match (read.error, read.done) {
            (Some(error), _) => Err(Fault::Error(error.into_owned())),
            (None, true) => {
                self.done = true;
                Ok(())
            }
            (None, false) => self.token(&read.response),
        }
    }

    fn token(&mut self, text: &str) -> Result<(), Fault> {
        let wrong = || Fault::Token { expected: self.next, got: text.to_owned() };
        let body = text.strip_prefix(' ').ok_or_else(wrong)?;
        let number = match body.split_once('@') {
            Some((number, stamp)) => {
                self.stamps.push(stamp.parse().map_err(|_| wrong())?);
                number
            }
            None => body.strip_prefix('t').ok_or_else(wrong)?,
        };
        if number.parse() != Ok(self.next) {
            return Err(wrong());
        }
        self.next += 1;
        Ok(())
    }

    /// Whether the answer was whole.
    pub fn finish(&self, expected: usize) -> Result<(), Fault> {
        if !self.done {
            return Err(Fault::Cut);
        }
        if self.next == expected { Ok(()) } else { Err(Fault::Count { expected, got: self.next }) }
    }
}

/// Checks an answer that is one JSON object.
pub fn whole(body: &[u8], expected: usize) -> Result<(), Fault> {
    let unreadable = || Fault::Unreadable(String::from_utf8_lossy(body).chars().take(200).collect());
    let read: Line<'_> = serde_json::from_slice(body).map_err(|_| unreadable())?;
    let got = read.response.split_whitespace().enumerate().take_while(|(number, word)| **word == format!("t{number}")).count();
    if got != expected || read.response.split_whitespace().count() != expected {
        return Err(Fault::Count { expected, got });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(dialect: Dialect, text: &str, tokens: usize) -> Result<(), Fault> {
        let mut reader = Reader::new(dialect);
        for byte in text.as_bytes() {
            reader.feed(std::slice::from_ref(byte))?;
        }
        reader.finish(tokens)
    }

    #[test]
    fn lost_merged_and_cut_answers_are_found() {
        let (a, b, end) =
            ("{\"response\":\" t0\",\"done\":false}\n", "{\"response\":\" t1\",\"done\":false}\n", "{\"response\":\"\",\"done\":true}\n");
        assert_eq!(read(Dialect::Ollama, &[a, b, end].concat(), 2), Ok(()));
        assert_eq!(read(Dialect::Ollama, &[a, b].concat(), 2), Err(Fault::Cut));
        assert_eq!(read(Dialect::Ollama, &[a, end].concat(), 2), Err(Fault::Count { expected: 2, got: 1 }));
        assert_eq!(read(Dialect::Ollama, &[b, end].concat(), 2), Err(Fault::Token { expected: 0, got: " t1".into() }));
        let merged = "event: token\ndata: {\"text\":\" t0 t1\"}\n\nevent: done\ndata: {}\n\n";
        assert_eq!(read(Dialect::Native, merged, 2), Err(Fault::Token { expected: 0, got: " t0 t1".into() }));
        assert_eq!(read(Dialect::Native, "event: token\ndata: {\"text\":\" 0@17\"}\n\nevent: done\ndata: {}\n\n", 1), Ok(()));
        assert_eq!(whole(b"{\"response\":\" t0 t1\",\"done\":true}", 2), Ok(()));
        assert!(whole(b"{\"response\":\" t0 t2\",\"done\":true}", 2).is_err());
    }
}
