//! One file of a conversion, decided to the byte before anything is written.

use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};

use super::error::{Error, Result};
use super::importance::Importance;
use super::model::Model;
use super::options::{Options, Plan, PlannedFile, Source, Target};
use super::pipeline::WAITING_PER_THREAD;
use super::rows::Chunk;
use super::tensors::Tensor;
use crate::gguf::choose::{self, choose, order, quantized_metadata};
use crate::gguf::file_type::FileType;
use crate::gguf::layout::Layout;
use crate::gguf::quants::can_encode;
use crate::gguf::{Metadata, TensorInfo, TensorKind};

/// Numbers of one chunk, at most: enough that handing chunks around costs nothing, few enough that they stay in a core's cache.
const CHUNK: u64 = 1 << 18;
/// What all chunks together may take.
const CHUNKS_BYTES: u64 = 96 << 20;
/// What the program itself takes, and what parsing left behind.
const PROGRAM_BYTES: u64 = 24 << 20;

#[derive(Debug)]
pub(super) struct Planned {
    pub(super) path: PathBuf,
    pub(super) file_type: FileType,
    pub(super) layout: Layout,
    /// In the file's order, as `layout` has them.
    pub(super) tensors: Vec<Tensor>,
}

impl Planned {
    pub(super) fn new(model: &Model, file_type: FileType, importance: Option<&Importance>, options: &Options) -> Result<Self> {
        if file_type.needs_importance() && importance.is_none() {
            return Err(Error::Impossible(format!("{file_type} is only good with an importance matrix; give one, or choose another type")));
        }
        let (ordered, kinds) = arranged(model, file_type, importance.is_some())?;
        for (tensor, kind) in ordered.iter().zip(&kinds) {
            expect_possible(tensor, *kind, options)?;
        }
        let metadata = if model.is_adapter {
            model.metadata().clone()
        } else {
            quantized_metadata(model.metadata(), file_type, importance.map(Importance::info).as_ref())
        };
        let layout = layout(&metadata, &ordered, &kinds)?;
        Ok(Self { path: path(options, model.name(), file_type), file_type, layout, tensors: ordered })
    }

    /// Every tensor in pieces, in the file's order.
    pub(super) fn chunks(&self, threads: NonZeroUsize) -> Vec<Chunk> {
        chunks(self.tensors.iter().map(|tensor| (tensor.row(), tensor.rows())), threads)
    }

    pub(super) fn info(&self, tensor: usize) -> &TensorInfo {
        &self.layout.tensors()[tensor]
    }

    fn summary(&self) -> PlannedFile {
        let (path, file_type) = (self.path.clone(), self.file_type);
        PlannedFile { path, file_type, size_bytes: self.layout.file_size_bytes(), tensors: self.tensors.len() }
    }

    fn peak_bytes(&self, threads: NonZeroUsize) -> u64 {
        let widest = self.tensors.iter().map(Tensor::row).max().unwrap_or(0);
        let chunk = chunk_numbers(threads).max(widest);
        // Metadata and header are there at once, and the metadata of the source besides.
        PROGRAM_BYTES + chunk * bytes_per_number(threads) + 4 * self.layout.header().len() as u64
    }
}

/// Tensors, given as numbers of a row and rows, in pieces that so many threads can work on within their memory.
pub(in crate::jobs) fn chunks(tensors: impl Iterator<Item = (u64, u64)>, threads: NonZeroUsize) -> Vec<Chunk> {
    let most = chunk_numbers(threads);
    let mut chunks = Vec::new();
    for (index, (row, rows)) in tensors.enumerate() {
        let step = (most / row.max(1)).max(1);
        let mut first = 0;
        while first < rows {
            let count = step.min(rows - first);
            chunks.push(Chunk { tensor: index, first, rows: count });
            first += count;
        }
    }
    chunks
}

/// Bytes that all threads together hold for each number of a chunk.
fn bytes_per_number(threads: NonZeroUsize) -> u64 {
    let threads = threads.get() as u64;
    // Read, unpacked, and changed by an adapter; then packed, in the making and waiting.
    threads * 12 + (threads * (1 + WAITING_PER_THREAD as u64) + 1) * 4
}

fn chunk_numbers(threads: NonZeroUsize) -> u64 {
    (CHUNKS_BYTES / bytes_per_number(threads)).clamp(1 << 12, CHUNK)
}

/// The plan of a whole conversion.
pub(super) fn plan(model: &Model, files: &[Planned], threads: NonZeroUsize) -> Plan {
    let peak_memory_bytes = files.iter().map(|file| file.peak_bytes(threads)).max().unwrap_or(0);
    Plan { files: files.iter().map(Planned::summary).collect(), parameters: model.parameters(), peak_memory_bytes }
}

