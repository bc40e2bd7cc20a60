//! Where the files of a wish lie, and what can be compared with them.

use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::gguf::file_type::FileType;
use crate::jobs::convert::Source;

/// Longest `config.json` that is looked at.
const MAX_CONFIG_BYTES: u64 = 4 << 20;

/// Where the files of a wish lie.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Places {
    pub source: Source,
    pub adapter: Option<PathBuf>,
    pub imatrix: Option<PathBuf>,
}

impl Places {
    /// A source by itself: a folder as Hugging Face has it, or a GGUF file.
    #[must_use]
    pub fn of(path: PathBuf) -> Self {
        let source = if path.is_dir() { Source::Folder(path) } else { Source::Gguf(path) };
        Self { source, adapter: None, imatrix: None }
    }

    /// The file that those that are made can be compared with, where it is there already: a GGUF file of the very model. A folder is none,
    /// nor is what an adapter is merged into; a file of [`Places::reference_type`] made of them is.
    #[must_use]
    pub fn reference(&self) -> Option<&Path> {
        match &self.source {
            Source::Gguf(path) if self.adapter.is_none() => Some(path),
            _ => None,
        }
    }

    /// The type that keeps what the source has: half precision as it is, and everything else as bfloat16, as models are trained.
    #[must_use]
    pub fn reference_type(&self) -> FileType {
        let Source::Folder(folder) = &self.source else { return FileType::BF16 };
        let mut text = String::new();
        let read = File::open(folder.join("config.json")).and_then(|file| file.take(MAX_CONFIG_BYTES).read_to_string(&mut text));
        let config: Value = read.ok().and_then(|_| serde_json::from_str(&text).ok()).unwrap_or_default();
        match config["dtype"].as_str().or_else(|| config["torch_dtype"].as_str()) {
            Some("float16") => FileType::F16,
            Some("float32") => FileType::F32,
            _ => FileType::BF16,
        }
    }
}
