//! From a model file to the engine's parts.

use candle_core::Tensor;

use super::attention::How;
use super::base::{Base, Rows};
use super::block::Block;
use super::compute::Compute;
use super::embedding::{self, Embedding};
use super::error::Result;
use super::group::Group;
use super::linear::{Linear, Names};
use super::loss::Head;
use super::norm::Norm;
use super::settings::{Method, Precision, Settings};
use super::trainable::is_adapted;
use crate::gguf::Header;
use crate::lm::Config;
use crate::lm::cpu::kernels::{Isa, unpack_row_of};
use crate::lm::weights::{Source, find, need};

/// Reads the parts of one file.
pub struct Loader<'a> {
    pub compute: &'a Compute,
    pub config: &'a Config,
    pub header: &'a Header,
    pub source: &'a Source,
    pub settings: &'a Settings,
}

impl Loader<'_> {
    pub fn embedding(&self) -> Result<Embedding> {
        Ok(Embedding {
            rows: self.rows(embedding::NAME, self.config.vocab_size, self.config.embedding_length)?,
            scale: self.config.embedding_scale,
        })
    }

    /// A head of its own, or the table of embeddings.
    pub fn head(&self) -> Result<Head> {
        let Config { embedding_length, vocab_size, block_count, logit_softcap, .. } = *self.config;
        let name = if self.has("output.weight") { "output" } else { "token_embd" };
        let chunk = (self.settings.logits_bytes / (4 * vocab_size)).max(1);
        Ok(Head { linear: self.linear(name, [vocab_size, embedding_length], [block_count, 0])?, softcap: logit_softcap, chunk })
    }

    pub fn block(&self, layer: usize) -> Result<Block> {
        let Config { embedding_length: width, feed_forward_length: inner, head_length, activation, .. } = *self.config;
        let name = |part: &str| format!("blk.{layer}.{part}");
        Ok(Block {
            how: How::new(self.config, layer),
            activation,
            is_sliding: self.config.is_sliding(layer),
            attention_norm: self.norm(name("attn_norm.weight"), width)?,
            qkv: self.qkv(layer)?,
            query_norm: self.optional_norm(name("attn_q_norm.weight"), head_length)?,
            key_norm: self.optional_norm(name("attn_k_norm.weight"), head_length)?,
            output: self.linear(&name("attn_output"), [width, self.config.query_length()], [layer, 3])?,
            after_attention: self.optional_norm(name("post_attention_norm.weight"), width)?,
            feed_norm: self.norm(name("ffn_norm.weight"), width)?,
            gate_up: self.gate_up(layer)?,
            down: self.linear(&name("ffn_down"), [width, inner], [layer, 6])?,
            after_feed: self.optional_norm(name("post_ffw_norm.weight"), width)?,
        })
    }

    fn qkv(&self, layer: usize) -> Result<Group<3>> {
        let (inputs, q, kv) = (self.config.embedding_length, self.config.query_length(), self.config.kv_length());
        let linear = |part, outputs, place| self.linear(&format!("blk.{layer}.{part}"), [outputs, inputs], [layer, place]);
        let linears = if self.has(&format!("blk.{layer}.attn_qkv.weight")) {
            vec![linear("attn_qkv", q + 2 * kv, 0)?]
        } else {
            vec![linear("attn_q", q, 0)?, linear("attn_k", kv, 1)?, linear("attn_v", kv, 2)?]
        };
        Ok(Group { linears, widths: [q, kv, kv] })
    }

    /// Where there is no matrix for the gate, its rows are above the other's (Phi 3).
    fn gate_up(&self, layer: usize) -> Result<Group<2>> {
        let (inputs, inner) = (self.config.embedding_length, self.config.feed_forward_length);
        let linear = |part, outputs, place| self.linear(&format!("blk.{layer}.{part}"), [outputs, inputs], [layer, place]);
        let linears = if self.has(&format!("blk.{layer}.ffn_gate.weight")) {
            vec![linear("ffn_gate", inner, 4)?, linear("ffn_up", inner, 5)?]
        } else {
            vec![linear("ffn_up", 2 * inner, 5)?]
        };
        Ok(Group { linears, widths: [inner; 2] })
    }

    fn has(&self, name: &str) -> bool {
        self.header.tensor(name).is_some()
    }

    fn rows(&self, name: &str, rows: usize, columns: usize) -> Result<Rows> {
        let rows = Rows::new(self.source, need(self.header, name, &[columns, rows])?);
        Ok(if self.settings.precision == Precision::Brain && self.compute.fused { rows.rounded() } else { rows })
    }

    fn linear(&self, name: &str, [outputs, inputs]: [usize; 2], place: [usize; 2]) -> Result<Linear> {
        let names = Names::new(name);
        let base = Base::new(self.compute, self.rows(&names.weight, outputs, inputs)?)?;
        let bias = self.optional_vector(&names.bias, outputs)?;
        let adapted = is_adapted(&self.settings.method, name);
        let scale = adapted.map_or(1.0, |lora| lora.scale_of(name));
        let dropout = adapted.map_or(0.0, |lora| lora.dropout);
        Ok(Linear { name: name.to_owned(), names, base, bias, outputs, inputs, scale, dropout, place })
    }

    pub fn norm(&self, name: String, width: usize) -> Result<Norm> {
        let weight = self.vector(&need(self.header, &name, &[width])?)?;
        Ok(Norm { name, weight, epsilon: self.config.norm_epsilon })
    }

    fn optional_norm(&self, name: String, width: usize) -> Result<Option<Norm>> {
        let weight = self.optional_vector(&name, width)?;
        Ok(weight.map(|weight| Norm { name, weight, epsilon: self.config.norm_epsilon }))
    }

    fn optional_vector(&self, name: &str, length: usize) -> Result<Option<Tensor>> {
        find(self.header, name, &[length])?.map(|tensor| self.vector(&tensor)).transpose()
    }

    fn vector(&self, tensor: &crate::lm::weights::Tensor) -> Result<Tensor> {
        let mut numbers = vec![0.0; tensor.columns];
        unpack_row_of(Isa::detect(), tensor.kind, self.source.bytes(tensor, 0..1), &mut numbers);
        Ok(self.compute.tensor(numbers, tensor.columns)?)
    }
}

/// Patterns that mean nothing in the model.
pub fn unmatched<'a>(settings: &'a Settings, matrices: &[&str], weights: &[&str]) -> Option<&'a str> {
    let nowhere = |patterns: &'a [String], names: &[&str]| {
        patterns.iter().find(|pattern| !names.iter().any(|name| super::settings::matches(pattern, name))).map(String::as_str)
    };
    match &settings.method {
        Method::Full(patterns) => nowhere(patterns, weights),
        Method::Lora(lora) => nowhere(&lora.targets, matrices).or_else(|| nowhere(&lora.also, weights)),
    }
}
