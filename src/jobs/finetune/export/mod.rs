//! From trained parameters to what is shipped: a merged GGUF file, merged safetensors, an adapter for PEFT, an adapter as GGUF.
//!
//! All of it is made from the GGUF file that was trained on and the parameters as the learner names them ([`Tensors`]). Promises: what
//! was not trained stays as it was, to the byte where the form allows; how much of the training survives the storage is measured and
//! told ([`Survival`]); memory does not grow with the model; a file or folder is whole, under its name, or not there. It does not
//! publish.

mod adapter_gguf;
mod base;
mod change;
mod error;
mod hub_config;
mod lineage;
mod merged_gguf;
mod merged_safetensors;
mod names;
mod peft;
mod safetensors;
mod staged;
mod storage;
mod survival;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::path::Path;

use super::learner::Tensors;

pub use adapter_gguf::{AdapterGguf, write_adapter_gguf};
pub use error::Error;
pub use lineage::Lineage;
pub use merged_gguf::{MergeOptions, MergePlan, Merged, merge_gguf};
pub use merged_safetensors::{FolderOptions, MergedFolder, Precision, Shard, merge_safetensors};
pub use peft::{Adapter, PeftOptions, read_peft, write_peft};
pub use storage::Storage;
pub use survival::{LEAST_GAIN, Survival, TensorSurvival};

/// What came out of a training.
#[derive(Debug, Clone, Copy)]
pub struct Trained<'a> {
    /// The GGUF file that was trained on.
    pub base: &'a Path,
    pub parameters: &'a Tensors,
    pub strengths: &'a Strengths,
}

/// How strongly adapters act.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Strengths {
    /// LoRA's alpha.
    pub alpha: f64,
    /// Of matrices that have another one, by their names without an ending (`blk.3.attn_q`).
    pub alphas: BTreeMap<String, f64>,
    /// rsLoRA: divided by the root of the rank rather than by the rank.
    pub rank_stabilized: bool,
}

impl Strengths {
    /// The same for all matrices.
    #[must_use]
    pub fn new(alpha: f64, rank_stabilized: bool) -> Self {
        Self { alpha, alphas: BTreeMap::new(), rank_stabilized }
    }

    /// The alpha of a matrix.
    #[must_use]
    pub fn alpha_of(&self, name: &str) -> f64 {
        self.alphas.get(name).copied().unwrap_or(self.alpha)
    }

    /// What the product of a matrix's two halves of this rank is multiplied with.
    #[expect(clippy::cast_precision_loss, reason = "ranks are small")]
    #[must_use]
    pub fn scale(&self, name: &str, rank: usize) -> f64 {
        let rank = rank as f64;
        self.alpha_of(name) / if self.rank_stabilized { rank.sqrt() } else { rank }
    }
}
