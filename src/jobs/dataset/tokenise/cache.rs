//! Rows of tokens on the disk, so that they are made once and need no memory.
//!
//! A file is there whole or not at all (it is written beside its place, put onto the disk and renamed), and says what it was made of: one that
//! was made of something else is as good as none.
//!
//! ```text
//! "ARRTOKS1" | rows: tokens (u32 …), weights (f32 …) | offsets: of each row in tokens, and the end (u64 …)
//!            | footer: JSON {key, statistics} | its length (u64) | number of rows (u64) | "ARRTOKS1"        all little-endian
//! ```

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::Options;
use super::statistics::Statistics;
use crate::domain::digest::Digest;
use crate::gguf::{Header, Value};
use crate::jobs::finetune::batch::{Row, Rows};
use crate::jobs::positioned::read_exact_at;

const MAGIC: &[u8; 8] = b"ARRTOKS1";
const TRAILER_BYTES: usize = 24;
/// Of a token and its weight.
const TOKEN_BYTES: u64 = 8;
const MAX_FOOTER_BYTES: u64 = 16 << 20;
/// Grows when the same rows would become other tokens.
const FORM: u32 = 3;

/// What rows of tokens are made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Key(Digest);

impl Key {
    /// `version` and `side`: which rows; of the model's file all that says how text becomes tokens counts.
    #[must_use]
    pub fn new(version: &str, side: &str, header: &Header, options: &Options) -> Self {
        let mut hasher = Sha256::new();
        hasher.update(format!("{FORM}\n{version}\n{side}\n{}\n", serde_json::to_string(options).unwrap_or_default()));
        for (key, value) in header.metadata.iter().filter(|(key, _)| key.starts_with("tokenizer.") || *key == "general.name") {
            hasher.update(key);
            hasher.update([0]);
            match value {
                Value::Strings(all) => all.iter().for_each(|text| hasher.update([&(text.len() as u64).to_le_bytes(), text].concat())),
                Value::F32s(all) => all.iter().for_each(|number| hasher.update(number.to_le_bytes())),
                Value::I32s(all) => all.iter().for_each(|number| hasher.update(number.to_le_bytes())),
                other => hasher.update(format!("{other:?}")),
            }
        }
        Self(Digest::new(hasher.finalize().into()))
    }

    /// For the name of a file.
    #[must_use]
    pub fn hex(&self) -> String {
        self.0.hex()
    }
}

#[derive(Debug, Serialize, Deserialize)]
struct Footer {
    key: Key,
    statistics: Statistics,
}

/// Writes a cache, row by row. Dropped unfinished, it leaves nothing.
#[derive(Debug)]
pub struct Writer {
    out: Option<BufWriter<File>>,
    place: PathBuf,
    beside: PathBuf,
    offsets: Vec<u64>,
}

impl Writer {
    /// # Errors
    /// When no file can be made there.
    pub fn create(place: &Path) -> io::Result<Self> {
        let mut name = place.file_name().unwrap_or_default().to_owned();
        name.push(".part");
        let beside = place.with_file_name(name);
        let mut out = BufWriter::with_capacity(1 << 18, File::create(&beside)?);
        out.write_all(MAGIC)?;
        Ok(Self { out: Some(out), place: place.to_owned(), beside, offsets: vec![0] })
    }

    fn out(&mut self) -> io::Result<&mut BufWriter<File>> {
        self.out.as_mut().ok_or_else(|| io::Error::other("it is finished"))
    }