/// The tensors in the file's order, and what each is stored as.
fn arranged(model: &Model, file_type: FileType, has_importance: bool) -> Result<(Vec<Tensor>, Vec<TensorKind>)> {
    let tensors = model.tensors(file_type);
    if model.is_adapter {
        if file_type.is_quantized() {
            return Err(Error::Unsupported { what: format!("an adapter as {file_type}"), supported: "F32, F16, BF16".to_owned() });
        }
        let kinds = tensors.iter().map(|tensor| tensor.stage).collect();
        return Ok((tensors, kinds));
    }
    let names: Vec<&str> = tensors.iter().map(|tensor| tensor.name.as_str()).collect();
    let order = order(&names);
    let shapes: Vec<_> = order.iter().map(|at| (names[*at], tensors[*at].dimensions.as_slice(), tensors[*at].stage)).collect();
    let kinds = choose(file_type, &choose::Model::from_metadata(model.metadata()), &shapes, has_importance);
    Ok((order.iter().map(|at| tensors[*at].clone()).collect(), kinds))
}

fn layout(metadata: &Metadata, tensors: &[Tensor], kinds: &[TensorKind]) -> Result<Layout> {
    let entries = tensors.iter().zip(kinds).map(|(tensor, kind)| (tensor.name.clone(), tensor.dimensions.clone(), *kind)).collect();
    Layout::new(metadata, entries).map_err(|error| Error::Impossible(error.to_string()))
}

fn expect_possible(tensor: &Tensor, kind: TensorKind, options: &Options) -> Result<()> {
    if tensor.stage == kind {
        return Ok(());
    }
    if !can_encode(kind) {
        let supported: Vec<_> = TensorKind::ALL.iter().filter(|kind| can_encode(**kind)).map(|kind| kind.name()).collect();
        return Err(Error::Unsupported { what: format!("writing {} as {kind}", tensor.name), supported: supported.join(", ") });
    }
    if tensor.stage.block_size() > 1 && !options.allow_requantize {
        return Err(Error::Impossible(format!(
            "{} is quantized already, as {}: quantizing it again loses more than going from the source; convert the source, or allow it",
            tensor.name, tensor.stage
        )));
    }
    Ok(())
}

fn path(options: &Options, name: &str, file_type: FileType) -> PathBuf {
    match &options.target {
        Target::File(path) => path.clone(),
        Target::Folder(folder) => folder.join(format!("{}-{file_type}.gguf", file_name(name))),
    }
}

/// A name without what file systems do not like.
fn file_name(name: &str) -> String {
    let plain: String = name.chars().map(|c| if c.is_alphanumeric() || matches!(c, '.' | '_' | '-') { c } else { '-' }).take(100).collect();
    let plain = plain.trim_matches(['.', '-']);
    if plain.is_empty() { "model".to_owned() } else { plain.to_owned() }
}

/// Refuses what cannot be meant.
pub(super) fn expect_sensible(options: &Options) -> Result<()> {
    let twice = options.types.iter().enumerate().find(|(at, file_type)| options.types[..*at].contains(file_type));
    let what = match (&options.target, options.types.len(), twice) {
        (_, 0, _) => "no type is given; say what is to be made, for example Q4_K_M".to_owned(),
        (_, _, Some((_, file_type))) => format!("{file_type} is asked for twice"),
        (Target::File(path), 2.., _) => format!("{} cannot be several types at once; give a folder", path.display()),
        _ => return expect_other_file(options),
    };
    Err(Error::Impossible(what))
}

/// A file cannot be written while it is read.
fn expect_other_file(options: &Options) -> Result<()> {
    let same = |a: &Path, b: &Path| a.canonicalize().ok().is_some_and(|a| b.canonicalize().is_ok_and(|b| a == b));
    match (&options.source, &options.target) {
        (Source::Gguf(source), Target::File(target)) if same(source, target) => {
            Err(Error::Impossible(format!("{} cannot be converted into itself; give another name", source.display())))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunks_of_all_threads_stay_within_their_memory() {
        for threads in [1, 2, 8, 16, 64, 256] {
            let threads = NonZeroUsize::new(threads).expect("at least one");
            assert!(chunk_numbers(threads) * bytes_per_number(threads) <= CHUNKS_BYTES, "{threads}");
        }
    }

    #[test]
    fn names_of_files_are_plain() {
        for (name, expected) in
            [("Gemma 3 270m It", "Gemma-3-270m-It"), ("../../etc", "etc"), ("", "model"), ("..", "model"), ("a/b\\c:d", "a-b-c-d")]
        {
            assert_eq!(file_name(name), expected);
        }
    }
}
