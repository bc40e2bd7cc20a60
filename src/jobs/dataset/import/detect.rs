//! What a file is, by its ending and by how it begins.

use std::fs::File;
use std::io::{self, Read, Seek};

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// How a file is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// One JSON object a line.
    Jsonl,
    /// A list of objects, or an object with such a list (`data`, `rows`, …).
    Json,
    /// A table whose first row names the fields.
    Csv,
    /// The same with tabs.
    Tsv,
    Parquet,
    /// Text whose paragraphs, with empty lines between them, are rows.
    Text,
    /// Text that is one row.
    Document,
}

impl Format {
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Jsonl => "jsonl",
            Self::Json => "json",
            Self::Csv => "csv",
            Self::Tsv => "tsv",
            Self::Parquet => "parquet",
            Self::Text => "text",
            Self::Document => "document",
        }
    }
}

pub(super) const MARK: &[u8] = b"\xef\xbb\xbf";
const PARQUET: &[u8] = b"PAR1";
/// How files begin that must be unpacked or written anew before they can be read.
const FOREIGN: [(&[u8], &str); 6] = [
    (b"\x1f\x8b", "is packed with gzip; unpack it first"),
    (b"\x28\xb5\x2f\xfd", "is packed with zstd; unpack it first"),
    (b"PK\x03\x04", "is a ZIP archive; unpack it first"),
    (b"\xff\xfe", "is in UTF-16; write it anew in UTF-8"),
    (b"\xfe\xff", "is in UTF-16; write it anew in UTF-8"),
    (b"ARROW1", "is an Arrow file; write it anew as Parquet or JSONL"),
];

/// How the file begins, and the file at its beginning.
pub(super) fn head(mut file: File, bytes: usize) -> io::Result<(Vec<u8>, File)> {
    let mut head = Vec::new();
    file.by_ref().take(bytes as u64).read_to_end(&mut head)?;
    file.rewind()?;
    Ok((head, file))
}

/// The format that is given, or the one that the ending and the beginning speak for.
pub(super) fn format(name: &str, given: Option<Format>, head: &[u8]) -> Result<Format, String> {
    if let Some((_, why)) = FOREIGN.iter().find(|(begins, _)| head.starts_with(begins)) {
        return Err((*why).to_owned());
    }
    if let Some(format) = given {
        return Ok(format);
    }
    if head.starts_with(PARQUET) {
        return Ok(Format::Parquet);
    }
    let ending = name.rsplit('/').next().and_then(|name| name.rsplit_once('.')).map(|(_, ending)| ending.to_ascii_lowercase());
    match ending.as_deref() {
        Some("jsonl" | "ndjson") => Ok(Format::Jsonl),
        Some("json") => Ok(json(head)),
        Some("csv") => Ok(Format::Csv),
        Some("tsv") => Ok(Format::Tsv),
        Some("parquet") => Err("is called Parquet, but does not begin as such a file does".to_owned()),
        Some("txt" | "text" | "md") => Ok(Format::Text),
        _ => match begins(head) {
            Some(b'{' | b'[') => Ok(json(head)),
            _ => Err("has no known ending; say its `format`: jsonl, json, csv, tsv, parquet, text or document".to_owned()),
        },
    }
}

fn begins(head: &[u8]) -> Option<u8> {
    head.strip_prefix(MARK).unwrap_or(head).trim_ascii_start().first().copied()
}

/// Many files that are called JSON have an object in each line.
fn json(head: &[u8]) -> Format {
    let text = head.strip_prefix(MARK).unwrap_or(head).trim_ascii_start();
    let line = text.split(|byte| *byte == b'\n').next().unwrap_or_default();
    let whole = matches!(serde_json::from_slice(line), Ok(Value::Object(_)));
    // An object in the only line may hold the list.
    let list = whole && line.trim_ascii().len() == text.trim_ascii().len() && super::elements::holds_list(line);
    // A line that goes on behind what was looked at is hardly an object that somebody wrote by hand.
    if text.first() == Some(&b'{') && whole && !list { Format::Jsonl } else { Format::Json }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_what_its_ending_and_its_beginning_say() {
        let of = |name: &str, head: &str| format(name, None, head.as_bytes());
        assert_eq!(of("a/b.JSONL", ""), Ok(Format::Jsonl));
        assert_eq!(of("b.json", " [\n{}]"), Ok(Format::Json));
        assert_eq!(of("b.json", "{\"data\": [{}]}"), Ok(Format::Json));
        assert_eq!(of("b.json", "{\n\"data\": [{}]}"), Ok(Format::Json));
        assert_eq!(of("b.json", "{\"text\": \"x\"}\n{\"text\": \"y\"}\n"), Ok(Format::Jsonl));
        assert_eq!(of("b.json", "{\"text\": \"x\"}"), Ok(Format::Jsonl));
        assert_eq!(of("b.json", "\u{feff}{\"messages\": []}\n"), Ok(Format::Jsonl));
        assert_eq!(of("x.txt", "{}"), Ok(Format::Text));
        assert_eq!(of("x", "PAR1"), Ok(Format::Parquet));
        assert_eq!(of("jsonl", "{\"a\": 1}\n{}"), Ok(Format::Jsonl));
        assert_eq!(format("x", Some(Format::Csv), b"a"), Ok(Format::Csv));
        for (name, head, why) in [
            ("x.jsonl", &b"\x1f\x8b.."[..], "gzip"),
            ("x.csv", b"\xff\xfea", "UTF-16"),
            ("x.parquet", b"nothing", "does not begin"),
            ("x.bin", b"\0\x01", "format"),
        ] {
            assert!(format(name, None, head).expect_err(name).contains(why), "{name}");
        }
    }
}