    /// # Errors
    /// When it cannot be written.
    pub fn push(&mut self, row: &Row) -> io::Result<()> {
        if row.tokens.len() != row.weights.len() {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "a row has as many weights as tokens"));
        }
        let out = self.out()?;
        row.tokens.iter().try_for_each(|token| out.write_all(&token.to_le_bytes()))?;
        row.weights.iter().try_for_each(|weight| out.write_all(&weight.to_le_bytes()))?;
        let end = self.offsets.last().copied().unwrap_or(0) + row.tokens.len() as u64;
        self.offsets.push(end);
        Ok(())
    }

    /// Puts all of it onto the disk and in its place.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn finish(mut self, key: Key, statistics: Statistics) -> io::Result<Cache> {
        let footer = serde_json::to_vec(&Footer { key, statistics })?;
        let offsets = std::mem::take(&mut self.offsets);
        let out = self.out()?;
        offsets.iter().try_for_each(|offset| out.write_all(&offset.to_le_bytes()))?;
        out.write_all(&footer)?;
        out.write_all(&(footer.len() as u64).to_le_bytes())?;
        out.write_all(&(offsets.len() as u64 - 1).to_le_bytes())?;
        out.write_all(MAGIC)?;
        out.flush()?;
        out.get_ref().sync_all()?;
        self.out = None;
        std::fs::rename(&self.beside, &self.place)?;
        if let Some(folder) = self.place.parent().filter(|folder| !folder.as_os_str().is_empty()) {
            File::open(folder)?.sync_all()?;
        }
        Cache::open(&self.place, key)?.ok_or_else(|| io::Error::other("what was written is not what is read"))
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        if self.out.take().is_some() {
            let _ = std::fs::remove_file(&self.beside);
        }
    }
}

/// Rows that lie on the disk.
#[derive(Debug)]
pub struct Cache {
    file: File,
    offsets: Vec<u64>,
    pub statistics: Statistics,
}

impl Cache {
    /// The cache at a place; `None` where there is none, or one that is not sound or was made of something else.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn open(place: &Path, key: Key) -> io::Result<Option<Self>> {
        match File::open(place) {
            Ok(file) => Self::read(file, key),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn read(file: File, key: Key) -> io::Result<Option<Self>> {
        let length = file.metadata()?.len();
        let mut trailer = [0; TRAILER_BYTES];
        let Some(at) = length.checked_sub(TRAILER_BYTES as u64).filter(|at| *at >= MAGIC.len() as u64) else { return Ok(None) };
        read_exact_at(&file, &mut trailer, at)?;
        let number = |part: &[u8]| part.iter().rev().fold(0, |all: u64, byte| all << 8 | u64::from(*byte));
        let (footer_bytes, rows) = (number(&trailer[..8]), number(&trailer[8..16]));
        let offsets_at = rows.checked_add(1).and_then(|count| count.checked_mul(8)).and_then(|bytes| bytes.checked_add(footer_bytes));
        let Some(offsets_at) = offsets_at.and_then(|bytes| at.checked_sub(bytes)) else { return Ok(None) };
        if trailer[16..] != MAGIC[..] || footer_bytes > MAX_FOOTER_BYTES {
            return Ok(None);
        }
        let mut bytes = vec![0; usize::try_from(at - offsets_at).map_err(io::Error::other)?];
        read_exact_at(&file, &mut bytes, offsets_at)?;
        let (offsets, footer) = bytes.split_at(bytes.len() - usize::try_from(footer_bytes).map_err(io::Error::other)?);
        let offsets: Vec<u64> = offsets.chunks_exact(8).map(number).collect();
        let Ok(footer) = serde_json::from_slice::<Footer>(footer) else { return Ok(None) };
        let tokens = offsets.last().copied().unwrap_or(0);
        let sound = offsets.is_sorted() && tokens.checked_mul(TOKEN_BYTES) == offsets_at.checked_sub(MAGIC.len() as u64);
        Ok((sound && footer.key == key).then_some(Self { file, offsets, statistics: footer.statistics }))
    }

    fn place(&self, index: usize) -> Option<(u64, usize)> {
        let (start, end) = (*self.offsets.get(index)?, *self.offsets.get(index.checked_add(1)?)?);
        Some((start, usize::try_from(end - start).ok()?))
    }
}

impl Rows for Cache {
    fn len(&self) -> usize {
        self.offsets.len() - 1
    }

    fn length(&self, index: usize) -> usize {
        self.place(index).map_or(0, |(_, length)| length)
    }

