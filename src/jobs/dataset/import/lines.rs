//! Files that are read line by line: JSONL and plain text.

use std::io::{self, BufRead, Read as _};

use serde_json::Value;

use super::detect::MARK;
use super::{Content, Raw, Reason, Rows};

/// Lines of bounded length.
#[derive(Debug)]
pub(super) struct Lines<R> {
    input: R,
    max_bytes: usize,
    number: u64,
    line: Vec<u8>,
}

/// What a line is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Got {
    Line,
    TooLong,
}

impl<R: BufRead> Lines<R> {
    fn new(input: R, max_bytes: usize) -> Self {
        Self { input, max_bytes, number: 0, line: Vec::new() }
    }

    /// Reads the next line into `self.line`, without its break. Of one that is too long the rest is passed over, not kept.
    fn next(&mut self) -> io::Result<Option<Got>> {
        self.line.clear();
        let (mut got, mut any) = (Got::Line, false);
        loop {
            let piece = match self.input.fill_buf() {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                piece => piece?,
            };
            if piece.is_empty() {
                break;
            }
            any = true;
            let end = memchr::memchr(b'\n', piece);
            let part = &piece[..end.unwrap_or(piece.len())];
            if self.line.len() + part.len() > self.max_bytes {
                got = Got::TooLong;
                self.line.clear();
            }
            if got == Got::Line {
                self.line.extend_from_slice(part);
            }
            let used = part.len() + usize::from(end.is_some());
            self.input.consume(used);
            if end.is_some() {
                break;
            }
        }
        if !any {
            return Ok(None);
        }
        self.number += 1;
        if self.line.last() == Some(&b'\r') {
            self.line.pop();
        }
        if self.number == 1 && self.line.starts_with(MARK) {
            self.line.drain(..MARK.len());
        }
        Ok(Some(got))
    }
}

/// One JSON object a line; empty lines are passed over.
#[derive(Debug)]
pub(super) struct Jsonl<R>(Lines<R>);

impl<R: BufRead> Jsonl<R> {
    pub fn new(input: R, max_bytes: usize) -> Self {
        Self(Lines::new(input, max_bytes))
    }
}

impl<R: BufRead> Rows for Jsonl<R> {
    fn next(&mut self) -> io::Result<Option<Raw>> {
        loop {
            let Some(got) = self.0.next()? else { return Ok(None) };
            let content = match got {
                Got::TooLong => Err(Reason::TooLong { max_bytes: self.0.max_bytes }),
                Got::Line if self.0.line.trim_ascii().is_empty() => continue,
                Got::Line => object(&self.0.line),
            };
            return Ok(Some(Raw { number: self.0.number, content }));
        }
    }
}

/// The fields of an object. How deep it may be nested is bounded by the parser.
pub(super) fn object(json: &[u8]) -> Result<Content, Reason> {
    let text = std::str::from_utf8(json).map_err(|_| Reason::NotUtf8)?;
    match serde_json::from_str(text) {
        Ok(Value::Object(fields)) => Ok(Content::Fields(fields)),
        Ok(_) => Err(Reason::NotAnObject),
        Err(error) => Err(Reason::Json(error.to_string())),
    }
}

/// Paragraphs of a text.
#[derive(Debug)]
pub(super) struct Paragraphs<R>(Lines<R>);

impl<R: BufRead> Paragraphs<R> {
    pub fn new(input: R, max_bytes: usize) -> Self {
        Self(Lines::new(input, max_bytes))
    }
}

impl<R: BufRead> Rows for Paragraphs<R> {
    fn next(&mut self) -> io::Result<Option<Raw>> {
        let (mut text, mut first, mut too_long) = (Vec::new(), 0, false);
        while let Some(got) = self.0.next()? {
            if got == Got::Line && self.0.line.trim_ascii().is_empty() {
                if first == 0 {
                    continue;
                }
                break;
            }
            if first == 0 {
                first = self.0.number;
            } else {
                text.push(b'\n');
            }
            too_long |= got == Got::TooLong || text.len() + self.0.line.len() > self.0.max_bytes;
            if !too_long {
                text.extend_from_slice(&self.0.line);
            }
        }
        if first == 0 {
            return Ok(None);
        }
        let content = if too_long { Err(Reason::TooLong { max_bytes: self.0.max_bytes }) } else { plain(text) };
        Ok(Some(Raw { number: first, content }))
    }
}

fn plain(text: Vec<u8>) -> Result<Content, Reason> {
    String::from_utf8(text).map(Content::Text).map_err(|_| Reason::NotUtf8)
}

/// A whole file as one row.
#[derive(Debug)]
pub(super) struct Document<R> {
    input: Option<R>,
    max_bytes: usize,
}

impl<R: BufRead> Document<R> {
    pub fn new(input: R, max_bytes: usize) -> Self {
        Self { input: Some(input), max_bytes }
    }
}

impl<R: BufRead> Rows for Document<R> {
    fn next(&mut self) -> io::Result<Option<Raw>> {
        let Some(input) = self.input.take() else { return Ok(None) };
        let mut text = Vec::new();
        input.take(self.max_bytes as u64 + 1).read_to_end(&mut text)?;
        let content = if text.len() > self.max_bytes {
            Err(Reason::TooLong { max_bytes: self.max_bytes })
        } else if text.trim_ascii().is_empty() {
            Err(Reason::Empty("text"))
        } else {
            plain(text.strip_prefix(MARK).map(<[u8]>::to_vec).unwrap_or(text))
        };
        Ok(Some(Raw { number: 1, content }))
    }
}
