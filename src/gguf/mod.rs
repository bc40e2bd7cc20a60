//! The GGUF file format: its header, versions 2 and 3, little-endian. No candle, no inference.
//!
//! [`Header`] says what a model file holds and where; the bytes of the tensors stay in the file. [`layout::Layout`] says where
//! everything goes in a file that is to be written, [`choose`] in which format, and [`quants`] packs and unpacks numbers.
//! Reading promises to survive any input: every count, length, product and offset is checked before something is allocated for it,
//! and an [`Error`] says what is wrong and at which byte. After a successful read every tensor lies within the file.
//! Nothing here writes files, and nothing judges whether a model can be run: that is `lm`'s.

pub mod choose;
mod cursor;
mod error;
pub mod file_type;
#[cfg(test)]
mod golden;
pub mod imatrix;
mod kind;
pub mod layout;
#[cfg(test)]
mod layout_tests;
mod metadata;
pub mod quants;
mod read;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod whole_file_tests;
mod write;
#[cfg(test)]
pub(crate) mod writer;

use std::fs::File;
use std::io::{self, Read, Seek};
use std::path::Path;

pub use error::Error;
pub use kind::TensorKind;
pub use metadata::{Metadata, Strings, Value};

/// Most dimensions of a tensor.
pub const MAX_DIMENSIONS: u32 = 4;

/// Where tensors start when the file does not say: a multiple of this many bytes.
pub const DEFAULT_ALIGNMENT: u64 = 32;

/// What a GGUF file says about itself.
#[derive(Debug, Clone)]
pub struct Header {
    /// Version of the format: 2 or 3.
    pub version: u32,
    /// Offsets of tensors are multiples of this; a power of two.
    pub alignment: u64,
    pub metadata: Metadata,
    /// In the file's order.
    pub tensors: Vec<TensorInfo>,
    /// Where the tensors' bytes begin, from the start of the file.
    pub data_offset: u64,
    pub file_size_bytes: u64,
}

/// Where one tensor lies and what it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TensorInfo {
    pub name: String,
    /// Fastest-varying first, as ggml counts: a matrix of `out` rows of `in` numbers is `[in, out]`.
    pub dimensions: Vec<u64>,
    pub kind: TensorKind,
    /// From the start of the file.
    pub offset: u64,
    pub size_bytes: u64,
}

impl TensorInfo {
    /// Number of weights.
    #[must_use]
    pub fn elements(&self) -> u64 {
        self.dimensions.iter().product()
    }
}

impl Header {
    /// Reads the header of the file at `path`.
    ///
    /// # Errors
    /// When the file cannot be read, is no GGUF file, or is broken or cut short.
    pub fn read_file(path: &Path) -> Result<Self, Error> {
        let file = File::open(path).map_err(|source| Error::Io { at: 0, source })?;
        Self::read(io::BufReader::with_capacity(256 * 1024, file))
    }

    /// Reads the header of a file given as a reader. Bring your own buffer: the reads are small.
    ///
    /// # Errors
    /// As [`Header::read_file`].
    pub fn read<R: Read + Seek>(reader: R) -> Result<Self, Error> {
        read::header(reader)
    }

    /// Reads the header of a file that is in memory.
    ///
    /// # Errors
    /// As [`Header::read_file`].
    pub fn parse(bytes: &[u8]) -> Result<Self, Error> {
        Self::read(io::Cursor::new(bytes))
    }

    /// The tensor of this name.
    #[must_use]
    pub fn tensor(&self, name: &str) -> Option<&TensorInfo> {
        self.tensors.iter().find(|tensor| tensor.name == name)
    }

    /// Number of weights of all tensors together.
    #[must_use]
    pub fn parameters(&self) -> u64 {
        self.tensors.iter().map(TensorInfo::elements).fold(0, u64::saturating_add)
    }

    /// How most weights are stored, as people name it (`Q4_K_M`), from `general.file_type`.
    #[must_use]
    pub fn file_type(&self) -> Option<&'static str> {
        kind::file_type_name(self.metadata.u32("general.file_type")?)
    }
}
