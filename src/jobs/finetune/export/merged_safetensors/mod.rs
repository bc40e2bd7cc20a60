//! A base and what was trained on it, as a folder that Hugging Face's libraries load.
//!
//! With the folder that the base was made from, its weights are taken from there, better than from a quantized file, and its
//! configuration and tokenizer are copied. With a GGUF file alone, the weights are the file's numbers and `config.json` is reconstructed;
//! there is then no tokenizer, which the outcome says. Shards are streamed and hashed; the folder is whole, under its name, or not there.

mod list;

use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde_json::{Map, Value, json};

use super::base::Base;
use super::change::{Changes, changes};
use super::error::{Error, Result};
use super::names::Names;
use super::safetensors::{Entry, header};
use super::staged::Staged;
use super::{Trained, hub_config};
use crate::gguf::TensorKind;
use crate::gguf::quants::encode;
use crate::jobs::convert::folder::Folder;
use crate::jobs::convert::output::Output;
use crate::jobs::convert::planned::chunks;
use crate::jobs::convert::rows::{Chunk, length};
use crate::jobs::convert::safetensors::Weights;
use crate::jobs::convert::{self, Progress, pipeline};
use list::{Listed, Work};

/// What a merged folder's weights are stored as.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Precision {
    #[default]
    Bf16,
    F32,
}

impl Precision {
    fn kind(self) -> TensorKind {
        match self {
            Self::Bf16 => TensorKind::BF16,
            Self::F32 => TensorKind::F32,
        }
    }
}

/// How a merged folder is to be written.
#[derive(Debug, Clone)]
pub struct FolderOptions {
    /// Must not be there yet, or be empty.
    pub path: PathBuf,
    /// The folder that the base was made from, where there is one.
    pub original: Option<PathBuf>,
    pub precision: Precision,
    /// Most bytes of tensors in one file.
    pub shard_bytes: u64,
    pub threads: NonZeroUsize,
}

impl FolderOptions {
    /// A folder with everything else as usual.
    #[must_use]
    pub fn new(path: PathBuf) -> Self {
        let threads = std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN);
        Self { path, original: None, precision: Precision::default(), shard_bytes: 5_000_000_000, threads }
    }
}

/// One file of weights.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Shard {
    pub name: String,
    pub size_bytes: u64,
    /// In hexadecimal.
    pub sha256: String,
}

/// A merged folder that was written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct MergedFolder {
    pub path: PathBuf,
    pub shards: Vec<Shard>,
    pub tensors: usize,
    /// What is to be known of the folder, in words.
    pub notes: Vec<String>,
}

/// What of a model's folder is neither weights nor configuration, by the beginnings and endings of names.
const COMPANIONS: [(&str, &str); 7] = [
    ("tokenizer", ""),
    ("generation_config", ".json"),
    ("special_tokens_map", ".json"),
    ("added_tokens", ".json"),
    ("chat_template", ""),
    ("vocab", ""),
    ("merges", ".txt"),
];
const MAX_COMPANION_BYTES: u64 = 1 << 30;

/// Merges what was trained into weights that Hugging Face's libraries load.
///
/// # Errors
/// When the parameters do not fit, when a configuration cannot be had, when something cannot be read or written, or when it was
/// cancelled; then nothing is left of it.
pub fn merge_safetensors(trained: &Trained<'_>, options: &FolderOptions, progress: &dyn Progress) -> Result<MergedFolder> {
    let base = Base::open(trained.base)?;
    let merging = Merging { names: Names::of(&base)?, changes: changes(trained.parameters, trained.strengths, &base)?, base };
    let original = options.original.as_deref().map(Folder::open).transpose()?;
    let weights = original.as_ref().map(Weights::open).transpose()?;
    let listed = match &weights {
        Some(weights) => list::of_folder(weights, &merging)?,
        None => list::of_gguf(&merging)?,
    };
    let config = match &original {
        Some(folder) => folder.json("config.json")?.ok_or_else(|| folder.lacks("config.json", "it says what the weights are"))?,
        None => hub_config::reconstructed(&merging.base)?,
    };
    let staged = Staged::create(&options.path)?;
    staged.write_json("config.json", &with_precision(config, options.precision))?;
    let notes = companions(original.as_ref(), &staged)?;
    let shards =
        Writer { source: Source { merging: &merging, weights: weights.as_ref() }, listed: &listed, options, progress }.write(&staged)?;
    staged.keep()?;
    Ok(MergedFolder { path: options.path.clone(), shards, tensors: listed.len(), notes })
}

/// What is merged with what.
pub(super) struct Merging {
    pub(super) base: Base,
    pub(super) names: Names,
    pub(super) changes: Changes,
}

fn with_precision(mut config: Value, precision: Precision) -> Value {
    let name = if precision == Precision::Bf16 { "bfloat16" } else { "float32" };
    if let Some(fields) = config.as_object_mut() {
        // transformers 5 calls it `dtype`, and reads both.
        fields.remove("dtype");
        fields.insert("torch_dtype".to_owned(), json!(name));
    }
    config
}

