//! An adapter as a GGUF file of its own, for programs that apply it while they run the model.
//!
//! As llama.cpp's `convert_lora_to_gguf.py` writes it, but right where that is not: such programs scale by alpha/r, so what rsLoRA or
//! alphas by pattern make of it is put into alpha where it is the same for all matrices, and into the matrices where it is not.

use std::path::Path;

use super::super::config::Config;
use super::super::error::{Error, Result, shown};
use super::super::folder::Folder;
use super::super::metadata::{General, Pairs, Size};
use super::super::names::translated;
use super::super::safetensors::{Entry, Weights};
use super::super::tensors::{Content, MAX_ROW, Slice, Tensor, interleave};
use super::{Update, Updates};
use crate::gguf::{Metadata, TensorKind};

/// What an adapter becomes: where its numbers are, its tensors, its metadata.
pub(in crate::jobs::convert) type Exported = (Weights, Vec<Tensor>, Metadata);

/// Takes an adapter for the model in the folder `base`, of which only the configuration is read.
pub(in crate::jobs::convert) fn export(adapter: &Path, base: &Path, name: Option<&str>) -> Result<Exported> {
    let (folder, config) = (Folder::open(adapter)?, Config::read(&Folder::open(base)?)?);
    let Updates { weights, updates } = Updates::open(&folder)?;
    let alpha = updates.first().map_or(0.0, strength);
    let mut tensors = Vec::new();
    for update in &updates {
        tensors.extend(pair(update, alpha, &config)?);
    }
    let count = updates.iter().map(|update| update.a.shape[1] * update.b.shape[0]).sum();
    let general = General::read(&folder, &config, Size::Adapter(count), name)?;
    Ok((weights, tensors, metadata(&general, &config, alpha)))
}

/// What alpha would have to be for this matrix.
#[expect(clippy::cast_precision_loss, reason = "ranks are small")]
fn strength(update: &Update) -> f64 {
    update.scale * update.rank as f64
}

fn metadata(general: &General, config: &Config, alpha: f64) -> Metadata {
    let mut pairs = Pairs::default();
    pairs.string("general.architecture", config.family.architecture());
    pairs.string("general.type", "adapter");
    pairs.string("adapter.type", "lora");
    general.write(&mut pairs);
    pairs.f32("adapter.lora.alpha", alpha);
    pairs.u32("general.quantization_version", 2);
    pairs.into_metadata()
}

/// The two tensors of an update.
fn pair(update: &Update, alpha: f64, config: &Config) -> Result<[Tensor; 2]> {
    let wrong = |what: String| Error::Impossible(format!("the adapter's {}: {what}", shown(&update.matrix)));
    let own = translated(&update.matrix, config);
    let own =
        own.ok_or_else(|| wrong(format!("no tensor of {} has this name: the adapter is for another model", config.family.architecture())))?;
    let interleave = interleave(&update.matrix, &update.b.shape, config).map_err(wrong)?;
    #[expect(clippy::cast_possible_truncation, reason = "weights are f32")]
    let factor = (strength(update) / alpha) as f32;
    let factor = (factor.to_bits() != 1_f32.to_bits() && factor.is_finite()).then_some(factor);
    if let Some(width) = [update.a.shape[1], update.rank].into_iter().find(|width| *width > MAX_ROW) {
        return Err(wrong(format!("rows of {width} numbers are too long")));
    }
    let a = tensor(format!("{own}.lora_a"), &update.a, None, None);
    Ok([a, tensor(format!("{own}.lora_b"), &update.b, interleave, factor)])
}

fn tensor(name: String, entry: &Entry, interleave: Option<u64>, factor: Option<f32>) -> Tensor {
    let slice = Slice { file: 0, start: entry.start, dtype: entry.dtype, interleave, plus_one: false, update: None, factor };
    let dimensions = entry.shape.iter().rev().copied().collect();
    // Which type it is stored as is asked for later; any but F32 stands for that.
    Tensor { name, dimensions, stage: TensorKind::F16, content: Content::Weights(slice) }
}
