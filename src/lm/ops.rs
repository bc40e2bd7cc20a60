//! What a decoder does to numbers, apart from where that happens.
//!
//! [`super::decoder`] is written once over this trait. `cpu` implements it with the kernels of this crate, `candle` with candle's
//! tensors on an accelerator. Operations are coarse, so that an implementation can fuse what is behind them.

use std::ops::Range;

use super::config::{Activation, Config, Pairing};
use super::error::Result;
use super::rope::Angles;
use super::weights::{Source, Tensor};

/// A matrix and what is added to its products.
#[derive(Debug)]
pub struct Linear<O: Ops + ?Sized> {
    pub matrix: O::Matrix,
    pub bias: Option<O::Vector>,
}

/// How one layer attends.
#[derive(Debug, Clone, Copy)]
pub struct Attention {
    /// Position of the first token.
    pub start: usize,
    /// Tokens seen, the current one included.
    pub window: Option<usize>,
    pub scale: f32,
    pub softcap: Option<f32>,
    pub head_count: usize,
    pub head_count_kv: usize,
    pub head_length: usize,
}

/// How many tokens a layer's cache holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Room {
    /// Token `p` is kept in slot `p % slots`.
    pub slots: usize,
    pub head_count_kv: usize,
    pub head_length: usize,
}

/// The operations. A `Rows` is a matrix of activations, one row for each token.
pub trait Ops {
    type Rows;
    type Matrix: std::fmt::Debug;
    type Vector: std::fmt::Debug;
    /// Keys and values of one layer.
    type Store;

    /// Takes `rows` of a matrix into use.
    fn matrix(&self, source: &Source, tensor: &Tensor, rows: Range<usize>) -> Result<Self::Matrix>;
    /// Takes `range` of a vector into use.
    fn vector(&self, source: &Source, tensor: &Tensor, range: Range<usize>) -> Result<Self::Vector>;
    /// Whether layers that slide may keep no more than they see.
    fn keeps_rings(&self) -> bool;
    fn store(&self, room: Room) -> Result<Self::Store>;

    /// Rows of the table, times `scale`.
    fn embed(&self, table: &Self::Matrix, tokens: &[u32], scale: f32) -> Result<Self::Rows>;
    /// RMS norm of each row.
    fn norm(&self, x: &Self::Rows, weight: &Self::Vector, epsilon: f32) -> Result<Self::Rows>;
    /// RMS norm of each head of each row.
    fn norm_heads(&self, x: Self::Rows, weight: &Self::Vector, epsilon: f32) -> Result<Self::Rows>;
    /// Rotary embedding of each head of each row.
    fn rotate(&self, x: Self::Rows, angles: &Angles, head_length: usize, pairing: Pairing) -> Result<Self::Rows>;
    /// Products with several matrices.
    fn project<const N: usize>(&self, x: &Self::Rows, with: [&Linear<Self>; N]) -> Result<[Self::Rows; N]>;
    /// Stores keys and values, then attends.
    fn attend(&self, qkv: [Self::Rows; 3], store: &mut Self::Store, how: &Attention) -> Result<Self::Rows>;
    /// `activation(gate · x) · (up · x)`.
    fn gated(&self, x: &Self::Rows, gate: &Linear<Self>, up: &Linear<Self>, activation: Activation) -> Result<Self::Rows>;
    fn add(&self, sum: Self::Rows, x: &Self::Rows) -> Result<Self::Rows>;
    /// The last row alone.
    fn last(&self, x: &Self::Rows) -> Result<Self::Rows>;
    /// The products of each row with the head, capped, row after row.
    fn logits(&self, x: &Self::Rows, head: &Self::Matrix, softcap: Option<f32>) -> Result<Vec<f32>>;
}

impl Attention {
    pub fn new(config: &Config, layer: usize, start: usize) -> Self {
        Self {
            start,
            window: config.window.filter(|_| config.is_sliding(layer)).map(|window| window.size),
            scale: config.attention_scale,
            softcap: config.attention_softcap,
            head_count: config.head_count,
            head_count_kv: config.head_count_kv,
            head_length: config.head_length,
        }
    }

    /// The first position that the token at `position` sees.
    pub fn first_seen(&self, position: usize) -> usize {
        self.window.map_or(0, |window| (position + 1).saturating_sub(window))
    }
}
