//! Importance matrices: how much each column of each matrix matters, measured by llama.cpp's `llama-imatrix`.
//!
//! Both of its formats are read, the old one (`.dat`) and the one that is a GGUF file. What comes out is what llama-quantize
//! works with: the mean square of each column's input, for each expert where a tensor has several. Any input is survived: counts
//! and lengths are checked against the file before something is allocated, and values that are no numbers are refused.

mod legacy;
mod modern;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read, Seek};
use std::path::Path;

use super::choose::ImatrixInfo;

/// Why an importance matrix could not be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("this importance matrix cannot be read: {0}")]
    File(#[from] super::Error),
    #[error("this importance matrix has no entries")]
    Empty,
    #[error("this importance matrix does not say what it was measured on (`{key}` is missing); make it again with llama-imatrix")]
    NoMetadata { key: &'static str },
    #[error("the importance of `{name}` is broken: {what}")]
    Entry { name: String, what: String },
    #[error("the importance matrix has {found} values for `{name}`, which needs {needed}: it was made for another model")]
    OtherModel { name: String, found: usize, needed: u64 },
}

/// An importance matrix.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Imatrix {
    entries: HashMap<String, Vec<f32>>,
    /// Names of the texts it was measured on.
    datasets: Vec<String>,
    /// Pieces of text it was measured on.
    chunks: u32,
}

impl Imatrix {
    /// Reads the file at `path`.
    ///
    /// # Errors
    /// When the file cannot be read or is no sound importance matrix.
    pub fn read_file(path: &Path) -> Result<Self, Error> {
        let file = File::open(path).map_err(|source| super::Error::Io { at: 0, source })?;
        Self::read(io::BufReader::with_capacity(256 * 1024, file))
    }

    /// Reads a file given as a reader; its first bytes tell the format.
    ///
    /// # Errors
    /// As [`Imatrix::read_file`].
    pub fn read<R: Read + Seek>(mut reader: R) -> Result<Self, Error> {
        let mut magic = Vec::new();
        reader.by_ref().take(4).read_to_end(&mut magic).map_err(|source| super::Error::Io { at: 0, source })?;
        let imatrix = if magic == *b"GGUF" { modern::read(reader)? } else { legacy::read(reader)? };
        if imatrix.entries.is_empty() {
            return Err(Error::Empty);
        }
        Ok(imatrix)
    }

    /// The values of a tensor: as many as it has columns, for each expert.
    #[must_use]
    pub fn get(&self, tensor: &str) -> Option<&[f32]> {
        self.entries.get(tensor).map(Vec::as_slice)
    }

    /// The values for a tensor of these dimensions. `None`: there are none, or they do not fit the token embeddings, for which
    /// llama-quantize lets that pass.
    ///
    /// # Errors
    /// When there are more or fewer than such a tensor needs.
    pub fn for_tensor(&self, name: &str, dimensions: &[u64]) -> Result<Option<&[f32]>, Error> {
        let Some(values) = self.get(name) else { return Ok(None) };
        let dimension = |index: usize| dimensions.get(index).copied().unwrap_or(1);
        let needed = dimension(0).saturating_mul(dimension(2));
        if values.len() as u64 == needed {
            return Ok(Some(values));
        }
        if matches!(name, "token_embd.weight" | "per_layer_token_embd.weight") {
            return Ok(None);
        }
        Err(Error::OtherModel { name: name.to_owned(), found: values.len(), needed })
    }

    /// How many tensors there are values for.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// What the metadata of a file made with this matrix say about it; `file` is what the matrix's file is called there.
    #[must_use]
    pub fn info(&self, file: &str) -> ImatrixInfo {
        ImatrixInfo {
            file: file.to_owned(),
            dataset: self.datasets.first().cloned(),
            entries: u32::try_from(self.entries.len()).unwrap_or(u32::MAX),
            chunks: self.chunks,
        }
    }

    /// Adds an entry, unless it has values that are no numbers.
    fn insert(&mut self, name: String, values: Vec<f32>) -> Result<(), Error> {
        if !values.iter().all(|value| value.is_finite()) {
            return Err(broken(&name, "it has values that are no numbers"));
        }
        self.entries.insert(name, values);
        Ok(())
    }
}

/// Names come from the file: short and without control characters.
fn broken(name: &str, what: impl Into<String>) -> Error {
    Error::Entry { name: name.chars().take(80).flat_map(char::escape_debug).collect(), what: what.into() }
}
