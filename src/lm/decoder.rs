//! The decoder: from tokens to logits, one text for all families and devices.

use std::ops::Range;

use crate::gguf::Header;

use super::config::Config;
use super::error::Result;
use super::ops::{Attention, Linear, Ops, Room};
use super::rope::{Angles, Ropes};
use super::weights::{Source, Tensor, find, need};

/// A decoder whose weights are in use by `O`.
#[derive(Debug)]
pub struct Decoder<O: Ops> {
    ops: O,
    embedding: O::Matrix,
    blocks: Vec<Block<O>>,
    norm: O::Vector,
    /// `None`: the embedding is also the head.
    head: Option<O::Matrix>,
    ropes: Ropes,
}

#[derive(Debug)]
struct Block<O: Ops> {
    attention_norm: O::Vector,
    query: Linear<O>,
    key: Linear<O>,
    value: Linear<O>,
    query_norm: Option<O::Vector>,
    key_norm: Option<O::Vector>,
    output: Linear<O>,
    /// Norm of what attention gives, before it is added (Gemma 2, 3).
    after_attention: Option<O::Vector>,
    feed_norm: O::Vector,
    gate: Linear<O>,
    up: Linear<O>,
    down: Linear<O>,
    /// Norm of what the feed-forward layer gives, before it is added (Gemma 2, 3).
    after_feed: Option<O::Vector>,
}

/// What is computed once for all layers of a step.
struct Step {
    start: usize,
    everywhere: Angles,
    sliding: Angles,
}

impl<O: Ops> Decoder<O> {
    pub fn load(ops: O, config: &Config, header: &Header, source: &Source) -> Result<Self> {
        let loader = Loader { ops: &ops, config, header, source };
        let width = config.embedding_length;
        let table = need(header, "token_embd.weight", &[width, config.vocab_size])?;
        let head = find(header, "output.weight", &[width, config.vocab_size])?;
        Ok(Self {
            embedding: ops.matrix(source, &table, 0..table.rows)?,
            blocks: (0..config.block_count).map(|index| loader.block(index)).collect::<Result<_>>()?,
            norm: loader.vector("output_norm.weight", width)?,
            head: head.map(|head| ops.matrix(source, &head, 0..head.rows)).transpose()?,
            ropes: Ropes::load(config, header, source)?,
            ops,
        })
    }

    /// Room for `capacity` tokens in every layer, of which sliding ones need `sliding_slots` only.
    pub fn stores(&self, config: &Config, capacity: usize, sliding_slots: usize) -> Result<Vec<O::Store>> {
        let slots = |layer| if config.is_sliding(layer) && self.ops.keeps_rings() { sliding_slots } else { capacity };
        let room = |layer| Room { slots: slots(layer), head_count_kv: config.head_count_kv, head_length: config.head_length };
        (0..config.block_count).map(|layer| self.ops.store(room(layer))).collect()
    }

    /// Runs the blocks over tokens that stand at `start` and after, in a sequence that may become `capacity` tokens long. The answer
    /// has one row for each.
    pub fn hidden(&self, config: &Config, tokens: &[u32], start: usize, capacity: usize, stores: &mut [O::Store]) -> Result<O::Rows> {
        let rope = self.ropes.for_length(capacity);
        let angles = |sliding| rope.angles(sliding, start, tokens.len());
        let step = Step { start, everywhere: angles(false), sliding: angles(true) };
        let mut x = self.ops.embed(&self.embedding, tokens, config.embedding_scale)?;
        for (layer, (block, store)) in self.blocks.iter().zip(stores).enumerate() {
            x = self.attention(config, block, layer, x, &step, store)?;
            x = self.feed_forward(config, block, x)?;
        }
        Ok(x)
    }

    /// The logits of the last row of what [`Decoder::hidden`] gave.
    pub fn last_logits(&self, config: &Config, x: &O::Rows) -> Result<Vec<f32>> {
        self.logits(config, &self.ops.last(x)?)
    }

    /// The logits of every row, one after the other.
    pub fn logits(&self, config: &Config, x: &O::Rows) -> Result<Vec<f32>> {
        let x = self.ops.norm(x, &self.norm, config.norm_epsilon)?;
        self.ops.logits(&x, self.head.as_ref().unwrap_or(&self.embedding), config.logit_softcap)
    }

    fn attention(&self, config: &Config, block: &Block<O>, layer: usize, x: O::Rows, step: &Step, store: &mut O::Store) -> Result<O::Rows> {
        let ops = &self.ops;
        let angles = if config.is_sliding(layer) { &step.sliding } else { &step.everywhere };
        let place = |head: O::Rows, norm: &Option<O::Vector>| {
            let head = if let Some(norm) = norm { ops.norm_heads(head, norm, config.norm_epsilon)? } else { head };
            ops.rotate(head, angles, config.head_length, config.rope.pairing)
        };
        let normed = ops.norm(&x, &block.attention_norm, config.norm_epsilon)?;
        let [query, key, value] = ops.project(&normed, [&block.query, &block.key, &block.value])?;
        let (query, key) = (place(query, &block.query_norm)?, place(key, &block.key_norm)?);
        let seen = ops.attend([query, key, value], store, &Attention::new(config, layer, step.start))?;
        let [out] = ops.project(&seen, [&block.output])?;
        self.add(config, x, out, block.after_attention.as_ref())
    }

