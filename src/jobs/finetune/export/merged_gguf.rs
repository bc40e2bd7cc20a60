//! A base and what was trained on it, as one GGUF file: what is published.
//!
//! Tensors that were not trained are copied byte for byte; those that were are stored in a format that keeps what they learned (see
//! [`Storage`]), and how much of it is kept is measured on what is written. Rows stream through: memory does not grow with the model,
//! the size is known before the first byte, and a file that is not whole never has its name.

use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use serde::Serialize;

use super::Trained;
use super::base::{Base, Rows, row, rows};
use super::change::{Changes, changes};
use super::error::{Error, Result};
use super::lineage::{Lineage, file_type, metadata};
use super::storage::{Storage, Work, choose};
use super::survival::{Sums, Survival, TensorSurvival};
use crate::gguf::TensorInfo;
use crate::gguf::file_type::FileType;
use crate::gguf::layout::Layout;
use crate::jobs::convert::output::Output;
use crate::jobs::convert::planned::chunks;
use crate::jobs::convert::rows::Chunk;
use crate::jobs::convert::{self, Progress, pipeline};

/// How a merged file is to be written.
#[derive(Debug, Clone)]
pub struct MergeOptions {
    pub path: PathBuf,
    pub storage: Storage,
    pub lineage: Lineage,
    pub threads: NonZeroUsize,
    pub overwrite: bool,
}

impl MergeOptions {
    /// A file with everything else as usual.
    #[must_use]
    pub fn new(path: PathBuf) -> Self {
        let threads = std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN);
        Self { path, storage: Storage::default(), lineage: Lineage::default(), threads, overwrite: false }
    }
}

/// A merged file that was written.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Merged {
    pub path: PathBuf,
    /// In hexadecimal.
    pub sha256: String,
    pub size_bytes: u64,
    /// What most of it is stored as.
    pub file_type: &'static str,
    pub tensors: usize,
    /// What became of the trained ones.
    pub survival: Survival,
    /// What is to be known of the file, in words; empty when all is well.
    pub warnings: Vec<String>,
    pub seconds: f64,
}

/// A merged file that is decided to the byte.
pub struct MergePlan<'a> {
    base: Base,
    changes: Changes,
    options: &'a MergeOptions,
    layout: Layout,
    file_type: FileType,
}

impl<'a> MergePlan<'a> {
    /// Decides how everything will be stored, for which rows of every trained tensor are looked at.
    ///
    /// # Errors
    /// When the base cannot be read, when parameters do not fit it, or when there is nothing to merge.
    pub fn new(trained: &Trained<'_>, options: &'a MergeOptions) -> Result<Self> {
        let base = Base::open(trained.base)?;
        expect_other_file(&base, options)?;
        let mut changes = changes(trained.parameters, trained.strengths, &base)?;
        if trained.parameters.is_empty() {
            return Err(Error::impossible("nothing was trained, so there is nothing to merge"));
        }
        let mut kinds = Vec::new();
        for tensor in &base.header.tensors {
            let chosen = changes.get(&tensor.name).map(|change| choose(&base, tensor, change, options.storage)).transpose()?.flatten();
            if chosen.is_none() {
                changes.remove(&tensor.name);
            }
            kinds.push(chosen.unwrap_or(tensor.kind));
        }
        let file_type = file_type(&base, &kinds);
        let metadata = metadata(&base, file_type, &options.lineage);
        let tensors = base.header.tensors.iter().zip(kinds).map(|(tensor, kind)| (tensor.name.clone(), tensor.dimensions.clone(), kind));
        let layout = Layout::new(metadata, tensors.collect()).map_err(|error| Error::impossible(error.to_string()))?;
        Ok(Self { base, changes, options, layout, file_type })
    }

    /// The exact size that the file will have.
    #[must_use]
    pub fn size_bytes(&self) -> u64 {
        self.layout.file_size_bytes()
    }

    /// Every tensor as it will be stored.
    #[must_use]
    pub fn tensors(&self) -> &[TensorInfo] {
        self.layout.tensors()
    }

