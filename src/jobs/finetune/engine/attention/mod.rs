//! Attention of every token of a row to those before it in the same row.
//!
//! Scores are made for some queries at a time and never kept: the way back makes them again. Keys and values that several heads share are
//! not repeated.

mod composed;
mod fused;

pub use composed::QUERIES as COMPOSED_QUERIES;
pub use fused::QUERIES;

use std::ops::Range;

use candle_core::{Result, Tensor};

use super::compute::Compute;
use crate::lm::Config;

/// How a layer attends.
#[derive(Debug, Clone, Copy)]
pub struct How {
    /// Tokens seen, the current one included.
    pub window: Option<usize>,
    pub scale: f32,
    /// Scores are kept within this by tanh.
    pub softcap: Option<f32>,
    pub heads: usize,
    pub kv_heads: usize,
    pub head_length: usize,
}

impl How {
    pub fn new(config: &Config, layer: usize) -> Self {
        Self {
            window: config.window.filter(|_| config.is_sliding(layer)).map(|window| window.size),
            scale: config.attention_scale,
            softcap: config.attention_softcap,
            heads: config.head_count,
            kv_heads: config.head_count_kv,
            head_length: config.head_length,
        }
    }

    /// The key and value head of a query head.
    fn shared(&self, head: usize) -> usize {
        head / (self.heads / self.kv_heads)
    }

    /// What a token of a row sees of it.
    fn seen(&self, token: usize) -> Range<usize> {
        self.window.map_or(0, |window| (token + 1).saturating_sub(window))..token + 1
    }

    /// What some tokens of a row see of it, together.
    fn seen_by(&self, tokens: &Range<usize>) -> Range<usize> {
        self.seen(tokens.start).start..tokens.end
    }
}

/// The places of rows in a batch.
fn rows(starts: &[usize]) -> impl Iterator<Item = Range<usize>> + '_ {
    starts.windows(2).map(|ends| ends[0]..ends[1])
}

/// What every token makes of what it sees. `starts`: where rows begin, and the end of the last.
pub fn forward(compute: &Compute, how: &How, starts: &[usize], qkv: [&Tensor; 3]) -> Result<Tensor> {
    if compute.fused { fused::forward(compute, how, starts, qkv) } else { composed::forward(compute, how, starts, qkv) }
}

/// The gradients of queries, keys and values.
pub fn backward(compute: &Compute, how: &How, starts: &[usize], qkv: [&Tensor; 3], dy: &Tensor) -> Result<[Tensor; 3]> {
    if compute.fused { fused::backward(compute, how, starts, qkv, dy) } else { composed::backward(compute, how, starts, qkv, dy) }
}
