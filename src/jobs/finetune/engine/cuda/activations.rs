//! Memory for what is computed on the way: allocated once for batches of some size, and used again by every layer and every batch.

use super::block::Block;
use super::error::Result;
use super::gpu::{Buffer, Gpu};
use super::linear::{Linear, Scratch};
use super::shape::Shape;

/// What is kept of a layer's forward pass for the way back, besides its input.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Keep {
    /// Nothing: all is computed again.
    Input,
    /// What attention gave, and the residual stream behind it.
    Attention,
    /// All that is not made again by reading it once.
    All,
}

/// One layer's.
pub struct Kept {
    /// The residual stream: tokens × hidden.
    pub input: Buffer<u16>,
    pub attention: Option<Attended>,
    pub projections: Option<Projections>,
}

/// Of attention.
pub struct Attended {
    /// tokens × (queries + room)
    pub out: Buffer<u16>,
    /// ln Σ exp: heads × tokens
    pub sums: Buffer<f32>,
    /// The residual stream behind attention: tokens × hidden
    pub middle: Buffer<u16>,
}

/// Of the wide products.
pub struct Projections {
    /// Queries, keys and values; where heads are not normalised, they are rotated already.
    pub qkv: Buffer<u16>,
    /// Gate and up, with room for their gradients' adapters.
    pub both: Buffer<u16>,
}

impl Attended {
    fn new(gpu: &Gpu, shape: &Shape, room: usize, tokens: usize) -> Result<Self> {
        Ok(Self {
            out: gpu.uninitialised(tokens * (shape.queries() + room))?,
            sums: gpu.uninitialised(tokens * shape.heads)?,
            middle: gpu.uninitialised(tokens * shape.hidden)?,
        })
    }
}

impl Projections {
    fn new(gpu: &Gpu, shape: &Shape, room: usize, tokens: usize) -> Result<Self> {
        Ok(Self { qkv: gpu.uninitialised(tokens * shape.projected())?, both: gpu.uninitialised(tokens * (2 * shape.feed_forward + room))? })
    }
}

impl Kept {
    pub fn new(gpu: &Gpu, shape: &Shape, block: &Block, keep: Keep, tokens: usize) -> Result<Self> {
        let attention = (keep != Keep::Input).then(|| Attended::new(gpu, shape, block.output.room, tokens)).transpose()?;
        let projections = (keep == Keep::All).then(|| Projections::new(gpu, shape, block.gate_up.room, tokens)).transpose()?;
        Ok(Self { input: gpu.uninitialised(tokens * shape.hidden)?, attention, projections })
    }
}

/// What one layer needs at a time.
pub struct Workspace {
    /// The normalised inputs of attention, and of the feed-forward layer.
    pub x1: Buffer<u16>,
    pub x2: Buffer<u16>,
    pub attended: Attended,
    pub projections: Projections,
    /// Queries and keys, normalised and rotated, where heads are normalised.
    pub rotated: Buffer<u16>,
    /// activation(gate) · up
    pub inner: Buffer<u16>,
    /// What a half of a layer adds to the residual stream, before and after a norm of its own.
    pub branch: Buffer<u16>,
    pub normed: Buffer<u16>,
    /// Gradients: of the residual stream, of whatever a product reads, of queries, keys and values, of normalised inputs.
    pub grad: Buffer<u16>,
    pub d_inner: Buffer<u16>,
    pub d_qkv: Buffer<u16>,
    pub d_x: Buffer<u16>,
    /// Of what a half of a layer gave, where a norm of its own comes behind it.
    pub d_branch: Buffer<u16>,
    /// Gradient times output, of every query and head.
    pub deltas: Buffer<f32>,
    pub scratch: Scratch,
    /// From row to row of `grad`.
    pub grad_stride: usize,
    pub tokens: usize,
}

impl Workspace {
    pub fn new(gpu: &Gpu, shape: &Shape, blocks: &[Block], tokens: usize) -> Result<Self> {
        let room = |of: fn(&Block) -> &Linear| blocks.iter().map(|block| of(block).room).max().unwrap_or(0);
        let (qkv, output) = (room(|block| &block.qkv), room(|block| &block.output));
        let (gate_up, down) = (room(|block| &block.gate_up), room(|block| &block.down));
        let normed = blocks.iter().any(|block| block.attention_post_norm.is_some() || block.feed_forward_post_norm.is_some());
        let heads_normed = blocks.iter().any(|block| block.head_norms.is_some());
        let grad_stride = shape.hidden + output.max(down);
        let half = |columns: usize| gpu.uninitialised::<u16>(tokens * columns);
        Ok(Self {
            x1: half(shape.hidden + qkv)?,
            x2: half(shape.hidden + gate_up)?,
            attended: Attended::new(gpu, shape, output, tokens)?,
            projections: Projections::new(gpu, shape, gate_up, tokens)?,
            rotated: half(if heads_normed { shape.queries() + shape.keys() } else { 0 })?,
            inner: half(shape.feed_forward + down)?,
            branch: half(shape.hidden)?,
            normed: half(if normed { shape.hidden } else { 0 })?,
            grad: half(grad_stride)?,
            d_inner: half(shape.feed_forward.max(shape.queries() + output))?,
            d_qkv: half(shape.projected() + qkv)?,
            d_x: half(shape.hidden)?,
            d_branch: half(if normed { grad_stride } else { 0 })?,
            deltas: gpu.uninitialised(tokens * shape.heads)?,
            scratch: Scratch::new(gpu, blocks.iter().flat_map(Block::linears))?,
            grad_stride,
            tokens,
        })
    }
}
