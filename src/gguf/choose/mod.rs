//! Which format each tensor of a quantised file gets, in which order tensors are written, and what the metadata become.
//!
//! All of it is as llama-quantize (llama.cpp b11434) does it, so that a file of ours can be the file it would have written. Rules
//! for tensors of kinds of models that are not text models are kept where llama.cpp has them by name alone. What
//! llama-quantize refuses is not refused here: ask [`FileType::needs_importance`] first.

mod category;
mod metadata;
mod order;
mod rules;
#[cfg(test)]
mod tests;

use super::file_type::FileType;
use super::{Metadata, TensorKind};
use category::{Category, is_quantizable};
use rules::Rules;

pub use metadata::{ImatrixInfo, copied_metadata, quantized_metadata};
pub use order::order;

/// What the choice depends on besides the tensors.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Model {
    /// As in `general.architecture`.
    pub architecture: String,
    pub block_count: u32,
    /// Of the first block, if they differ.
    pub head_count: u32,
    pub head_count_kv: u32,
    /// Zero where there are none.
    pub expert_count: u32,
}

impl Model {
    /// What the metadata of a model file say.
    #[must_use]
    pub fn from_metadata(metadata: &Metadata) -> Self {
        let architecture = metadata.str("general.architecture").unwrap_or_default();
        let number = |key: &str| metadata.u32(&format!("{architecture}.{key}"));
        let first = |key: &str| metadata.u32s(&format!("{architecture}.{key}")).and_then(|all| all.first().copied());
        let heads = |key: &str| number(key).or_else(|| first(key));
        let head_count = heads("attention.head_count").unwrap_or(0);
        Self {
            architecture: architecture.to_owned(),
            block_count: number("block_count").unwrap_or(0),
            head_count,
            head_count_kv: heads("attention.head_count_kv").unwrap_or(head_count),
            expert_count: number("expert_count").unwrap_or(0),
        }
    }

    /// How many query heads share the keys and values of one head.
    fn sharing(&self) -> u32 {
        self.head_count.checked_div(self.head_count_kv).unwrap_or(0)
    }

    /// Whether llama.cpp takes the model for one of 70 B, whose small matrices of values deserve more bits.
    fn is_70b(&self) -> bool {
        match self.architecture.as_str() {
            "llama" => self.block_count == 80 && self.head_count != self.head_count_kv,
            "qwen2" | "deci" | "olmo" => self.block_count == 80,
            "jais2" => self.block_count == 68,
            _ => false,
        }
    }
}

/// The format of each tensor, given as name, dimensions and the format it has in the source. The tensors must be in the order
/// that [`order`] says, because the choice counts them. `has_importance`: whether there is an importance matrix.
#[must_use]
pub fn choose<N: AsRef<str>, D: AsRef<[u64]>>(
    file_type: FileType,
    model: &Model,
    tensors: &[(N, D, TensorKind)],
    has_importance: bool,
) -> Vec<TensorKind> {
    let categories: Vec<_> = tensors.iter().map(|(name, ..)| Category::of(name.as_ref())).collect();
    let mut rules = Rules::new(file_type, model, &categories, has_importance);
    let mut kinds = Vec::with_capacity(tensors.len());
    for ((name, dimensions, source), category) in tensors.iter().zip(categories) {
        let (name, dimensions) = (name.as_ref(), dimensions.as_ref());
        kinds.push(if !is_quantizable(name, dimensions) {
            *source
        } else if file_type.is_quantized() {
            let row = dimensions.first().copied().unwrap_or(1);
            fitting(rules.kind(name, row, category), row)
        } else {
            file_type.base()
        });
    }
    kinds
}

/// `kind`, or what llama.cpp takes in its place where rows are no whole number of blocks.
fn fitting(kind: TensorKind, row: u64) -> TensorKind {
    use TensorKind as K;
    let fits = |kind: TensorKind| row.is_multiple_of(kind.block_size());
    if fits(kind) {
        return kind;
    }
    let smaller = match kind {
        K::IQ4_XS => K::IQ4_NL,
        K::Q2_K | K::Q3_K => K::Q4_0,
        K::Q4_K => K::Q5_0,
        K::Q5_K => K::Q5_1,
        K::Q6_K => K::Q8_0,
        other => other,
    };
    if fits(smaller) { smaller } else { K::F16 }
}
