//! What a header says of rotary position embeddings.

use super::super::error::{Error, Result};
use super::family::Family;
use super::keys::Keys;

/// How the pairs that a rotary embedding turns lie in a head.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pairing {
    /// 0 with 1, 2 with 3, …; llama.cpp permutes the rows of Llama's queries and keys so.
    Neighbours,
    /// 0 with n/2, 1 with n/2 + 1, … (GPT-NeoX).
    Halves,
}

/// Rotary position embedding (Su et al. 2021).
#[derive(Debug, Clone, PartialEq)]
pub struct Rope {
    /// Numbers of a head that are turned, from the first on.
    pub dimensions: usize,
    pub pairing: Pairing,
    /// Base of the frequencies in layers that see everything.
    pub base: f32,
    /// Base of the frequencies in sliding layers.
    pub sliding_base: f32,
    /// By how much the context was stretched: frequencies are divided by it as `scaling` says.
    pub factor: f32,
    pub scaling: Scaling,
    /// Whether sliding layers are stretched, too.
    pub stretches_sliding: bool,
    /// Cosines and sines are multiplied with this.
    pub attention_factor: f32,
    /// Tokens it was trained for before its context was stretched.
    pub original_context: usize,
}

/// How a context was stretched.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Scaling {
    /// Every frequency alike; with a factor of 1 not at all.
    Linear,
    /// By the files' own factors, in tensors, of which there are some for longer sequences (Ding et al. 2024).
    LongRope,
    Yarn(Yarn),
}

/// Low frequencies are divided by the factor, high ones are not (Peng et al. 2023).
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Yarn {
    /// How much of high frequencies is left as it is.
    pub extrapolation: f32,
    /// What turns more often than this within the original context is high,
    pub fast: f32,
    /// and less often than this, low.
    pub slow: f32,
}

impl Rope {
    pub(super) fn read(keys: &Keys<'_>, family: &Family, head_length: usize) -> Result<Self> {
        let dimensions = keys.length_or("rope.dimension_count", head_length)?;
        if dimensions > head_length || !dimensions.is_multiple_of(2) {
            return Err(keys.wrong("rope.dimension_count", format!("is {dimensions} for heads of {head_length} numbers")));
        }
        let base = keys.number("rope.freq_base")?.unwrap_or(10_000.0);
        let scaling = Scaling::read(keys, base)?;
        let factor = keys.number("rope.scaling.factor")?.map_or_else(|| keys.number("rope.scale_linear"), |factor| Ok(Some(factor)))?;
        let is_scaled = keys.metadata.str(&keys.key("rope.scaling.type")) != Some("none");
        let factor = factor.filter(|_| is_scaled).unwrap_or(1.0);
        Ok(Self {
            dimensions,
            pairing: family.pairing,
            base,
            sliding_base: keys.number("rope.freq_base_swa")?.or(family.sliding_base).unwrap_or(base),
            factor,
            scaling,
            // A family whose sliding layers have a base of their own stretches only the others.
            stretches_sliding: family.sliding_base.is_none(),
            attention_factor: keys.number("rope.scaling.attn_factor")?.unwrap_or(1.0) * scaling.attention_factor(factor),
            original_context: keys.length_or("rope.scaling.original_context_length", keys.length("context_length")?)?,
        })
    }
}

impl Scaling {
    fn read(keys: &Keys<'_>, base: f32) -> Result<Self> {
        match keys.metadata.str(&keys.key("rope.scaling.type")) {
            None | Some("none" | "linear") => Ok(Self::Linear),
            Some("longrope") => Ok(Self::LongRope),
            Some("yarn") if base <= 1.0 => Err(keys.wrong("rope.freq_base", format!("is {base}, with which YaRN has no frequencies"))),
            Some("yarn") => Ok(Self::Yarn(Yarn {
                extrapolation: keys.number("rope.scaling.yarn_ext_factor")?.unwrap_or(1.0),
                fast: keys.number("rope.scaling.yarn_beta_fast")?.unwrap_or(32.0),
                slow: keys.number("rope.scaling.yarn_beta_slow")?.unwrap_or(1.0),
            })),
            Some(other) => Err(Error::Unsupported { what: format!("rotary embeddings scaled by `{other:.40}`") }),
        }
    }

    /// What the paper on YaRN multiplies scores with, as their root; the others keep theirs in the file.
    fn attention_factor(self, factor: f32) -> f32 {
        match self {
            Self::Yarn(_) if factor > 1.0 => 0.1 * factor.ln() + 1.0,
            _ => 1.0,
        }
    }
}
