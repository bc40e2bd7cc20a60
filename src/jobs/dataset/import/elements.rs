//! The objects of a JSON list, cut out of the file one by one: the list itself is never in memory.

use std::io::{self, BufRead};

use super::detect::MARK;
use super::lines::object;
use super::{Raw, Reason, Rows};

pub(super) const NO_LIST: &str = "is JSON without a list of rows: it must be a list, or an object with one called `data`, `rows`, `examples`, `train`, `items` or `instances`";

/// What the list is called in an object that holds it.
const LISTS: [&[u8]; 6] = [b"data", b"rows", b"examples", b"train", b"items", b"instances"];
/// Longer names of fields are none of those.
const MAX_KEY_BYTES: usize = 256;

#[derive(Debug)]
pub(super) struct Elements<R> {
    input: R,
    max_bytes: usize,
    line: u64,
    ended: bool,
}

/// How a value ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    /// With what comes next: a comma or a closing bracket.
    Whole,
    TooLong,
    /// The file ends within it.
    Cut,
}

impl<R: BufRead> Elements<R> {
    /// At the first element of the list; `None` where there is no list.
    pub fn new(input: R, max_bytes: usize) -> io::Result<Option<Self>> {
        let mut elements = Self { input, max_bytes, line: 1, ended: false };
        if elements.input.fill_buf()?.starts_with(MARK) {
            elements.input.consume(MARK.len());
        }
        let found = match elements.blank()? {
            Some(b'[') => {
                elements.pass();
                true
            }
            Some(b'{') => {
                elements.pass();
                elements.find_list()?
            }
            _ => false,
        };
        Ok(found.then_some(elements))
    }

    /// Within an object: to behind the bracket of the list.
    fn find_list(&mut self) -> io::Result<bool> {
        let mut key = Vec::new();
        loop {
            match self.blank()? {
                Some(b',') => {
                    self.pass();
                    continue;
                }
                Some(b'"') => {}
                _ => return Ok(false),
            }
            key.clear();
            self.value(&mut key, MAX_KEY_BYTES)?;
            if self.blank()? != Some(b':') {
                return Ok(false);
            }
            self.pass();
            let name = key.strip_prefix(b"\"").and_then(|key| key.strip_suffix(b"\"")).unwrap_or_default();
            if self.blank()? == Some(b'[') && LISTS.contains(&name) {
                self.pass();
                return Ok(true);
            }
            if self.value(&mut Vec::new(), 0)? == End::Cut {
                return Ok(false);
            }
        }
    }

    fn peek(&mut self) -> io::Result<Option<u8>> {
        loop {
            match self.input.fill_buf() {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                bytes => return Ok(bytes?.first().copied()),
            }
        }
    }

    fn pass(&mut self) {
        self.input.consume(1);
    }

    /// The next byte that is not blank; it stays there.
    fn blank(&mut self) -> io::Result<Option<u8>> {
        while let Some(byte) = self.peek()?.filter(u8::is_ascii_whitespace) {
            self.line += u64::from(byte == b'\n');
            self.pass();
        }
        self.peek()
    }

    /// Passes over a value: to the comma, colon or bracket behind it. As much as `max_bytes` of it is kept.
    fn value(&mut self, kept: &mut Vec<u8>, max_bytes: usize) -> io::Result<End> {
        let (mut depth, mut quoted, mut escaped, mut too_long) = (0_u64, false, false, false);
        while let Some(byte) = self.peek()? {
            if quoted {
                quoted = escaped || byte != b'"';
                escaped = !escaped && byte == b'\\';
            } else {
                match byte {
                    b'"' => quoted = true,
                    b'[' | b'{' => depth += 1,
                    b',' | b':' | b']' | b'}' if depth == 0 => return Ok(if too_long { End::TooLong } else { End::Whole }),
                    b']' | b'}' => depth -= 1,
                    _ => {}
                }
            }
            self.line += u64::from(byte == b'\n');
            if kept.len() < max_bytes {
                kept.push(byte);
            } else {
                too_long = true;
            }
            self.pass();
        }
        Ok(End::Cut)
    }
}

impl<R: BufRead> Rows for Elements<R> {
    fn next(&mut self) -> io::Result<Option<Raw>> {
        if self.ended {
            return Ok(None);
        }
        if self.blank()? == Some(b',') {
            self.pass();
        }
        let next = self.blank()?;
        let number = self.line;
        if next == Some(b']') {
            self.ended = true;
            return Ok(None);
        }
        let mut bytes = Vec::new();
        let content = match self.value(&mut bytes, self.max_bytes)? {
            End::Whole if bytes.is_empty() => {
                // A bracket too many: there is no telling what the rest is.
                self.ended = true;
                Err(Reason::Json("a value is missing".to_owned()))
            }
            End::Whole => object(&bytes),
            End::TooLong => Err(Reason::TooLong { max_bytes: self.max_bytes }),
            End::Cut => {
                self.ended = true;
                Err(Reason::Unfinished)
            }
        };
        Ok(Some(Raw { number, content }))
    }
}

/// Whether an object holds a list of rows.
pub(super) fn holds_list(json: &[u8]) -> bool {
    matches!(Elements::new(json, 0), Ok(Some(_)))
}
