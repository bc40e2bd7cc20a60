//! What can be wrong with a GGUF file.

use std::io;

/// Why a file could not be read. Offsets count bytes from the start of the file.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("cannot read at byte {at}: {source}")]
    Io { at: u64, source: io::Error },
    #[error("this is no GGUF file: it starts with {found:?} instead of \"GGUF\"")]
    NotGguf { found: String },
    #[error("GGUF version {version} is not supported, only 2 and 3 are")]
    Version { version: u32 },
    #[error("this GGUF file is big-endian, which is not supported")]
    BigEndian,
    /// The file ends inside the header.
    #[error("the file ends at byte {file_size_bytes}, but {what} at byte {at} needs {needed_bytes} bytes: it is incomplete")]
    Truncated { at: u64, needed_bytes: u64, file_size_bytes: u64, what: &'static str },
    /// The header is whole, the tensors are not all there.
    #[error("the file ends at byte {file_size_bytes}, but tensor `{tensor}` needs it to reach byte {end}: it is incomplete")]
    Incomplete { tensor: String, end: u64, file_size_bytes: u64 },
    #[error("malformed at byte {at}: {what}")]
    Malformed { at: u64, what: String },
}

impl Error {
    /// Where the problem is, from the start of the file.
    #[must_use]
    pub fn offset(&self) -> u64 {
        match self {
            Self::Io { at, .. } | Self::Truncated { at, .. } | Self::Malformed { at, .. } => *at,
            Self::NotGguf { .. } => 0,
            Self::Version { .. } | Self::BigEndian => 4,
            Self::Incomplete { file_size_bytes, .. } => *file_size_bytes,
        }
    }

    /// Whether the file is a good one of which the end is missing.
    #[must_use]
    pub fn is_incomplete(&self) -> bool {
        matches!(self, Self::Truncated { .. } | Self::Incomplete { .. })
    }
}
