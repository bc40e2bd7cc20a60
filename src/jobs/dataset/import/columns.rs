//! Parquet files, row by row. Of compressions those are read that writers choose by themselves: Snappy, zstd, gzip, LZ4 and none.

use std::fs::File;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parquet::basic::Compression;
use parquet::file::reader::{FileReader, SerializedFileReader};
use parquet::record::reader::RowIter;
use parquet::record::{Field, Row};
use serde_json::{Map, Value};

use super::{Content, Raw, Reason, Rows};

/// Deeper than any row of text.
const MAX_DEPTH: usize = 32;

pub(super) struct Columns {
    rows: RowIter<'static>,
    number: u64,
    whole_rows: u64,
    file_bytes: u64,
    read: Arc<AtomicU64>,
    ended: bool,
}

impl Columns {
    /// Reads the end of the file, which says what is in it.
    ///
    /// # Errors
    /// What is wrong with the file.
    pub fn new(file: File, read: Arc<AtomicU64>) -> Result<Self, String> {
        let file_bytes = file.metadata().map_err(|error| error.to_string())?.len();
        let broken = |error: String| format!("is no sound Parquet file: {error}");
        let reader = guarded(|| SerializedFileReader::new(file)).map_err(broken)?;
        for group in reader.metadata().row_groups() {
            for column in group.columns() {
                let compression = column.compression();
                if matches!(compression, Compression::BROTLI(_) | Compression::LZO) {
                    return Err(format!(
                        "is a Parquet file whose columns are packed with {compression}; write it anew with zstd or Snappy"
                    ));
                }
            }
        }
        let whole_rows = u64::try_from(reader.metadata().file_metadata().num_rows()).unwrap_or(0);
        Ok(Self { rows: reader.into_iter(), number: 0, whole_rows, file_bytes, read, ended: false })
    }
}

/// The decoder checks much of a broken file, but not everything.
fn guarded<T>(work: impl FnOnce() -> parquet::errors::Result<T>) -> Result<T, String> {
    match catch_unwind(AssertUnwindSafe(work)) {
        Ok(result) => result.map_err(|error| error.to_string()),
        Err(_) => Err("the file is broken".to_owned()),
    }
}

impl Rows for Columns {
    fn next(&mut self) -> io::Result<Option<Raw>> {
        if self.ended {
            return Ok(None);
        }
        let row = guarded(|| self.rows.next().transpose());
        self.number += 1;
        // How far it is in the file is not told.
        let share = u128::from(self.file_bytes) * u128::from(self.number.min(self.whole_rows)) / u128::from(self.whole_rows.max(1));
        self.read.store(u64::try_from(share).unwrap_or(self.file_bytes), Ordering::Relaxed);
        match row {
            Ok(Some(row)) => Ok(Some(Raw { number: self.number, content: fields(&row, 0).map(Content::Fields) })),
            Ok(None) => Ok(None),
            Err(why) => {
                self.ended = true;
                Err(io::Error::new(io::ErrorKind::InvalidData, format!("row {}: {why}", self.number)))
            }
        }
    }
}

fn fields(row: &Row, depth: usize) -> Result<Map<String, Value>, Reason> {
    row.get_column_iter().map(|(name, field)| Ok((name.clone(), value(field, depth + 1)?))).collect()
}

fn value(field: &Field, depth: usize) -> Result<Value, Reason> {
    if depth > MAX_DEPTH {
        return Err(Reason::Field("structure"));
    }
    Ok(match field {
        Field::Str(text) => Value::String(text.clone()),
        Field::Bool(yes) => Value::Bool(*yes),
        Field::Byte(number) => Value::from(*number),
        Field::Short(number) => Value::from(*number),
        Field::Int(number) => Value::from(*number),
        Field::Long(number) => Value::from(*number),
        Field::UByte(number) => Value::from(*number),
        Field::UShort(number) => Value::from(*number),
        Field::UInt(number) => Value::from(*number),
        Field::ULong(number) => Value::from(*number),
        Field::Float(number) => Value::from(*number),
        Field::Double(number) => Value::from(*number),
        Field::Group(row) => Value::Object(fields(row, depth)?),
        Field::ListInternal(list) => Value::Array(list.elements().iter().map(|item| value(item, depth + 1)).collect::<Result<_, _>>()?),
        // Text that is not said to be text.
        Field::Bytes(bytes) => std::str::from_utf8(bytes.data()).map_or(Value::Null, Value::from),
        // Dates, times, decimals and maps are nothing that is learnt from.
        _ => Value::Null,
    })
}
