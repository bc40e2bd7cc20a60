//! What a `config.json` says of a model, with what it leaves to the classes of transformers filled in.
//!
//! Every number is checked for its range before anything is computed from it. A configuration of a model that is not understood is
//! an error that names those that are.

mod family;
mod rope;
#[cfg(test)]
mod tests;

use serde_json::{Map, Value};

pub(in crate::jobs) use family::Family;
pub(super) use rope::Rope;

use super::error::{Error, Result, shown};
use super::folder::Folder;
use family::HeadDim;

pub(super) const CONFIG: &str = "config.json";

/// More layers than any model has, and so on; far below where products overflow.
const MAX_LAYERS: u64 = 4096;
const MAX_WIDTH: u64 = 1 << 20;
const MAX_VOCABULARY: u64 = 1 << 20;
const MAX_CONTEXT: u64 = u32::MAX as u64;

#[derive(Debug, Clone)]
pub(in crate::jobs) struct Config {
    pub(super) family: Family,
    pub(super) vocab_size: u64,
    pub(super) embedding: u64,
    pub(super) feed_forward: u64,
    pub(super) layers: u64,
    pub(super) heads: u64,
    pub(super) kv_heads: u64,
    /// Numbers of one head where the configuration or its class says so.
    pub(super) head_dim: Option<u64>,
    pub(super) context: u64,
    pub(super) rms_epsilon: f64,
    pub(super) rope: Rope,
    pub(super) sliding_window: Option<u64>,
    pub(super) attention_softcap: Option<f64>,
    pub(super) final_softcap: Option<f64>,
    /// Where the context was before it was stretched (Phi-3).
    pub(super) original_context: u64,
    /// As the file has it, for what is read from it verbatim.
    pub(super) raw: Value,
}

impl Config {
    pub(super) fn read(folder: &Folder) -> Result<Self> {
        let raw = folder.json(CONFIG)?.ok_or_else(|| folder.lacks(CONFIG, "give the folder of a model as Hugging Face has it"))?;
        Self::parse(raw)
    }

    pub(in crate::jobs) fn parse(raw: Value) -> Result<Self> {
        let family = Family::of(&raw)?;
        let fields = Fields::merged(&raw);
        refuse_quantized(&fields)?;
        let unsaid = family.defaults();
        let heads = fields.count("num_attention_heads", unsaid.heads, MAX_WIDTH)?;
        let embedding = fields.count("hidden_size", unsaid.embedding, MAX_WIDTH)?;
        let context = fields.count("max_position_embeddings", unsaid.context, MAX_CONTEXT)?;
        let head_dim = match (fields.value("head_dim"), unsaid.head_dim) {
            (None, HeadDim::Unsaid) => None,
            (None, HeadDim::Share) => Some(embedding / heads),
            (_, HeadDim::Is(size)) => Some(fields.count("head_dim", size, MAX_WIDTH)?),
            (Some(_), _) => Some(fields.count("head_dim", 1, MAX_WIDTH)?),
        };
        let gemma2 = family == Family::Gemma2;
        let window = matches!(family, Family::Gemma2 | Family::Gemma3).then_some(4096);
        Ok(Self {
            family,
            vocab_size: fields.count("vocab_size", unsaid.vocab_size, MAX_VOCABULARY)?,
            embedding,
            feed_forward: fields.count("intermediate_size", unsaid.feed_forward, MAX_WIDTH)?,
            layers: fields.count("num_hidden_layers", unsaid.layers, MAX_LAYERS)?,
            heads,
            kv_heads: fields.count("num_key_value_heads", unsaid.kv_heads.unwrap_or(heads), MAX_WIDTH)?,
            head_dim,
            context,
            rms_epsilon: fields.number("rms_norm_eps").unwrap_or(unsaid.rms_epsilon),
            rope: Rope::read(&fields, unsaid.rope_theta, family == Family::Gemma3),
            sliding_window: fields.number_or_none("sliding_window", MAX_CONTEXT)?.or(window),
            attention_softcap: fields.number("attn_logit_softcapping").or(gemma2.then_some(50.0)),
            final_softcap: fields.number("final_logit_softcapping").or(gemma2.then_some(30.0)),
            original_context: fields.count("original_max_position_embeddings", 4096, MAX_CONTEXT)?,
            raw,
        })
    }

    /// Numbers of one head.
    pub(super) fn head_size(&self) -> u64 {
        self.head_dim.unwrap_or(self.embedding / self.heads)
    }
}

fn refuse_quantized(fields: &Fields) -> Result<()> {
    let Some(how) = fields.object("quantization_config") else { return Ok(()) };
    let how = how.get("quant_method").and_then(Value::as_str).unwrap_or("unknown");
    Err(Error::Unsupported {
        what: format!("a folder whose weights are quantized already ({})", shown(how)),
        supported: "weights in F32, F16 or BF16; take the model they were made from".to_owned(),
    })
}

/// The settings of the language model: those of `text_config` go before those at the root.
pub(super) struct Fields<'a> {
    root: &'a Value,
    text: Option<&'a Map<String, Value>>,
}

impl<'a> Fields<'a> {
    fn merged(root: &'a Value) -> Self {
        Self { root, text: root.get("text_config").and_then(Value::as_object) }
    }

    /// What is there and not null.
    fn value(&self, key: &str) -> Option<&'a Value> {
        self.text.and_then(|text| text.get(key)).or_else(|| self.root.get(key)).filter(|value| !value.is_null())
    }

    fn object(&self, key: &str) -> Option<&'a Map<String, Value>> {
        self.value(key)?.as_object()
    }

    fn number(&self, key: &str) -> Option<f64> {
        self.value(key)?.as_f64().filter(|number| number.is_finite())
    }

    /// A whole number from 1 on.
    fn count(&self, key: &str, unsaid: u64, most: u64) -> Result<u64> {
        match self.number_or_none(key, most)? {
            Some(0) => Err(Error::malformed(CONFIG, format!("`{key}` is 0"))),
            number => Ok(number.unwrap_or(unsaid)),
        }
    }

    fn number_or_none(&self, key: &str, most: u64) -> Result<Option<u64>> {
        let Some(value) = self.value(key) else { return Ok(None) };
        let number = value.as_u64().filter(|number| *number <= most);
        number.map(Some).ok_or_else(|| Error::malformed(CONFIG, format!("`{key}` is no whole number up to {most}")))
    }
}