    fn feed_forward(&self, config: &Config, block: &Block<O>, x: O::Rows) -> Result<O::Rows> {
        let normed = self.ops.norm(&x, &block.feed_norm, config.norm_epsilon)?;
        let inner = self.ops.gated(&normed, &block.gate, &block.up, config.activation)?;
        let [out] = self.ops.project(&inner, [&block.down])?;
        self.add(config, x, out, block.after_feed.as_ref())
    }

    fn add(&self, config: &Config, x: O::Rows, out: O::Rows, norm: Option<&O::Vector>) -> Result<O::Rows> {
        let out = if let Some(norm) = norm { self.ops.norm(&out, norm, config.norm_epsilon)? } else { out };
        self.ops.add(x, &out)
    }
}

struct Loader<'a, O> {
    ops: &'a O,
    config: &'a Config,
    header: &'a Header,
    source: &'a Source,
}

impl<O: Ops> Loader<'_, O> {
    fn block(&self, index: usize) -> Result<Block<O>> {
        let Config { embedding_length: width, feed_forward_length: inner, head_length, .. } = *self.config;
        let name = |part: &str| format!("blk.{index}.{part}");
        let [query, key, value] = self.qkv(&name)?;
        let [gate, up] = self.gate_and_up(&name, inner)?;
        Ok(Block {
            attention_norm: self.vector(&name("attn_norm.weight"), width)?,
            query,
            key,
            value,
            query_norm: self.optional_vector(&name("attn_q_norm.weight"), head_length)?,
            key_norm: self.optional_vector(&name("attn_k_norm.weight"), head_length)?,
            output: self.linear(&name("attn_output"), self.config.query_length(), width)?,
            after_attention: self.optional_vector(&name("post_attention_norm.weight"), width)?,
            feed_norm: self.vector(&name("ffn_norm.weight"), width)?,
            gate,
            up,
            down: self.linear(&name("ffn_down"), inner, width)?,
            after_feed: self.optional_vector(&name("post_ffw_norm.weight"), width)?,
        })
    }

    /// Three matrices, or one with their rows below each other.
    fn qkv(&self, name: &impl Fn(&str) -> String) -> Result<[Linear<O>; 3]> {
        let (width, query, kv) = (self.config.embedding_length, self.config.query_length(), self.config.kv_length());
        let fused = name("attn_qkv");
        if self.header.tensor(&format!("{fused}.weight")).is_none() {
            return Ok([
                self.linear(&name("attn_q"), width, query)?,
                self.linear(&name("attn_k"), width, kv)?,
                self.linear(&name("attn_v"), width, kv)?,
            ]);
        }
        let rows = query + 2 * kv;
        let part = |range| self.part(&fused, width, rows, range);
        Ok([part(0..query)?, part(query..query + kv)?, part(query + kv..rows)?])
    }

    /// Two matrices, or one with the gate's rows above the other's (Phi 3).
    fn gate_and_up(&self, name: &impl Fn(&str) -> String, inner: usize) -> Result<[Linear<O>; 2]> {
        let width = self.config.embedding_length;
        let (gate, up) = (name("ffn_gate"), name("ffn_up"));
        if self.header.tensor(&format!("{gate}.weight")).is_some() {
            return Ok([self.linear(&gate, width, inner)?, self.linear(&up, width, inner)?]);
        }
        Ok([self.part(&up, width, 2 * inner, 0..inner)?, self.part(&up, width, 2 * inner, inner..2 * inner)?])
    }

    fn linear(&self, name: &str, columns: usize, rows: usize) -> Result<Linear<O>> {
        self.part(name, columns, rows, 0..rows)
    }

    /// `range` of the rows of a matrix, and of its bias if it has one.
    fn part(&self, name: &str, columns: usize, rows: usize, range: Range<usize>) -> Result<Linear<O>> {
        let matrix = need(self.header, &format!("{name}.weight"), &[columns, rows])?;
        let bias = find(self.header, &format!("{name}.bias"), &[rows])?;
        Ok(Linear {
            matrix: self.ops.matrix(self.source, &matrix, range.clone())?,
            bias: bias.map(|bias| self.ops.vector(self.source, &bias, range)).transpose()?,
        })
    }

    fn vector(&self, name: &str, length: usize) -> Result<O::Vector> {
        self.ops.vector(self.source, &need(self.header, name, &[length])?, 0..length)
    }

    fn optional_vector(&self, name: &str, length: usize) -> Result<Option<O::Vector>> {
        let tensor = find(self.header, name, &[length])?;
        tensor.map(|tensor| self.ops.vector(self.source, &tensor, 0..length)).transpose()
    }
}

/// `range` of the numbers of a vector.
pub(super) fn numbers(source: &Source, tensor: &Tensor, range: Range<usize>) -> Vec<f32> {
    let mut all = vec![0.0; tensor.columns];
    super::cpu::kernels::unpack_row_of(super::cpu::kernels::Isa::detect(), tensor.kind, source.bytes(tensor, 0..1), &mut all);
    all[range].to_vec()
}
