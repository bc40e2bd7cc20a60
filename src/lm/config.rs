//! What a decoder is built from, read from the header of a GGUF file.
//!
//! All families are one decoder with different settings. A family adds a row to [`FAMILIES`] and what its settings are in
//! [`Config::from_header`]; whether there are biases, norms of queries and keys, or a head of its own is seen from the tensors.

use crate::gguf::{Header, Metadata};

use super::error::{Error, Result};

/// How the pairs that a rotary embedding turns lie in a head.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pairing {
    /// 0 with 1, 2 with 3, …; llama.cpp permutes the rows of Llama's queries and keys so.
    Neighbours,
    /// 0 with n/2, 1 with n/2 + 1, … (GPT-NeoX).
    Halves,
}

/// What the gate of a feed-forward layer goes through.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Activation {
    /// GELU in its tanh form.
    Gelu,
    Silu,
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
    /// Positions are divided by this in layers that see everything (linear scaling).
    pub factor: f32,
    /// And by this in sliding layers.
    pub sliding_factor: f32,
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
    /// As the file names it: `gemma3`, `llama`, `qwen2`.
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

struct Family {
    architecture: &'static str,
    pairing: Pairing,
    activation: Activation,
    /// Embeddings are scaled by the root of their length.
    scaled_embedding: bool,
    /// Every so many-th layer sees everything, if the file names a window.
    pattern: usize,
    /// Base of sliding layers when the file does not say; `None`: that of the others.
    sliding_base: Option<f32>,
}

const FAMILIES: &[Family] = &[
    Family {
        architecture: "gemma3",
        pairing: Pairing::Halves,
        activation: Activation::Gelu,
        scaled_embedding: true,
        pattern: 6,
        sliding_base: Some(10_000.0),
    },
    Family {
        architecture: "llama",
        pairing: Pairing::Neighbours,
        activation: Activation::Silu,
        scaled_embedding: false,
        pattern: 1,
        sliding_base: None,
    },
    Family {
        architecture: "qwen2",
        pairing: Pairing::Halves,
        activation: Activation::Silu,
        scaled_embedding: false,
        pattern: 1,
        sliding_base: None,
    },
];

/// The architectures a decoder can be built for.
pub fn supported() -> impl Iterator<Item = &'static str> {
    FAMILIES.iter().map(|family| family.architecture)
}

/// Above these a header is a mistake or an attack; the largest open models stay well below.
const MAX_BLOCKS: usize = 1_024;
const MAX_LENGTH: usize = 1 << 24;

impl Config {
    /// Reads the settings.
    ///
    /// # Errors
    /// When the architecture or one of its settings is not supported, or one that is needed is missing or makes no sense.
    pub fn from_header(header: &Header) -> Result<Self> {
        let architecture = header.metadata.str("general.architecture").unwrap_or_default();
        let family = FAMILIES.iter().find(|family| family.architecture == architecture).ok_or_else(|| Error::Architecture {
            architecture: architecture.to_owned(),
            supported: supported().collect::<Vec<_>>().join(", "),
        })?;
        let keys = Keys { metadata: &header.metadata, architecture };
        let embedding_length = keys.length("embedding_length")?;
        let head_count = keys.length("attention.head_count")?;
        let head_length = keys.length_or("attention.key_length", embedding_length / head_count)?;
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
            rope: rope(&keys, family, head_length)?,
            window: window(&keys, family)?,
            activation: family.activation,
            attention_scale: attention_scale(&keys, architecture, embedding_length, head_count, head_length)?,
            attention_softcap: keys.number("attn_logit_softcapping")?,
            logit_softcap: keys.number("final_logit_softcapping")?,
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

/// The settings of one architecture, whose keys begin with its name.
struct Keys<'a> {
    metadata: &'a Metadata,
    architecture: &'a str,
}

impl Keys<'_> {
    fn key(&self, name: &str) -> String {
        format!("{}.{name}", self.architecture)
    }

    fn wrong(&self, name: &str, why: impl Into<String>) -> Error {
        Error::Header { key: self.key(name), why: why.into() }
    }

    fn missing(&self, name: &str) -> Error {
        self.wrong(name, "is missing")
    }

    fn optional_length(&self, name: &str) -> Result<Option<usize>> {
        if self.metadata.get(&self.key(name)).is_none() {
            return Ok(None);
        }
        let length = self.metadata.u32(&self.key(name)).and_then(|length| usize::try_from(length).ok());
        match length {
            Some(length) if (1..=MAX_LENGTH).contains(&length) => Ok(Some(length)),
            _ => Err(self.wrong(name, format!("is not a number from 1 to {MAX_LENGTH}"))),
        }
    }

    fn length(&self, name: &str) -> Result<usize> {
        self.optional_length(name)?.ok_or_else(|| self.missing(name))
    }

    fn length_or(&self, name: &str, default: usize) -> Result<usize> {
        Ok(self.optional_length(name)?.unwrap_or(default))
    }

    /// A finite number above 0.
    fn number(&self, name: &str) -> Result<Option<f32>> {
        match (self.metadata.get(&self.key(name)), self.metadata.f32(&self.key(name))) {
            (None, _) => Ok(None),
            (_, Some(number)) if number.is_finite() && number > 0.0 => Ok(Some(number)),
            _ => Err(self.wrong(name, "is not a number above 0")),
        }
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

fn rope(keys: &Keys<'_>, family: &Family, head_length: usize) -> Result<Rope> {
    let dimensions = keys.length_or("rope.dimension_count", head_length)?;
    if dimensions > head_length || !dimensions.is_multiple_of(2) {
        return Err(keys.wrong("rope.dimension_count", format!("is {dimensions} for heads of {head_length} numbers")));
    }
    let base = keys.number("rope.freq_base")?.unwrap_or(10_000.0);
    let factor = match keys.metadata.str(&keys.key("rope.scaling.type")) {
        None => keys.number("rope.scale_linear")?.unwrap_or(1.0),
        Some("none") => 1.0,
        Some("linear") => keys.number("rope.scaling.factor")?.unwrap_or(1.0),
        Some(other) => return Err(Error::Unsupported { what: format!("rotary embeddings scaled by `{other}`") }),
    };
    let sliding_base = keys.number("rope.freq_base_swa")?.or(family.sliding_base).unwrap_or(base);
    // A family whose sliding layers have a base of their own scales only the others.
    let sliding_factor = if family.sliding_base.is_some() { 1.0 } else { factor };
    Ok(Rope { dimensions, pairing: family.pairing, base, sliding_base, factor, sliding_factor })
}

fn window(keys: &Keys<'_>, family: &Family) -> Result<Option<Window>> {
    // Files of models without a window may say 0.
    if keys.metadata.u32(&keys.key("attention.sliding_window")) == Some(0) {
        return Ok(None);
    }
    let size = keys.optional_length("attention.sliding_window")?;
    let pattern = keys.length_or("attention.sliding_window_pattern", family.pattern)?;
    Ok(size.map(|size| Window { size, pattern }))
}

/// Usually one over the root of a head's length; the largest Gemma 3 (the one of 62 blocks) takes the embedding's share of a head.
fn attention_scale(keys: &Keys<'_>, architecture: &str, embedding_length: usize, head_count: usize, head_length: usize) -> Result<f32> {
    let largest_gemma = architecture == "gemma3" && keys.length("block_count")? == 62;
    let length = if largest_gemma { embedding_length / head_count } else { head_length };
    Ok(1.0 / length_as_f32(length.max(1)).sqrt())
}
