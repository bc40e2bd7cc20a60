//! Why a conversion did not happen.

use std::io;
use std::path::{Path, PathBuf};

use crate::gguf;

/// What failed, why, and what to do about it. Names that come from files are shortened and escaped.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    #[error("cannot {doing} {path}: {source}", path = .path.display())]
    Io { doing: &'static str, path: PathBuf, source: io::Error },
    /// A file of the model is not what its name says.
    #[error("{file}: {what}")]
    Malformed { file: String, what: String },
    #[error("{what} is not supported; supported: {supported}")]
    Unsupported { what: String, supported: String },
    /// The model is sound, but this cannot be done with it.
    #[error("{0}")]
    Impossible(String),
    #[error("{path}: {source}", path = .path.display())]
    Gguf { path: PathBuf, source: gguf::Error },
    #[error("{path} is there already; choose another name or allow it to be overwritten", path = .path.display())]
    Exists { path: PathBuf },
    #[error(
        "{path} needs {needed_bytes} bytes, but only {free_bytes} are free there; free {} bytes or choose another place",
        .needed_bytes - .free_bytes, path = .path.display()
    )]
    DiskFull { path: PathBuf, needed_bytes: u64, free_bytes: u64 },
    #[error("the conversion was cancelled; nothing was kept")]
    Cancelled,
}

/// A result of this module.
pub(in crate::jobs) type Result<T> = std::result::Result<T, Error>;

impl Error {
    pub(in crate::jobs) fn io(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io { doing, path: path.to_owned(), source }
    }

    pub(in crate::jobs) fn malformed(file: &str, what: impl Into<String>) -> Self {
        Self::Malformed { file: shown(file), what: what.into() }
    }
}

/// A name that comes from a file, fit for a message: short and without control characters.
pub(in crate::jobs) fn shown(text: &str) -> String {
    text.chars().take(120).flat_map(char::escape_debug).collect()
}
