//! Files into rows: JSONL, JSON, CSV, Parquet and plain text, in the shapes in which people keep such data.
//!
//! It reads in one pass and promises bounded memory: a row has at most so many bytes, a data set so many rows and bytes. What is wrong with
//! a row is counted and shown with its line, and costs that row alone, unless more than a configured share of them is bad.

mod columns;
mod detect;
mod elements;
mod lines;
mod reason;
mod shape;
mod table;

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufReader, Read};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::collected::{COLLECTED, Collected};
use super::error::Error;
use super::example::{Body, Example};
use super::report::Tally;

pub use detect::Format;
pub use reason::Reason;
pub(super) use shape::conversation;

/// Bytes that are looked at to tell what a file is.
const HEAD_BYTES: usize = 64 << 10;
/// The field of the canonical form that says which rows belong together.
const GROUP: &str = "group";
/// How often it is told how far it has come.
const TICK_ROWS: u64 = 256;

/// One file, and how it is to be read; or what the gateway collected.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Source {
    /// Empty of what was collected.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub path: String,
    /// Which of the exchanges that the gateway collected, in the place of a path.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub collected: Option<Collected>,
    /// Told by the file's ending and content where it is not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub format: Option<Format>,
    /// New names of fields, by their names in the file.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub fields: BTreeMap<String, String>,
    /// How often a row is in the training side: 2 is twice, 0.5 a half of the rows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub weight: Option<f64>,
    /// Which share of the training side its rows are to be; either all sources have one or none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub share: Option<f64>,
}

impl Source {
    #[must_use]
    pub fn new(path: impl Into<String>) -> Self {
        Self { path: path.into(), collected: None, format: None, fields: BTreeMap::new(), weight: None, share: None }
    }

    /// Of what was collected.
    #[must_use]
    pub fn collected(collected: Collected) -> Self {
        Self { collected: Some(collected), ..Self::new("") }
    }

    /// What it is called, and opened by.
    #[must_use]
    pub fn name(&self) -> Cow<'_, str> {
        self.collected.as_ref().map_or(Cow::Borrowed(self.path.as_str()), |collected| Cow::Owned(collected.name()))
    }

    /// # Errors
    /// One that is neither a file nor what was collected, or both.
    pub(super) fn validate(&self) -> Result<(), Error> {
        let wrong = |what: &str| Err(Error::Options(what.to_owned()));
        match &self.collected {
            None if self.path.is_empty() => wrong("a source has a `path`, or says `collected`"),
            None if Collected::parse(&self.path).is_some() => {
                wrong("a `path` is a file's; what was collected is named by `\"collected\": {}`")
            }
            None => Ok(()),
            Some(_) if !self.path.is_empty() => wrong("a source has a `path` or says `collected`, not both"),
            Some(_) if self.format.is_some() || !self.fields.is_empty() => {
                wrong("`format` and `fields` are for files, not for what was collected")
            }
            Some(collected) => collected.validate(),
        }
    }
}

/// How much is read.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// Of one row, as it is written in the file.
    pub max_row_bytes: usize,
    /// Of all sources together.
    pub max_rows: u64,
    /// Bytes of text that are kept, of all sources together.
    pub max_bytes: u64,
    /// A source fails when more than this share of its rows cannot be used.
    pub max_bad_share: f64,
}

impl Default for Limits {
    fn default() -> Self {
        Self { max_row_bytes: 4 << 20, max_rows: 2_000_000, max_bytes: 2 << 30, max_bad_share: 0.1 }
    }
}

/// What came of a source.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Intake {
    pub path: String,
    pub format: String,
    pub rows: u64,
    pub kept: u64,
    /// Rows that cannot be used, by reason.
    pub bad: Tally,
}

/// A row as a file has it.
#[derive(Debug)]
struct Raw {
    number: u64,
    content: Result<Content, Reason>,
}

#[derive(Debug)]
enum Content {
    Fields(Map<String, Value>),
    Text(String),
}

/// The rows of a file, one after the other.
trait Rows {
    /// # Errors
    /// When the file cannot be read any further.
    fn next(&mut self) -> io::Result<Option<Raw>>;
}

/// What sources are read into.
#[derive(Debug)]
pub struct Import<'a> {
    limits: &'a Limits,
    /// Field that says which rows belong together.
    group: Option<&'a str>,
    /// Whether rows may be without an answer.
    prompts: bool,
    pub examples: Vec<Example>,
    bytes: u64,
}

impl<'a> Import<'a> {
    #[must_use]
    pub fn new(limits: &'a Limits, group: Option<&'a str>) -> Self {
        Self { limits, group, prompts: false, examples: Vec::new(), bytes: 0 }
    }

    /// Takes rows that only ask, too: conversations that end with somebody else than the assistant.
    #[must_use]
    pub fn with_prompts(self, prompts: bool) -> Self {
        Self { prompts, ..self }
    }

