//! Tables with a first row of names, as CSV (RFC 4180) writes them.

use std::cell::Cell;
use std::io::{self, BufRead, Read};
use std::rc::Rc;

use csv::{ByteRecord, ReaderBuilder};
use serde_json::{Map, Value};

use super::detect::{Format, MARK};
use super::{Content, Raw, Reason, Rows};

/// More fields than any table has.
const MAX_FIELDS: usize = 4_096;

pub(super) struct Table<R: BufRead> {
    reader: csv::Reader<Bounded<R>>,
    /// Bytes that may still be read for the row at hand.
    left: Rc<Cell<usize>>,
    max_bytes: usize,
    names: Vec<String>,
    record: ByteRecord,
    ended: bool,
}

/// The character between fields: what the first line has most of.
pub(super) fn delimiter(format: Format, head: &[u8]) -> u8 {
    if format == Format::Tsv {
        return b'\t';
    }
    let line = head.split(|byte| *byte == b'\n').next().unwrap_or_default();
    let count = |mark: u8| memchr::memchr_iter(mark, line).count();
    // The comma where there are as many of several.
    [b';', b'\t', b','].into_iter().max_by_key(|mark| count(*mark)).unwrap_or(b',')
}

/// Ends a row that would never end, such as one with a quote that is not closed.
struct Bounded<R> {
    input: R,
    left: Rc<Cell<usize>>,
}

impl<R: BufRead> Read for Bounded<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = self.left.get();
        if left == 0 && !self.input.fill_buf()?.is_empty() {
            return Err(io::Error::new(io::ErrorKind::FileTooLarge, "a row is too long"));
        }
        let room = buffer.len().min(left);
        let count = self.input.read(&mut buffer[..room])?;
        self.left.set(left - count);
        Ok(count)
    }
}

impl<R: BufRead> Table<R> {
    /// Reads the first row.
    ///
    /// # Errors
    /// When it cannot be read, or is not in UTF-8.
    pub fn new(mut input: R, delimiter: u8, max_bytes: usize) -> io::Result<Self> {
        if input.fill_buf()?.starts_with(MARK) {
            input.consume(MARK.len());
        }
        // The reader reads ahead by as much as its buffer takes.
        let left = Rc::new(Cell::new(0));
        let bounded = Bounded { input, left: Rc::clone(&left) };
        let reader = ReaderBuilder::new().has_headers(false).flexible(true).delimiter(delimiter).from_reader(bounded);
        let mut table = Self { reader, left, max_bytes, names: Vec::new(), record: ByteRecord::new(), ended: false };
        let wrong = |what: &str| io::Error::new(io::ErrorKind::InvalidData, format!("its first row, which names the fields, {what}"));
        if !table.advance()? || table.ended {
            return Err(wrong("is missing or too long"));
        }
        let names = table.record.iter().map(|name| std::str::from_utf8(name).map(|name| name.trim().to_owned()));
        table.names = names.collect::<Result<_, _>>().map_err(|_| wrong("is not in UTF-8"))?;
        if table.names.len() > MAX_FIELDS {
            return Err(wrong("names too many"));
        }
        Ok(table)
    }

    /// Whether there is another row, or one that is too long (then `ended`).
    fn advance(&mut self) -> io::Result<bool> {
        self.left.set(self.max_bytes);
        match self.reader.read_byte_record(&mut self.record) {
            Ok(more) => Ok(more),
            Err(error) => match error.into_kind() {
                csv::ErrorKind::Io(error) if error.kind() == io::ErrorKind::FileTooLarge => {
                    self.ended = true;
                    Ok(true)
                }
                csv::ErrorKind::Io(error) => Err(error),
                other => Err(io::Error::new(io::ErrorKind::InvalidData, format!("{other:?}"))),
            },
        }
    }

    fn fields(&self) -> Result<Content, Reason> {
        if self.record.len() != self.names.len() {
            return Err(Reason::Fields { found: self.record.len(), named: self.names.len() });
        }
        let mut fields = Map::new();
        for (name, value) in self.names.iter().zip(&self.record) {
            let text = std::str::from_utf8(value).map_err(|_| Reason::NotUtf8)?;
            // An empty field of a table is one that is not there.
            let value = if text.is_empty() { Value::Null } else { Value::String(text.to_owned()) };
            fields.insert(name.clone(), value);
        }
        Ok(Content::Fields(fields))
    }
}

impl<R: BufRead> Rows for Table<R> {
    fn next(&mut self) -> io::Result<Option<Raw>> {
        if self.ended {
            return Ok(None);
        }
        let number = self.reader.position().line();
        if !self.advance()? {
            return Ok(None);
        }
        // Where a row that is too long would end is not known: the rest is not read.
        let content = if self.ended { Err(Reason::TooLong { max_bytes: self.max_bytes }) } else { self.fields() };
        Ok(Some(Raw { number: self.record.position().map_or(number, csv::Position::line), content }))
    }
}
