//! Tensors to a file in safetensors' format, one after another, so that no copy of all of them is ever in memory.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::Path;

use candle_core::Tensor;
use serde_json::{Map, Value, json};
use sha2::{Digest as _, Sha256};

use crate::domain::digest::Digest;
use crate::jobs::finetune::host;
use crate::jobs::finetune::learner::Tensors;

/// The format wants headers of a multiple of so many bytes.
const ALIGNMENT: usize = 8;
/// Numbers that are turned into bytes in one go.
const PIECE: usize = 4096;

/// What a file holds under one name.
#[derive(Debug, Clone, Copy)]
pub enum Content<'a> {
    /// Of single precision.
    Tensor(&'a Tensor),
    Floats(&'a [f32]),
    Bytes(&'a [u8]),
}

impl Content<'_> {
    fn header(&self, start: usize) -> (Value, usize) {
        let (kind, shape, size_bytes) = match self {
            Self::Tensor(tensor) => ("F32", tensor.dims().to_vec(), 4 * tensor.elem_count()),
            Self::Floats(numbers) => ("F32", vec![numbers.len()], 4 * numbers.len()),
            Self::Bytes(bytes) => ("U8", vec![bytes.len()], bytes.len()),
        };
        (json!({"dtype": kind, "shape": shape, "data_offsets": [start, start + size_bytes]}), start + size_bytes)
    }

    fn write(&self, into: &mut impl Write) -> io::Result<()> {
        match self {
            Self::Tensor(tensor) => host::read(tensor, |numbers| floats(numbers, into)).map_err(io::Error::other)?,
            Self::Floats(numbers) => floats(numbers, into),
            Self::Bytes(bytes) => into.write_all(bytes),
        }
    }
}

/// Writes a file and makes it durable; gives its SHA-256 in hexadecimal.
pub(super) fn write(path: &Path, contents: &[(String, Content<'_>)]) -> io::Result<String> {
    let mut into = Hashed { into: BufWriter::new(File::create_new(path)?), hash: Sha256::new() };
    let header = header(contents);
    into.write_all(&(header.len() as u64).to_le_bytes())?;
    into.write_all(header.as_bytes())?;
    for (_, content) in contents {
        content.write(&mut into)?;
    }
    into.into.flush()?;
    into.into.get_ref().sync_all()?;
    Ok(Digest::new(into.hash.finalize().into()).hex())
}

/// As [`write()`] writes them.
pub(super) fn contents(tensors: &Tensors) -> Vec<(String, Content<'_>)> {
    tensors.iter().map(|(name, tensor)| (name.clone(), Content::Tensor(tensor))).collect()
}

fn header(contents: &[(String, Content<'_>)]) -> String {
    let mut entries = Map::new();
    let mut start = 0;
    for (name, content) in contents {
        let (entry, end) = content.header(start);
        entries.insert(name.clone(), entry);
        start = end;
    }
    let mut text = Value::Object(entries).to_string();
    while !text.len().is_multiple_of(ALIGNMENT) {
        text.push(' ');
    }
    text
}

fn floats(numbers: &[f32], into: &mut impl Write) -> io::Result<()> {
    let mut bytes = Vec::with_capacity(4 * PIECE.min(numbers.len()));
    for piece in numbers.chunks(PIECE) {
        bytes.clear();
        bytes.extend(piece.iter().flat_map(|number| number.to_le_bytes()));
        into.write_all(&bytes)?;
    }
    Ok(())
}

struct Hashed<W> {
    into: W,
    hash: Sha256,
}

impl<W: Write> Write for Hashed<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = self.into.write(bytes)?;
        self.hash.update(&bytes[..count]);
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.into.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::Device;

    #[test]
    fn others_read_what_is_written() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("x.safetensors");
        let numbers: Vec<f32> = (0..10_000_i16).map(|n| f32::from(n) / 7.0).collect();
        let tensor = Tensor::from_vec(numbers.clone(), (100, 100), &Device::Cpu).expect("made").t().expect("turned");
        let contents = [
            ("t".to_owned(), Content::Tensor(&tensor)),
            ("f".to_owned(), Content::Floats(&numbers)),
            ("b".to_owned(), Content::Bytes(&[1, 2, 3])),
        ];
        let hash = write(&path, &contents).expect("written");
        assert_eq!(hash, Digest::new(Sha256::digest(std::fs::read(&path).expect("there")).into()).hex());
        let read = candle_core::safetensors::load(&path, &Device::Cpu).expect("read");
        assert_eq!(read["t"].to_vec2::<f32>().expect("numbers"), tensor.to_vec2::<f32>().expect("numbers"));
        assert_eq!(read["f"].to_vec1::<f32>().expect("numbers"), numbers);
        assert_eq!(read["b"].to_vec1::<u8>().expect("numbers"), [1, 2, 3]);
    }
}