/// Copies what belongs to the weights; gives what is to be known of it.
fn companions(original: Option<&Folder>, staged: &Staged) -> Result<Vec<String>> {
    let Some(folder) = original else {
        let note = "there is no tokenizer in the folder: the base is a GGUF file alone; copy the tokenizer of the model it was made from";
        return Ok(vec![note.to_owned()]);
    };
    for (beginning, ending) in COMPANIONS {
        for name in folder.names(beginning, ending)? {
            if let Some(bytes) = folder.bytes(&name, MAX_COMPANION_BYTES)? {
                staged.write(&name, &bytes)?;
            }
        }
    }
    Ok(Vec::new())
}

/// What numbers are made from. Shared by all threads.
#[derive(Clone, Copy)]
struct Source<'a> {
    merging: &'a Merging,
    weights: Option<&'a Weights>,
}

impl Source<'_> {
    /// Makes the bytes of one chunk.
    fn make(&self, listed: &Listed, chunk: Chunk, kind: TensorKind, work: &mut Work, out: &mut Vec<u8>) -> convert::error::Result<()> {
        listed.numbers(self.merging, self.weights, chunk, work)?;
        out.clear();
        out.resize(length(work.numbers.len() as u64 * kind.block_bytes())?, 0);
        encode(kind, &work.numbers, work.numbers.len().max(1), None, out)
            .map_err(|error| convert::Error::Impossible(format!("{}: {error}", listed.name)))
    }
}

struct Writer<'a> {
    source: Source<'a>,
    listed: &'a [Listed],
    options: &'a FolderOptions,
    progress: &'a dyn Progress,
}

impl Writer<'_> {
    fn write(&self, staged: &Staged) -> Result<Vec<Shard>> {
        let groups = groups(self.listed, self.options);
        let total: u64 = self.listed.iter().map(|listed| self.size_bytes(listed)).sum();
        let (mut shards, mut map, mut done) = (Vec::new(), Map::new(), 0);
        for (index, group) in groups.iter().enumerate() {
            let name = match groups.len() {
                1 => "model.safetensors".to_owned(),
                count => format!("model-{:05}-of-{count:05}.safetensors", index + 1),
            };
            map.extend(group.iter().map(|listed| (listed.name.clone(), json!(name))));
            shards.push(self.shard(group, &staged.file(&name), name, &|written| self.progress.advanced(done + written, total))?);
            done += group.iter().map(|listed| self.size_bytes(listed)).sum::<u64>();
        }
        if groups.len() > 1 {
            staged.write_json("model.safetensors.index.json", &json!({"metadata": {"total_size": total}, "weight_map": map}))?;
        }
        Ok(shards)
    }

    fn size_bytes(&self, listed: &Listed) -> u64 {
        listed.elements() * self.options.precision.kind().block_bytes()
    }

    fn shard(&self, group: &[Listed], path: &Path, name: String, report: &dyn Fn(u64)) -> Result<Shard> {
        let (source, kind) = (self.source, self.options.precision.kind());
        let dtype = kind.name();
        let entry =
            |listed: &Listed| Entry { name: listed.name.clone(), dtype, shape: listed.shape.clone(), size_bytes: self.size_bytes(listed) };
        let header = header(&group.iter().map(entry).collect::<Vec<_>>());
        let size_bytes = header.len() as u64 + group.iter().map(|listed| self.size_bytes(listed)).sum::<u64>();
        let mut output = Output::create(path, size_bytes, false)?;
        output.write(&header)?;
        let chunks = chunks(group.iter().map(|listed| (listed.row(), listed.rows())), self.options.threads);
        let make = |index: usize, work: &mut Work, out: &mut Vec<u8>| {
            let chunk: Chunk = chunks[index];
            source.make(&group[chunk.tensor], chunk, kind, work, out)
        };
        pipeline::run(self.options.threads, chunks.len(), Work::default, make, |_, bytes| {
            if self.progress.is_cancelled() {
                return Err(convert::Error::Cancelled);
            }
            output.write(bytes)?;
            report(output.size_bytes() - header.len() as u64);
            Ok(())
        })?;
        Ok(Shard { name, size_bytes, sha256: output.keep()? })
    }
}

/// The tensors of each file, in order, none larger than is wanted unless it is a single tensor.
fn groups<'a>(listed: &'a [Listed], options: &FolderOptions) -> Vec<&'a [Listed]> {
    let bytes = |listed: &Listed| listed.elements() * options.precision.kind().block_bytes();
    let (mut groups, mut start, mut size) = (Vec::new(), 0, 0);
    for (index, one) in listed.iter().enumerate() {
        if index > start && size + bytes(one) > options.shard_bytes {
            groups.push(&listed[start..index]);
            (start, size) = (index, 0);
        }
        size += bytes(one);
    }
    groups.push(&listed[start..]);
    groups
}

/// The error for what a folder cannot take.
fn foreign(name: &str, why: &str) -> Error {
    Error::impossible(format!("the folder that the base was made from has {name}, {why}; merge without the folder"))
}
