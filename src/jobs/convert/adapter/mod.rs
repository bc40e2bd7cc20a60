//! Low-rank adapters in PEFT's format, to be merged into a model while it is converted, or written as a GGUF adapter.
//!
//! Each adapted matrix W becomes W + scale·B·A in F32, row by row, with A read in slices: an adapter of any rank takes little memory.
//! The scale is alpha/r, or alpha/√r with rsLoRA, with alphas and ranks by pattern. What cannot be merged rightly is refused.

mod export;
pub(in crate::jobs) mod settings;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::ops::Range;

use super::error::{Error, Result, shown};
use super::folder::Folder;
use super::rows::{length, unpack};
use super::safetensors::{Dtype, Entry, Weights};
use super::tensors::{Content, Tensor};
pub(super) use export::export;
use settings::Settings;

pub(in crate::jobs) const FILE: &str = "adapter_model.safetensors";
/// Numbers of A that are in memory at once.
const SLICE: u64 = 1 << 18;
const MAX_RANK: u64 = 1 << 14;

/// The updates of an adapter, each for one matrix of the model.
#[derive(Debug)]
pub(super) struct Updates {
    weights: Weights,
    updates: Vec<Update>,
}

#[derive(Debug)]
struct Update {
    /// The matrix, as the model's own files name it.
    matrix: String,
    a: Entry,
    b: Entry,
    rank: u64,
    scale: f64,
}

/// Memory for one thread's additions.
#[derive(Debug, Default)]
pub(super) struct Scratch {
    raw: Vec<u8>,
    slice: Vec<f32>,
    factors: Vec<f32>,
    sum: Vec<f32>,
}

impl Updates {
    pub(super) fn open(folder: &Folder) -> Result<Self> {
        let settings = Settings::read(folder)?;
        if !folder.has(FILE) {
            return Err(folder.lacks(FILE, "the adapter's weights are read from it, in PEFT's format"));
        }
        let weights = Weights::open_files(folder, &[FILE.to_owned()])?;
        let updates = paired(&weights, &settings)?;
        Ok(Self { weights, updates })
    }

    /// Notes at each tensor which update belongs to it. Every update must find its matrix. `names`: those in the model's files.
    pub(super) fn attach(&self, tensors: &mut [Tensor], names: impl Fn(&str) -> Option<String>, model: &str) -> Result<()> {
        for (index, update) in self.updates.iter().enumerate() {
            let name = names(&update.matrix);
            let tensor = name.and_then(|name| tensors.iter_mut().find(|tensor| tensor.name == name));
            let unknown = || {
                Error::Impossible(format!(
                    "the adapter changes {}, which {model} does not have: it is for another model",
                    shown(&update.matrix)
                ))
            };
            let tensor = tensor.ok_or_else(unknown)?;
            let wanted = [update.a.shape[1], update.b.shape[0]];
            if tensor.dimensions != wanted {
                let found = format!(
                    "the adapter's {} is for a matrix of {wanted:?}, the model's has {:?}",
                    shown(&update.matrix),
                    tensor.dimensions
                );
                return Err(Error::Impossible(found));
            }
            if let Content::Weights(slice) = &mut tensor.content {
                slice.update = Some(index);
            }
        }
        Ok(())
    }

    /// Adds an update to rows of its matrix. `source` says which row of the model's file each row is.
    pub(super) fn add(
        &self,
        update: usize,
        rows: Range<u64>,
        source: impl Fn(u64) -> u64,
        numbers: &mut [f32],
        scratch: &mut Scratch,
    ) -> Result<()> {
        let update = &self.updates[update];
        let Scratch { raw, slice, factors, sum } = scratch;
        let (rank, width) = (length(update.rank)?, length(update.a.shape[1])?);
        factors.clear();
        for row in rows {
            self.read(&update.b, source(row), 1, raw, slice)?;
            factors.extend_from_slice(slice);
        }
        sum.clear();
        sum.resize(numbers.len(), 0.0);
        let step = (SLICE / update.a.shape[1]).max(1);
        for first in (0..update.rank).step_by(length(step)?) {
            let count = step.min(update.rank - first);
            self.read(&update.a, first, count, raw, slice)?;
            for (sum, factors) in sum.chunks_exact_mut(width).zip(factors.chunks_exact(rank)) {
                multiply(sum, &factors[length(first)?..], slice);
            }
        }
        #[expect(clippy::cast_possible_truncation, reason = "weights are f32")]
        let scale = update.scale as f32;
        for (number, sum) in numbers.iter_mut().zip(sum) {
            *number += scale * *sum;
        }
        Ok(())
    }

