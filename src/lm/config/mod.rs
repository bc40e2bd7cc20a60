//! What a decoder is built from, read from the header of a GGUF file.
//!
//! All families are one decoder with different settings. A family adds a row to the table in `family` and what its settings are
//! in [`Config::from_header`]; whether there are biases, norms of queries and keys, fused matrices, or a head of its own is seen
//! from the tensors.

mod family;
mod keys;
mod rope;
#[cfg(test)]
mod tests;

use crate::gguf::Header;

pub use family::supported;
pub use rope::{Pairing, Rope, Scaling, Yarn};

use super::error::{Error, Result};
use family::Family;
use keys::{Keys, MAX_LENGTH};

/// What the gate of a feed-forward layer goes through.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Activation {
    /// GELU in its tanh form.
    Gelu,
    Silu,
}

/// Layers that see only the tokens just before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Window {
    /// Tokens seen, the current one included.
    pub size: usize,
    /// Every so many-th layer sees everything; with 1 none does.
    pub pattern: usize,
}

/// The settings of one decoder.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// As the file names it: `gemma3`, `llama`, `phi3`.
    pub architecture: String,
    pub vocab_size: usize,
    /// Tokens it was trained for.
    pub context_length: usize,
    pub block_count: usize,
    pub embedding_length: usize,
    pub feed_forward_length: usize,
    /// Query heads.
    pub head_count: usize,
    /// Key and value heads; each serves `head_count / head_count_kv` query heads.
    pub head_count_kv: usize,
    /// Numbers in a head.
    pub head_length: usize,
    /// Epsilon of every RMS norm.
    pub norm_epsilon: f32,
    pub rope: Rope,
    pub window: Option<Window>,
    pub activation: Activation,
    /// Products of queries and keys are multiplied with this.
    pub attention_scale: f32,
    /// Scores are kept within this by tanh (Gemma 2).
    pub attention_softcap: Option<f32>,
    /// Logits are kept within this by tanh (Gemma 2).
    pub logit_softcap: Option<f32>,
    /// Embeddings are multiplied with this.
    pub embedding_scale: f32,
}

/// Above this a header is a mistake or an attack; the largest open models stay well below.
const MAX_BLOCKS: usize = 1_024;

impl Config {
    /// Reads the settings.
    ///
    /// # Errors
    /// When the architecture or one of its settings is not supported, or one that is needed is missing or makes no sense.
    pub fn from_header(header: &Header) -> Result<Self> {
        let architecture = header.metadata.str("general.architecture").unwrap_or_default();
        let family = Family::named(architecture)?;
        let keys = Keys { metadata: &header.metadata, architecture };
        let embedding_length = keys.length("embedding_length")?;
        let head_count = keys.length("attention.head_count")?;
        let head_length = keys.length_or("attention.key_length", embedding_length / head_count)?;
        if head_length == 0 {
            return Err(keys.wrong("attention.head_count", format!("is {head_count}, more than the {embedding_length} numbers they share")));
        }
        let config = Self {
            architecture: architecture.to_owned(),
            vocab_size: vocab_size(header)?,
            context_length: keys.length("context_length")?,
            block_count: keys.length("block_count")?,
            embedding_length,
            feed_forward_length: keys.length("feed_forward_length")?,
            head_count,
            head_count_kv: keys.length_or("attention.head_count_kv", head_count)?,
            head_length,
            norm_epsilon: keys
                .number("attention.layer_norm_rms_epsilon")?
                .ok_or_else(|| keys.missing("attention.layer_norm_rms_epsilon"))?,
            rope: Rope::read(&keys, family, head_length)?,
            window: window(&keys, family)?,
            activation: family.activation,
            attention_scale: attention_scale(&keys, family, embedding_length, head_count, head_length)?,
            attention_softcap: keys.number("attn_logit_softcapping")?.or(family.attention_softcap),
            logit_softcap: keys.number("final_logit_softcapping")?.or(family.logit_softcap),
            embedding_scale: if family.scaled_embedding { length_as_f32(embedding_length).sqrt() } else { 1.0 },
        };
        config.check(&keys)?;
        Ok(config)
    }

    /// Whether a layer sees only the window.
    #[must_use]
    pub fn is_sliding(&self, layer: usize) -> bool {
        self.window.is_some_and(|window| window.pattern == 1 || layer % window.pattern < window.pattern - 1)
    }

    /// Numbers in all query heads.
    #[must_use]
    pub fn query_length(&self) -> usize {
        self.head_count * self.head_length
    }

    /// Numbers in all key heads, or in all value heads.
    #[must_use]
    pub fn kv_length(&self) -> usize {
        self.head_count_kv * self.head_length
    }

    fn check(&self, keys: &Keys<'_>) -> Result<()> {
        if !self.head_count.is_multiple_of(self.head_count_kv) {
            return Err(keys
                .wrong("attention.head_count_kv", format!("is {}, which does not divide {} heads", self.head_count_kv, self.head_count)));
        }
        if self.block_count > MAX_BLOCKS {
            return Err(keys.wrong("block_count", format!("is {}, more than {MAX_BLOCKS}", self.block_count)));
        }
        let value_length = keys.length_or("attention.value_length", self.head_length)?;
        if value_length != self.head_length {
            return Err(Error::Unsupported { what: format!("values of {value_length} numbers for keys of {}", self.head_length) });
        }
        if keys.metadata.u32(&keys.key("expert_count")).is_some_and(|count| count > 0) {
            return Err(Error::Unsupported { what: "a mixture of experts".to_owned() });
        }
        Ok(())
    }
}

#[expect(clippy::cast_precision_loss, reason = "lengths are below 2^24")]
fn length_as_f32(length: usize) -> f32 {
    length as f32
}

fn vocab_size(header: &Header) -> Result<usize> {
    let name = "token_embd.weight";
    let tensor = header.tensor(name).ok_or_else(|| Error::MissingTensor { name: name.to_owned() })?;
    let rows = tensor.dimensions.get(1).and_then(|&rows| usize::try_from(rows).ok());
    rows.filter(|rows| (1..=MAX_LENGTH).contains(rows)).ok_or_else(|| Error::Shape {
        name: name.to_owned(),
        found: tensor.dimensions.clone(),
        expected: vec![tensor.dimensions.first().copied().unwrap_or_default(), 0],
    })
}

fn window(keys: &Keys<'_>, family: &Family) -> Result<Option<Window>> {
    // Files of models without a window may say 0.
    if keys.metadata.u32(&keys.key("attention.sliding_window")) == Some(0) {
        return Ok(None);
    }
    let size = keys.optional_length("attention.sliding_window")?.or(family.window);
    let pattern = keys.length_or("attention.sliding_window_pattern", family.pattern)?;
    Ok(size.map(|size| Window { size, pattern }))
}

/// Usually one over the root of a head's length; the largest Gemma 2 and 3 take the embedding's share of a head.
fn attention_scale(keys: &Keys<'_>, family: &Family, embedding_length: usize, head_count: usize, head_length: usize) -> Result<f32> {
    let is_largest = family.largest == Some(keys.length("block_count")?);
    let length = if is_largest { embedding_length / head_count } else { head_length };
    Ok(1.0 / length_as_f32(length.max(1)).sqrt())
}
