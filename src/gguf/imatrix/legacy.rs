//! The old format: a count, then for each tensor its name, the number of measurements, and their sum.

use std::io::{Read, Seek};

use super::super::cursor::Cursor;
use super::{Error, Imatrix, broken};

/// llama.cpp's names have fewer than 64 bytes.
const MAX_NAME_BYTES: u64 = 1024;
/// Name of a text file.
const MAX_DATASET_BYTES: u64 = 64 * 1024;
/// Fewest bytes of an entry: three lengths and one value.
const LEAST_ENTRY_BYTES: u64 = 16;

pub(super) fn read<R: Read + Seek>(reader: R) -> Result<Imatrix, Error> {
    let mut cursor = Cursor::new(reader)?;
    let count = length(&mut cursor, "the number of entries")?;
    cursor.expect(count, LEAST_ENTRY_BYTES, "the entries")?;
    let mut imatrix = Imatrix::default();
    for _ in 0..count {
        entry(&mut cursor, &mut imatrix)?;
    }
    trailer(&mut cursor, &mut imatrix)?;
    Ok(imatrix)
}

/// A number that C has as `int`.
fn int<R: Read>(cursor: &mut Cursor<R>, what: &'static str) -> Result<i32, Error> {
    Ok(cursor.bytes(what).map(i32::from_le_bytes)?)
}

fn length<R: Read>(cursor: &mut Cursor<R>, what: &'static str) -> Result<u64, Error> {
    let length = int(cursor, what)?;
    u64::try_from(length).map_err(|_| cursor.malformed(format!("{what} is {length}")).into())
}

fn text<R: Read>(cursor: &mut Cursor<R>, most: u64, what: &'static str) -> Result<String, Error> {
    let length = length(cursor, what)?;
    if length > most {
        return Err(cursor.malformed(format!("{what} has {length} bytes, more than {most}")).into());
    }
    let mut bytes = vec![0; cursor.expect(length, 1, what)?];
    cursor.fill(&mut bytes, what)?;
    let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
    Ok(String::from_utf8_lossy(&bytes[..end]).into_owned())
}

fn entry<R: Read>(cursor: &mut Cursor<R>, imatrix: &mut Imatrix) -> Result<(), Error> {
    let name = text(cursor, MAX_NAME_BYTES, "a name")?;
    let measurements = int(cursor, "a number of measurements")?;
    let count = length(cursor, "a number of values")?;
    if count == 0 {
        return Err(broken(&name, "it has no values"));
    }
    let mut values = cursor.numbers(count, "values", f32::from_le_bytes)?;
    if measurements > 0 {
        #[expect(clippy::cast_precision_loss, reason = "as llama.cpp divides")]
        let measurements = measurements as f32;
        for value in &mut values {
            *value /= measurements;
        }
    }
    imatrix.insert(name, values)
}

/// What later versions put behind the entries: the number of chunks, and the name of the text.
fn trailer<R: Read>(cursor: &mut Cursor<R>, imatrix: &mut Imatrix) -> Result<(), Error> {
    let left = cursor.file_size_bytes() - cursor.at();
    if left >= 4 {
        imatrix.chunks = int(cursor, "the number of chunks")?.try_into().unwrap_or(0);
    }
    if left >= 8 {
        imatrix.datasets.extend(Some(text(cursor, MAX_DATASET_BYTES, "the name of the text")?).filter(|name| !name.is_empty()));
    }
    Ok(())
}