    /// Reads a source. `number`: its place among the sources; `told`: hears how many bytes of the file have been read, and may stop it.
    ///
    /// # Errors
    /// When the file cannot be read, is of no known form, holds too much or too many bad rows.
    pub fn read(
        &mut self,
        file: File,
        source: &Source,
        number: u32,
        told: &mut dyn FnMut(u64) -> Result<(), Error>,
    ) -> Result<Intake, Error> {
        let name = source.name();
        let name = name.as_ref();
        let read = Arc::new(AtomicU64::new(0));
        let (format, mut rows) = self.open(file, source, &read)?;
        let mut intake = Intake { path: name.to_owned(), format: format.name().to_owned(), ..Intake::default() };
        loop {
            let raw = rows.next().map_err(|error| Error::Read { name: name.to_owned(), source: error })?;
            let Some(raw) = raw else { break };
            intake.rows += 1;
            match self.take(raw.content, source) {
                Ok((body, group)) => self.keep(Example { body, group, source: number, row: raw.number }, &mut intake)?,
                Err(reason) => intake.bad.add(reason.kind(), &format!("{}: {reason}", raw.number)),
            }
            if intake.rows.is_multiple_of(TICK_ROWS) {
                told(read.load(Ordering::Relaxed))?;
            }
        }
        told(read.load(Ordering::Relaxed))?;
        // That there are answers of which nothing can be learnt is no sign of a file that is read in the wrong way.
        if source.collected.is_some() {
            COLLECTED.clone_into(&mut intake.format);
            return Ok(intake);
        }
        self.judge(intake)
    }

    fn open(&self, file: File, source: &Source, read: &Arc<AtomicU64>) -> Result<(Format, Box<dyn Rows>), Error> {
        let name = source.name();
        let form = |why: String| Error::Form { name: name.to_string(), why };
        let failed = |error| Error::Read { name: name.to_string(), source: error };
        let (head, file) = detect::head(file, HEAD_BYTES).map_err(failed)?;
        let given = if source.collected.is_some() { Some(Format::Jsonl) } else { source.format };
        let format = detect::format(&name, given, &head).map_err(form)?;
        let max = self.limits.max_row_bytes;
        let counted = |file| BufReader::with_capacity(HEAD_BYTES, Counted { file, read: Arc::clone(read) });
        let rows: Box<dyn Rows> = match format {
            Format::Jsonl => Box::new(lines::Jsonl::new(counted(file), max)),
            Format::Json => {
                Box::new(elements::Elements::new(counted(file), max).map_err(failed)?.ok_or_else(|| form(elements::NO_LIST.to_owned()))?)
            }
            Format::Csv | Format::Tsv => Box::new(table::Table::new(counted(file), table::delimiter(format, &head), max).map_err(failed)?),
            Format::Parquet => Box::new(columns::Columns::new(file, Arc::clone(read)).map_err(form)?),
            Format::Text => Box::new(lines::Paragraphs::new(counted(file), max)),
            Format::Document => Box::new(lines::Document::new(counted(file), max)),
        };
        Ok((format, rows))
    }

    fn take(&self, content: Result<Content, Reason>, source: &Source) -> Result<(Body, Option<String>), Reason> {
        let mut fields = match content? {
            Content::Text(text) => return Ok((Body::Text(text), None)),
            Content::Fields(fields) => fields,
        };
        if let Some(collected) = &source.collected {
            return Ok((collected.body(&fields)?, None));
        }
        for (old, new) in &source.fields {
            if let Some(value) = fields.remove(old) {
                fields.insert(new.clone(), value);
            }
        }
        Ok((read_fields(&fields, self.prompts)?, group(&fields, self.group.unwrap_or(GROUP))))
    }

    fn keep(&mut self, example: Example, intake: &mut Intake) -> Result<(), Error> {
        if self.examples.len() as u64 >= self.limits.max_rows {
            return Err(Error::Rows { rows: self.limits.max_rows });
        }
        self.bytes += example.body.bytes() as u64;
        if self.bytes > self.limits.max_bytes {
            return Err(Error::Bytes { bytes: self.limits.max_bytes });
        }
        intake.kept += 1;
        self.examples.push(example);
        Ok(())
    }

    fn judge(&self, intake: Intake) -> Result<Intake, Error> {
        let (bad, rows, share) = (intake.rows - intake.kept, intake.rows, self.limits.max_bad_share);
        #[expect(clippy::cast_precision_loss, reason = "counts of rows are small")]
        let too_many = bad as f64 > share * rows as f64;
        if !too_many {
            return Ok(intake);
        }
        let first = intake.bad.first().map(|first| format!("the first is row {first}")).unwrap_or_default();
        Err(Error::Bad { name: intake.path, bad, rows, allowed: share * 100.0, first })
    }
}

fn read_fields(fields: &Map<String, Value>, prompts: bool) -> Result<Body, Reason> {
    let prompt = if prompts { shape::read_prompt(fields)? } else { None };
    prompt.map_or_else(|| shape::read(fields), Ok)
}

/// What a row says about which others it belongs to.
fn group(fields: &Map<String, Value>, name: &str) -> Option<String> {
    match fields.get(name)? {
        Value::String(text) if !text.is_empty() => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        _ => None,
    }
}

/// A row in the canonical form, or one that is still without its answer.
///
/// # Errors
/// When it is in another one.
pub(super) fn read_line(json: &str) -> Result<(Body, Option<String>), Reason> {
    match lines::object(json.as_bytes())? {
        Content::Fields(fields) => Ok((read_fields(&fields, true)?, group(&fields, GROUP))),
        Content::Text(_) => Err(Reason::NotAnObject),
    }
}

/// Counts what is read of a file.
#[derive(Debug)]
struct Counted<R> {
    file: R,
    read: Arc<AtomicU64>,
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.file.read(buffer)?;
        self.read.fetch_add(count as u64, Ordering::Relaxed);
        Ok(count)
    }
}

#[cfg(test)]
mod tests;