    /// Writes the file.
    ///
    /// # Errors
    /// When something cannot be read or written, when there is no room, or when it was cancelled; then nothing is left of it.
    pub fn write(&self, progress: &dyn Progress) -> Result<Merged> {
        let started = Instant::now();
        let shapes = self.base.header.tensors.iter().map(|tensor| (row(tensor), rows(tensor)));
        let chunks = chunks(shapes, self.options.threads);
        let sums = Mutex::new(vec![Sums::default(); chunks.len()]);
        let make = |index: usize, work: &mut Work, packed: &mut Vec<u8>| {
            let found = self.make(chunks[index], work, packed)?;
            sums.lock().unwrap_or_else(PoisonError::into_inner)[index] = found;
            Ok(())
        };
        let mut output = Output::create(&self.options.path, self.size_bytes(), self.options.overwrite)?;
        output.write(self.layout.header())?;
        pipeline::run(self.options.threads, chunks.len(), Work::default, make, |index, bytes| {
            self.take(chunks[index], bytes, &mut output, progress)
        })?;
        output.pad_to(self.size_bytes())?;
        let sha256 = output.keep()?;
        let sums = sums.into_inner().unwrap_or_else(PoisonError::into_inner);
        Ok(self.outcome(sha256, self.survival(&chunks, &sums), started.elapsed().as_secs_f64()))
    }

    /// Makes the bytes of one chunk.
    fn make(&self, chunk: Chunk, work: &mut Work, packed: &mut Vec<u8>) -> convert::error::Result<Sums> {
        let (tensor, rows) = (&self.base.header.tensors[chunk.tensor], Rows { first: chunk.first, count: chunk.rows });
        let Some(change) = self.changes.get(&tensor.name) else {
            return self.base.read(tensor, rows, packed).map(|()| Sums::default());
        };
        work.read(&self.base, tensor, change, rows)?;
        work.pack(tensor, self.layout.tensors()[chunk.tensor].kind, packed)
    }

    fn take(&self, chunk: Chunk, bytes: &[u8], output: &mut Output, progress: &dyn Progress) -> convert::error::Result<()> {
        if progress.is_cancelled() {
            return Err(convert::Error::Cancelled);
        }
        if chunk.first == 0 {
            output.pad_to(self.layout.tensors()[chunk.tensor].offset)?;
        }
        output.write(bytes)?;
        progress.advanced(output.size_bytes(), self.size_bytes());
        Ok(())
    }

    /// Adds up in the order of the file, so that the figures do not depend on the threads.
    fn survival(&self, chunks: &[Chunk], sums: &[Sums]) -> Survival {
        let mut of_tensors = vec![Sums::default(); self.base.header.tensors.len()];
        for (chunk, sums) in chunks.iter().zip(sums) {
            of_tensors[chunk.tensor] = of_tensors[chunk.tensor].and(*sums);
        }
        let tensors = self.base.header.tensors.iter().zip(self.layout.tensors()).zip(of_tensors);
        let tensors = tensors.filter(|((tensor, _), _)| self.changes.contains_key(&tensor.name));
        Survival { tensors: tensors.map(|((from, to), sums)| TensorSurvival::new(&from.name, from.kind, to.kind, sums)).collect() }
    }

    fn outcome(&self, sha256: String, survival: Survival, seconds: f64) -> Merged {
        let mut warnings: Vec<String> = survival.warning().into_iter().collect();
        if survival.tensors.is_empty() {
            warnings.push("the training changed nothing: the file has the weights of the base".to_owned());
        }
        Merged {
            path: self.options.path.clone(),
            sha256,
            size_bytes: self.size_bytes(),
            file_type: self.file_type.name(),
            tensors: self.layout.tensors().len(),
            survival,
            warnings,
            seconds,
        }
    }
}

/// A file cannot be written while it is read.
fn expect_other_file(base: &Base, options: &MergeOptions) -> Result<()> {
    let same = base.path.canonicalize().ok().is_some_and(|base| options.path.canonicalize().is_ok_and(|path| path == base));
    if same { Err(Error::impossible(format!("{} cannot be merged into itself; give another name", base.path.display()))) } else { Ok(()) }
}

/// Merges what was trained into the base, as one GGUF file.
///
/// # Errors
/// Those of [`MergePlan::new`] and [`MergePlan::write`].
pub fn merge_gguf(trained: &Trained<'_>, options: &MergeOptions, progress: &dyn Progress) -> Result<Merged> {
    MergePlan::new(trained, options)?.write(progress)
}