    fn row(&self, index: usize) -> io::Result<Row> {
        let missing = || io::Error::new(io::ErrorKind::NotFound, format!("there is no row {index}"));
        let (start, length) = self.place(index).ok_or_else(missing)?;
        let mut bytes = vec![0; length * 8];
        read_exact_at(&self.file, &mut bytes, MAGIC.len() as u64 + start * TOKEN_BYTES)?;
        let (tokens, weights) = bytes.split_at(length * 4);
        let number = |part: &[u8]| [part[0], part[1], part[2], part[3]];
        Ok(Row {
            tokens: tokens.chunks_exact(4).map(|part| u32::from_le_bytes(number(part))).collect(),
            weights: weights.chunks_exact(4).map(|part| f32::from_le_bytes(number(part))).collect(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gguf::writer::Writer as Gguf;

    fn header(template: &str) -> Header {
        Header::parse(&Gguf::default().str("tokenizer.chat_template", template).finish()).expect("sound")
    }

    fn rows() -> Vec<Row> {
        vec![
            Row { tokens: vec![1, 2, 70_000], weights: vec![0.0, 1.0, 0.5] },
            Row { tokens: vec![], weights: vec![] },
            Row { tokens: vec![9], weights: vec![-1.0] },
        ]
    }

    #[test]
    fn what_was_written_is_read_again() {
        let folder = tempfile::tempdir().expect("a folder");
        let place = folder.path().join("train.tokens");
        let key = Key::new("v", "train", &header("x"), &Options::default());
        assert!(Cache::open(&place, key).expect("looked").is_none());
        let mut writer = Writer::create(&place).expect("made");
        rows().iter().try_for_each(|row| writer.push(row)).expect("written");
        let statistics = Statistics { rows: 3, tokens: 4, ..Statistics::default() };
        let cache = writer.finish(key, statistics.clone()).expect("finished");
        for cache in [cache, Cache::open(&place, key).expect("read").expect("there")] {
            assert_eq!((cache.len(), &cache.statistics), (3, &statistics));
            assert_eq!([0, 1, 2, 3].map(|index| cache.length(index)), [3, 0, 1, 0]);
            let read: Vec<Row> = (0..3).map(|index| cache.row(index).expect("a row")).collect();
            assert_eq!(read, rows());
            assert!(cache.row(3).is_err() && cache.row(usize::MAX).is_err());
        }
        assert_eq!(std::fs::read_dir(folder.path()).expect("listed").count(), 1);
    }

    #[test]
    fn one_of_something_else_or_a_broken_one_is_none() {
        let folder = tempfile::tempdir().expect("a folder");
        let place = folder.path().join("x");
        let options = Options::default();
        let key = Key::new("v", "train", &header("x"), &options);
        let mut writer = Writer::create(&place).expect("made");
        rows().iter().try_for_each(|row| writer.push(row)).expect("written");
        drop(writer.finish(key, Statistics::default()).expect("finished"));
        for other in [
            Key::new("w", "train", &header("x"), &options),
            Key::new("v", "test", &header("x"), &options),
            Key::new("v", "train", &header("y"), &options),
            Key::new("v", "train", &header("x"), &Options { sequence_tokens: 9, ..options }),
        ] {
            assert!(Cache::open(&place, other).expect("read").is_none());
        }
        let whole = std::fs::read(&place).expect("read");
        for end in 0..whole.len() {
            std::fs::write(&place, &whole[..end]).expect("written");
            assert!(Cache::open(&place, key).expect("read").is_none(), "{end} bytes");
        }
        for at in 0..whole.len() {
            let mut broken = whole.clone();
            broken[at] ^= 0x80;
            std::fs::write(&place, &broken).expect("written");
            // It is none, or its rows can be read, whatever they say.
            if let Ok(Some(cache)) = Cache::open(&place, key) {
                (0..cache.len()).for_each(|index| drop(cache.row(index)));
            }
        }
    }

    #[test]
    fn an_unfinished_one_leaves_nothing() {
        let folder = tempfile::tempdir().expect("a folder");
        drop(Writer::create(&folder.path().join("x")).expect("made"));
        assert_eq!(std::fs::read_dir(folder.path()).expect("listed").count(), 0);
    }
}
