//! What is asked for, and what is answered.

use std::num::NonZeroUsize;
use std::path::PathBuf;

use crate::gguf::file_type::FileType;

/// What is to be converted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// A folder as Hugging Face has it: `config.json`, a tokenizer, safetensors.
    Folder(PathBuf),
    Gguf(PathBuf),
    /// The folder of an adapter in PEFT's format, to become a GGUF adapter; of its base model only the configuration is read.
    Adapter {
        adapter: PathBuf,
        base: PathBuf,
    },
}

/// Where the result goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// This file; only for a single type.
    File(PathBuf),
    /// Files in this folder, each called after the model and its type.
    Folder(PathBuf),
}

/// A conversion that is wanted.
#[derive(Debug, Clone)]
pub struct Options {
    pub source: Source,
    /// The folder of an adapter in PEFT's format, to be merged into the source.
    pub adapter: Option<PathBuf>,
    /// One file is made of each.
    pub types: Vec<FileType>,
    pub target: Target,
    /// A file with an importance matrix, of either format.
    pub importance: Option<PathBuf>,
    pub threads: NonZeroUsize,
    /// What the model is to be called, in place of what its folder says.
    pub name: Option<String>,
    /// llama.cpp's name of the pre-tokenizer, where its rules are not known here.
    pub pre_tokenizer: Option<String>,
    /// Quantize again what is quantized already, though that loses more than going from the source.
    pub allow_requantize: bool,
    pub overwrite: bool,
}

impl Options {
    /// A conversion of the source to one type, with everything else as usual.
    #[must_use]
    pub fn new(source: Source, file_type: FileType, target: Target) -> Self {
        Self {
            source,
            adapter: None,
            types: vec![file_type],
            target,
            importance: None,
            threads: std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN),
            name: None,
            pre_tokenizer: None,
            allow_requantize: false,
            overwrite: false,
        }
    }
}

/// A file that a conversion will write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlannedFile {
    pub path: PathBuf,
    pub file_type: FileType,
    /// The exact size it will have.
    pub size_bytes: u64,
    pub tensors: usize,
}

/// What a conversion will take.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    pub files: Vec<PlannedFile>,
    /// Number of weights.
    pub parameters: u64,
    /// Most memory that the conversion will hold at once, as predicted.
    pub peak_memory_bytes: u64,
}

impl Plan {
    /// Sizes of all files together.
    #[must_use]
    pub fn size_bytes(&self) -> u64 {
        self.files.iter().map(|file| file.size_bytes).fold(0, u64::saturating_add)
    }
}

/// A file that was written.
#[derive(Debug, Clone, PartialEq)]
pub struct Outcome {
    pub path: PathBuf,
    pub file_type: FileType,
    pub size_bytes: u64,
    /// In hexadecimal.
    pub sha256: String,
    pub tensors: usize,
    /// Number of weights.
    pub parameters: u64,
    pub seconds: f64,
}

/// Who wants to know how far a conversion is, and may want it to stop. Called between chunks, from one thread.
pub trait Progress {
    /// So many bytes of all that will be written are written.
    fn advanced(&self, done_bytes: u64, total_bytes: u64);

    /// Whether to stop; the file in the making is then removed.
    fn is_cancelled(&self) -> bool;
}

/// Nobody does.
impl Progress for () {
    fn advanced(&self, _: u64, _: u64) {}

    fn is_cancelled(&self) -> bool {
        false
    }
}
