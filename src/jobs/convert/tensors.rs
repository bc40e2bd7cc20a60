//! The tensors of a folder as the GGUF file will have them: names, dimensions, and how each row comes about.
//!
//! Nothing is read here but headers; rows are made in `rows`.

use super::config::{Config, Family};
use super::error::{Error, Result, shown};
use super::metadata::rope_tensors;
use super::names::{translated, wanted};
use super::safetensors::{Dtype, Entry, Weights};
use crate::gguf::TensorKind;

/// The longest row that is handled: it is the least that is in memory at once. Real ones end at some hundred thousand.
pub(in crate::jobs) const MAX_ROW: u64 = 1 << 20;
/// As many dimensions as GGUF allows.
const MAX_RANK: usize = 4;

/// One tensor of the output.
#[derive(Debug, Clone)]
pub(super) struct Tensor {
    /// llama.cpp's name.
    pub(super) name: String,
    /// Fastest-varying first.
    pub(super) dimensions: Vec<u64>,
    /// What llama.cpp's converter would store it as, before it is quantized.
    pub(super) stage: TensorKind,
    pub(super) content: Content,
}

/// Where the numbers of a tensor come from.
#[derive(Debug, Clone)]
pub(super) enum Content {
    /// Computed: rope factors, or the numbers of a small adapter.
    Numbers(Vec<f32>),
    Weights(Slice),
    /// Bytes of a GGUF file, from this place on.
    Gguf {
        start: u64,
        kind: TensorKind,
    },
}

/// Rows in a safetensors file.
#[derive(Debug, Clone)]
pub(super) struct Slice {
    pub(super) file: usize,
    pub(super) start: u64,
    pub(super) dtype: Dtype,
    /// Rows of one head, where the two halves of each are interleaved.
    pub(super) interleave: Option<u64>,
    /// Gemma keeps its norms less one.
    pub(super) plus_one: bool,
    /// The low-rank update to be added: its index in the adapter.
    pub(super) update: Option<usize>,
    /// What every number is multiplied by.
    pub(super) factor: Option<f32>,
}

impl Tensor {
    /// Numbers of one row.
    pub(super) fn row(&self) -> u64 {
        self.dimensions.first().copied().unwrap_or(1)
    }

    pub(super) fn rows(&self) -> u64 {
        self.dimensions.iter().skip(1).product()
    }

    pub(super) fn elements(&self) -> u64 {
        self.dimensions.iter().product()
    }
}

/// What the weights are stored as when nothing is asked for: the type of the first matrix, F16 for anything but BF16.
pub(super) fn usual_stage(weights: &Weights, family: Family) -> TensorKind {
    let matrices = weights.tensors().iter().filter(|(_, entry)| entry.shape.len() >= 2 && wanted(&entry.name, family).is_some());
    let mut kinds = matrices.filter_map(|(_, entry)| match entry.dtype {
        Dtype::Bf16 => Some(TensorKind::BF16),
        Dtype::F16 => Some(TensorKind::F16),
        _ => None,
    });
    kinds.next().unwrap_or(TensorKind::F16)
}

/// All tensors in the converter's order, computed ones first. `vocabulary`: rows of the embedding that have tokens.
pub(super) fn list(weights: &Weights, config: &Config, stage: TensorKind, vocabulary: u64) -> Result<Vec<Tensor>> {
    let mut tensors = Vec::new();
    for (name, numbers) in rope_tensors(config)?.0 {
        let dimensions = vec![numbers.len() as u64];
        tensors.push(Tensor { name: name.to_owned(), dimensions, stage: TensorKind::F32, content: Content::Numbers(numbers) });
    }
    for (file, entry) in weights.tensors() {
        if let Some(name) = wanted(&entry.name, config.family) {
            tensors.push(tensor(*file, entry, &name, config, stage, vocabulary)?);
        }
    }
    if !tensors.iter().any(|tensor| tensor.name == "token_embd.weight") {
        return Err(Error::Impossible("the weights have no model.embed_tokens.weight: is a file missing?".to_owned()));
    }
    Ok(tensors)
}

fn tensor(file: usize, entry: &Entry, name: &str, config: &Config, stage: TensorKind, vocabulary: u64) -> Result<Tensor> {
    let wrong = |what: String| Error::malformed("the weights", format!("{}: {what}", shown(&entry.name)));
    let own = translated(name, config).ok_or_else(|| wrong(format!("no tensor of {} has this name", config.family.architecture())))?;
    if matches!(entry.dtype, Dtype::Other { .. }) {
        return Err(wrong("only F64, F32, F16 and BF16 can be converted; take the model from before it was quantized".to_owned()));
    }
    let mut dimensions: Vec<u64> = entry.shape.iter().rev().copied().collect();
    if dimensions.is_empty() || dimensions.len() > MAX_RANK || dimensions.contains(&0) || dimensions[0] > MAX_ROW {
        return Err(wrong(format!("the shape {:?} cannot be converted", entry.shape)));
    }
    // Before a list is made of so many tokens.
    if own == "token_embd.weight" && entry.shape[0] < config.vocab_size {
        return Err(wrong(format!(
            "{} rows for the {} tokens that `vocab_size` in config.json promises",
            entry.shape[0], config.vocab_size
        )));
    }
    if config.family == Family::Gemma3 && own == "token_embd.weight" && dimensions.len() == 2 {
        dimensions[1] = dimensions[1].min(vocabulary);
    }
    let plain = dimensions.len() == 1 || own.ends_with("_norm.weight") || !own.ends_with(".weight");
    let content = Content::Weights(Slice {
        file,
        start: entry.start,
        dtype: entry.dtype,
        interleave: interleave(name, &entry.shape, config).map_err(wrong)?,
        plus_one: config.family.is_gemma() && name.ends_with("norm.weight"),
        update: None,
        factor: None,
    });
    Ok(Tensor { name: own, dimensions, stage: if plain { TensorKind::F32 } else { stage }, content })
}

/// Rows of one head if this is a query or key whose rows llama.cpp wants interleaved.
pub(super) fn interleave(name: &str, shape: &[u64], config: &Config) -> std::result::Result<Option<u64>, String> {
    let (stem, _) = name.rsplit_once('.').unwrap_or((name, ""));
    let heads = match stem.rsplit('.').next() {
        Some("q_proj") => config.heads,
        Some("k_proj") => config.kv_heads,
        _ => return Ok(None),
    };
    if !config.family.permutes() {
        return Ok(None);
    }
    let rows = shape.first().copied().unwrap_or(0);
    if rows == 0 || rows % (2 * heads) != 0 {
        return Err(format!("{rows} rows cannot be {heads} heads of two halves"));
    }
    Ok(Some(rows / heads))
}
