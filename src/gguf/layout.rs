//! Where everything will lie in a GGUF file that is yet to be written.
//!
//! A [`Layout`] knows the header's bytes, the place of each tensor and the size of the file before the first byte is written, so
//! that room can be asked for and tensors can be packed in any order. The layout is the one that llama-quantize writes: version
//! 3, tensors in the given order, the header and every tensor, the last one too, padded with zeros to the alignment, trailing
//! dimensions of one left out. It does not write tensors, and it does not order them (see [`choose::order`](super::choose::order)).

use std::borrow::Borrow;
use std::collections::HashSet;
use std::io::{self, Write};

use super::read::{MAX_KEY_BYTES, MAX_NAME_BYTES};
use super::{DEFAULT_ALIGNMENT, MAX_DIMENSIONS, Metadata, TensorInfo, TensorKind, Value, write};

/// Why there can be no such file.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum Error {
    #[error("the name of tensor `{name}` has more than {MAX_NAME_BYTES} bytes, which llama.cpp cannot read")]
    NameTooLong { name: String },
    #[error("there are two tensors named `{name}`")]
    NameTwice { name: String },
    #[error("tensor `{name}` has {count} dimensions, more than {MAX_DIMENSIONS}")]
    TooManyDimensions { name: String, count: usize },
    #[error("tensor `{name}` of dimensions {dimensions:?} cannot be {kind}: its rows are no whole number of blocks, or it is too large")]
    Shape { name: String, dimensions: Vec<u64>, kind: TensorKind },
    #[error("the file would be larger than a file can be")]
    TooLarge,
    #[error("the metadata key `{key}` has more than {MAX_KEY_BYTES} bytes")]
    KeyTooLong { key: String },
    #[error("the metadata key `{key}` appears twice")]
    KeyTwice { key: String },
    #[error("`general.alignment` must be a power of two as U32")]
    Alignment,
}

/// A file that is yet to be written.
#[derive(Debug, Clone)]
pub struct Layout {
    header: Vec<u8>,
    tensors: Vec<TensorInfo>,
    alignment: u64,
    file_size_bytes: u64,
}

impl Layout {
    /// Lays the tensors out in the given order, behind the metadata in its order.
    ///
    /// # Errors
    /// When names or keys are doubled or too long, when a shape does not fit its format, or when the sizes overflow.
    pub fn new(metadata: impl Borrow<Metadata>, tensors: Vec<(String, Vec<u64>, TensorKind)>) -> Result<Self, Error> {
        let metadata = metadata.borrow();
        let alignment = alignment(metadata)?;
        check_keys(metadata)?;
        check_names(&tensors)?;
        let mut end = 0_u64;
        let mut placed = Vec::with_capacity(tensors.len());
        for (name, dimensions, kind) in tensors {
            let tensor = place(name, dimensions, kind, end)?;
            end = tensor.size_bytes.checked_next_multiple_of(alignment).and_then(|size| end.checked_add(size)).ok_or(Error::TooLarge)?;
            placed.push(tensor);
        }
        Self::behind_header(write::header(metadata, &placed), placed, alignment, end)
    }

    /// Moves the tensors, which so far lie from zero, behind the header.
    fn behind_header(mut header: Vec<u8>, mut tensors: Vec<TensorInfo>, alignment: u64, data_bytes: u64) -> Result<Self, Error> {
        let start = (header.len() as u64).checked_next_multiple_of(alignment).ok_or(Error::TooLarge)?;
        header.resize(usize::try_from(start).map_err(|_| Error::TooLarge)?, 0);
        let file_size_bytes = start.checked_add(data_bytes).filter(|size| *size <= i64::MAX.cast_unsigned()).ok_or(Error::TooLarge)?;
        for tensor in &mut tensors {
            tensor.offset += start;
        }
        Ok(Self { header, tensors, alignment, file_size_bytes })
    }

    /// The bytes that the file begins with, up to the first tensor.
    #[must_use]
    pub fn header(&self) -> &[u8] {
        &self.header
    }

    /// Writes the bytes that the file begins with.
    ///
    /// # Errors
    /// When they cannot be written.
    pub fn write_header(&self, mut out: impl Write) -> io::Result<()> {
        out.write_all(&self.header)
    }

    /// The tensors in the file's order; offsets count from the start of the file.
    #[must_use]
    pub fn tensors(&self) -> &[TensorInfo] {
        &self.tensors
    }

    /// How many zeros follow a tensor of this size.
    #[must_use]
    pub fn padding_after(&self, size_bytes: u64) -> u64 {
        size_bytes.next_multiple_of(self.alignment) - size_bytes
    }

    /// Offsets of tensors are multiples of this.
    #[must_use]
    pub fn alignment(&self) -> u64 {
        self.alignment
    }

    /// The exact size that the file will have.
    #[must_use]
    pub fn file_size_bytes(&self) -> u64 {
        self.file_size_bytes
    }
}

fn alignment(metadata: &Metadata) -> Result<u64, Error> {
    /// Beyond this, padding would be most of a file.
    const MOST: u32 = 1 << 20;
    match metadata.get("general.alignment") {
        None => Ok(DEFAULT_ALIGNMENT),
        Some(Value::U32(alignment)) if alignment.is_power_of_two() && *alignment <= MOST => Ok(u64::from(*alignment)),
        Some(_) => Err(Error::Alignment),
    }
}

fn check_keys(metadata: &Metadata) -> Result<(), Error> {
    let mut seen = HashSet::new();
    for (key, _) in metadata.iter() {
        if key.len() as u64 > MAX_KEY_BYTES {
            return Err(Error::KeyTooLong { key: key.chars().take(80).collect() });
        }
        if !seen.insert(key) {
            return Err(Error::KeyTwice { key: key.to_owned() });
        }
    }
    Ok(())
}

fn check_names(tensors: &[(String, Vec<u64>, TensorKind)]) -> Result<(), Error> {
    let mut seen = HashSet::new();
    for (name, ..) in tensors {
        if name.len() as u64 > MAX_NAME_BYTES {
            return Err(Error::NameTooLong { name: name.chars().take(80).collect() });
        }
        if !seen.insert(name) {
            return Err(Error::NameTwice { name: name.clone() });
        }
    }
    Ok(())
}

/// A tensor at `offset`.
fn place(name: String, mut dimensions: Vec<u64>, kind: TensorKind, offset: u64) -> Result<TensorInfo, Error> {
    while dimensions.len() > 1 && dimensions.last() == Some(&1) {
        dimensions.pop();
    }
    if dimensions.is_empty() {
        dimensions.push(1);
    }
    if dimensions.len() > MAX_DIMENSIONS as usize {
        return Err(Error::TooManyDimensions { name, count: dimensions.len() });
    }
    match kind.size_bytes(&dimensions) {
        Some(size_bytes) => Ok(TensorInfo { name, dimensions, kind, offset, size_bytes }),
        None => Err(Error::Shape { name, dimensions, kind }),
    }
}