    fn read(&self, entry: &Entry, first: u64, count: u64, raw: &mut Vec<u8>, numbers: &mut Vec<f32>) -> Result<()> {
        let (width, bytes) = (entry.shape[1], entry.dtype.bytes());
        raw.resize(length(count * width * bytes)?, 0);
        numbers.resize(length(count * width)?, 0.0);
        self.weights.read(0, entry.start + first * width * bytes, raw)?;
        unpack(entry.dtype, raw, numbers).map_err(|error| Error::malformed(FILE, error.to_string()))
    }
}

/// Adds rows, each times its factor.
pub(in crate::jobs) fn multiply(sum: &mut [f32], factors: &[f32], rows: &[f32]) {
    for (row, factor) in rows.chunks_exact(sum.len()).zip(factors) {
        for (sum, number) in sum.iter_mut().zip(row) {
            *sum += factor * number;
        }
    }
}

/// What a tensor of an adapter is to the module that it changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::jobs) enum Role {
    A,
    B,
    /// DoRA's, one for each output.
    Magnitude,
    /// Takes the place of the module's own (`weight`, `bias`).
    Whole,
}

/// The module, as the model's own files name it, and what a tensor of an adapter is to it.
pub(in crate::jobs) fn role(name: &str) -> (String, Role) {
    let own = name.strip_prefix("base_model.model.").unwrap_or(name).replace("language_model.", "");
    for (part, role) in [(".lora_A", Role::A), (".lora_B", Role::B), (".lora_magnitude_vector", Role::Magnitude)] {
        let known = |ending: &str| matches!(ending, ".weight" | ".default.weight") || (role == Role::Magnitude && ending.is_empty());
        if let Some((module, _)) = own.split_once(part).filter(|(_, ending)| known(ending)) {
            return (module.to_owned(), role);
        }
    }
    (own.replace(".modules_to_save.default.", ".").replace(".modules_to_save.", "."), Role::Whole)
}

/// Which half of an update a tensor is, and of which matrix.
fn half(name: &str) -> Result<(String, usize)> {
    let refused = |what: &str| {
        let supported = "adapters that change linear layers by lora_A and lora_B alone; merge this one with PEFT itself".to_owned();
        Err(Error::Unsupported { what: format!("{what} ({})", shown(name)), supported })
    };
    if name.contains("lora_magnitude_vector") {
        return refused("an adapter with magnitudes (DoRA)");
    }
    if name.contains("lora_embedding_") {
        return refused("an adapter of the embedding");
    }
    match role(name) {
        (matrix, Role::A) => Ok((format!("{matrix}.weight"), 0)),
        (matrix, Role::B) => Ok((format!("{matrix}.weight"), 1)),
        _ => refused("an adapter that brings whole weights (modules_to_save, biases)"),
    }
}

fn paired(weights: &Weights, settings: &Settings) -> Result<Vec<Update>> {
    let mut halves: BTreeMap<String, [Option<&Entry>; 2]> = BTreeMap::new();
    for (_, entry) in weights.tensors() {
        let (matrix, index) = half(&entry.name)?;
        halves.entry(matrix).or_default()[index] = Some(entry);
    }
    if halves.is_empty() {
        return Err(Error::malformed(FILE, "the adapter is empty"));
    }
    halves.into_iter().map(|(matrix, [a, b])| update(matrix, a, b, settings)).collect()
}

fn update(matrix: String, a: Option<&Entry>, b: Option<&Entry>, settings: &Settings) -> Result<Update> {
    let wrong = |what: &str| Error::malformed(FILE, format!("{}: {what}", shown(&matrix)));
    let (Some(a), Some(b)) = (a, b) else { return Err(wrong("only one of lora_A and lora_B is there")) };
    let rank = match (a.shape.as_slice(), b.shape.as_slice()) {
        ([rank, width], [rows, other]) if rank == other && (1..=MAX_RANK).contains(rank) && *width > 0 && *rows > 0 => *rank,
        _ => return Err(wrong("lora_A and lora_B are no matrices of one rank")),
    };
    if [a, b].iter().any(|entry| matches!(entry.dtype, Dtype::Other { .. })) {
        return Err(wrong("only F64, F32, F16 and BF16 can be read"));
    }
    let module = matrix.strip_suffix(".weight").unwrap_or(&matrix);
    let scale = settings.scale(module, rank);
    Ok(Update { a: a.clone(), b: b.clone(), rank, scale, matrix })
}
