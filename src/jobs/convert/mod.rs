//! Models into GGUF files: Hugging Face folders, GGUF files, and adapters merged on the way.
//!
//! One pass from the source to the quantized file: rows are read, changed, packed on all cores and written in order, hashed as they
//! go. It promises the file that llama.cpp's `convert_hf_to_gguf.py` and `llama-quantize` (b11434) write between them, to the byte;
//! memory that does not grow with the model; its size before the first byte; and a file that is either whole, under its name, or not
//! there. It does not download, and it does not publish.

pub(super) mod adapter;
pub(super) mod config;
pub(super) mod error;
pub(super) mod folder;
mod importance;
pub(super) mod metadata;
pub(super) mod model;
pub(super) mod names;
mod options;
pub(super) mod output;
pub(super) mod pipeline;
pub(super) mod planned;
pub(super) mod rows;
pub(super) mod safetensors;
pub(super) mod tensors;
#[cfg(test)]
pub(super) mod tests;
mod tokenizer;

use std::time::Instant;

pub use error::Error;
pub use options::{Options, Outcome, Plan, PlannedFile, Progress, Source, Target};

use error::Result;
use importance::Importance;
use model::Model;
use output::Output;
use planned::Planned;
use rows::{Chunk, Packing, Work};

/// Says what a conversion will write and take, without writing anything.
///
/// # Errors
/// When the source cannot be converted so, with what is wrong and what to do.
pub fn plan(options: &Options) -> std::result::Result<Plan, Error> {
    Prepared::new(options).map(|prepared| planned::plan(&prepared.model, &prepared.files, options.threads))
}

/// Converts. The source is read once for each type. Files that were finished before a failure stay.
///
/// # Errors
/// When the source cannot be converted so, when a file cannot be read or written, when there is no room, or when it was cancelled.
pub fn convert(options: &Options, progress: &dyn Progress) -> std::result::Result<Vec<Outcome>, Error> {
    let prepared = Prepared::new(options)?;
    let total_bytes = planned::plan(&prepared.model, &prepared.files, options.threads).size_bytes();
    let mut done_bytes = 0;
    let mut outcomes = Vec::new();
    for file in &prepared.files {
        let started = Instant::now();
        let report = |written| progress.advanced(done_bytes + written, total_bytes);
        let sha256 = write(&prepared, file, options, &report, progress)?;
        done_bytes += file.layout.file_size_bytes();
        outcomes.push(Outcome {
            path: file.path.clone(),
            file_type: file.file_type,
            size_bytes: file.layout.file_size_bytes(),
            sha256,
            tensors: file.tensors.len(),
            parameters: prepared.model.parameters(),
            seconds: started.elapsed().as_secs_f64(),
        });
    }
    Ok(outcomes)
}

/// Everything that is known before anything is written.
struct Prepared {
    model: Model,
    importance: Option<Importance>,
    files: Vec<Planned>,
}

impl Prepared {
    fn new(options: &Options) -> Result<Self> {
        planned::expect_sensible(options)?;
        let model = Model::open(options)?;
        let importance = options.importance.as_deref().map(Importance::open).transpose()?;
        let files = options.types.iter().map(|file_type| Planned::new(&model, *file_type, importance.as_ref(), options));
        let files = files.collect::<Result<_>>()?;
        Ok(Self { model, importance, files })
    }

    /// Makes the bytes of one chunk.
    fn make(&self, file: &Planned, chunk: Chunk, work: &mut Work, out: &mut Vec<u8>) -> Result<()> {
        let tensor = &file.tensors[chunk.tensor];
        let importance = self.importance.as_ref().map(|importance| importance.of(tensor)).transpose()?.flatten();
        let packing = Packing { kind: file.info(chunk.tensor).kind, importance };
        self.model.rows.pack(tensor, chunk, packing, work, out)
    }
}

/// Writes one file; answers its SHA-256.
fn write(prepared: &Prepared, file: &Planned, options: &Options, report: &dyn Fn(u64), progress: &dyn Progress) -> Result<String> {
    let mut output = Output::create(&file.path, file.layout.file_size_bytes(), options.overwrite)?;
    output.write(file.layout.header())?;
    let chunks = file.chunks(options.threads);
    let make = |index: usize, work: &mut Work, out: &mut Vec<u8>| prepared.make(file, chunks[index], work, out);
    pipeline::run(options.threads, chunks.len(), Work::default, make, |index, bytes| {
        if progress.is_cancelled() {
            return Err(Error::Cancelled);
        }
        if chunks[index].first == 0 {
            output.pad_to(file.info(chunks[index].tensor).offset)?;
        }
        output.write(bytes)?;
        report(output.size_bytes());
        Ok(())
    })?;
    output.pad_to(file.layout.file_size_bytes())?;
    report(output.size_bytes());
    output.keep()
}
