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

/// What is kept of which layer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Plan {
    Fixed(Vec<Keep>),
    /// As much as there is memory for.
    Auto,
}

impl Keep {
    /// Bytes for each token besides the layer's input.
    pub fn more_per_token(self, shape: &Shape, block: &Block) -> usize {
        let attended = 2 * (shape.queries() + block.output.room + shape.hidden) + 4 * shape.heads;
        let projections = 2 * (shape.projected() + 2 * shape.feed_forward + block.gate_up.room);
        match self {
            Self::Input => 0,
            Self::Attention => attended,
            Self::All => attended + projections,
        }
    }
}

impl Plan {
    /// Of each layer. `room`: bytes besides what is needed in any case.
    pub fn keep(&self, shape: &Shape, blocks: &[Block], tokens: usize, room: usize) -> Vec<Keep> {
        let Self::Auto = self else { return self.fixed() };
        let more = |block: &Block| [Keep::Attention, Keep::All].map(|keep| keep.more_per_token(shape, block) * tokens);
        most(room, &blocks.iter().map(more).collect::<Vec<_>>())
    }

    fn fixed(&self) -> Vec<Keep> {
        match self {
            Self::Fixed(keep) => keep.clone(),
            Self::Auto => Vec::new(),
        }
    }
}

/// What attention gave, of as many layers as there is room for, and then all, since the first spares more work for each byte. `bytes`: what
/// either takes in each layer.
fn most(mut room: usize, bytes: &[[usize; 2]]) -> Vec<Keep> {
    type Cost = fn(&[usize; 2]) -> usize;
    let mut all = vec![Keep::Input; bytes.len()];
    let steps: [(Keep, Cost); 2] = [(Keep::Attention, |bytes| bytes[0]), (Keep::All, |bytes| bytes[1] - bytes[0])];
    for (better, cost) in steps {
        for (keep, bytes) in all.iter_mut().zip(bytes) {
            let Some(left) = room.checked_sub(cost(bytes)) else { return all };
            (*keep, room) = (better, left);
        }
    }
    all
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

    pub fn keep(&self) -> Keep {
        match (&self.attention, &self.projections) {
            (None, _) => Keep::Input,
            (Some(_), None) => Keep::Attention,
            (Some(_), Some(_)) => Keep::All,
        }
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
    /// Of what a half of a layer gave, where a norm of its own comes behind it, or DoRA scales it.
    pub d_branch: Buffer<u16>,
    /// Gradient times output, of every query and head.
    pub deltas: Buffer<f32>,
    pub scratch: Scratch,
    /// From row to row of `grad`.
    pub grad_stride: usize,
    pub tokens: usize,
}

/// Numbers of a row of each buffer, and the room for adapters behind outputs of attention, and behind gates.
struct Widths {
    x1: usize,
    x2: usize,
    rotated: usize,
    inner: usize,
    normed: usize,
    grad: usize,
    d_inner: usize,
    d_qkv: usize,
    d_branch: usize,
    output: usize,
    gate_up: usize,
}

impl Widths {
    fn new(shape: &Shape, blocks: &[Block]) -> Self {
        let room = |of: fn(&Block) -> &Linear| blocks.iter().map(|block| of(block).room).max().unwrap_or(0);
        let (qkv, output) = (room(|block| &block.qkv), room(|block| &block.output));
        let (gate_up, down) = (room(|block| &block.gate_up), room(|block| &block.down));
        let normed = blocks.iter().any(|block| block.attention_post_norm.is_some() || block.feed_forward_post_norm.is_some());
        let weighed = blocks.iter().flat_map(Block::linears).any(Linear::is_weighed);
        let heads_normed = blocks.iter().any(|block| block.head_norms.is_some());
        let grad = shape.hidden + output.max(down);
        Self {
            x1: shape.hidden + qkv,
            x2: shape.hidden + gate_up,
            rotated: if heads_normed { shape.queries() + shape.keys() } else { 0 },
            inner: shape.feed_forward + down,
            normed: if normed { shape.hidden } else { 0 },
            grad,
            d_inner: shape.feed_forward.max(shape.queries() + output),
            d_qkv: shape.projected() + qkv,
            d_branch: if normed || weighed { grad } else { 0 },
            output,
            gate_up,
        }
    }
}

impl Workspace {
    pub fn new(gpu: &Gpu, shape: &Shape, blocks: &[Block], tokens: usize) -> Result<Self> {
        let widths = Widths::new(shape, blocks);
        let half = |columns: usize| gpu.uninitialised::<u16>(tokens * columns);
        Ok(Self {
            x1: half(widths.x1)?,
            x2: half(widths.x2)?,
            attended: Attended::new(gpu, shape, widths.output, tokens)?,
            projections: Projections::new(gpu, shape, widths.gate_up, tokens)?,
            rotated: half(widths.rotated)?,
            inner: half(widths.inner)?,
            branch: half(shape.hidden)?,
            normed: half(widths.normed)?,
            grad: half(widths.grad)?,
            d_inner: half(widths.d_inner)?,
            d_qkv: half(widths.d_qkv)?,
            d_x: half(shape.hidden)?,
            d_branch: half(widths.d_branch)?,
            deltas: gpu.uninitialised(tokens * shape.heads)?,
            scratch: Scratch::new(gpu, blocks.iter().flat_map(Block::linears), tokens)?,
            grad_stride: widths.grad,
            tokens,
        })
    }

    /// Bytes that [`Workspace::new`] takes.
    pub fn bytes(shape: &Shape, blocks: &[Block], tokens: usize) -> usize {
        let widths = Widths::new(shape, blocks);
        let Widths { x1, x2, rotated, inner, normed, grad, d_inner, d_qkv, d_branch, output, gate_up } = widths;
        let own = x1 + x2 + rotated + inner + normed + grad + d_inner + d_qkv + d_branch + 2 * shape.hidden;
        let attended = shape.queries() + output + shape.hidden;
        let projections = shape.projected() + 2 * shape.feed_forward + gate_up;
        tokens * (2 * (own + attended + projections) + 8 * shape.heads) + Scratch::bytes(blocks.iter().flat_map(Block::linears), tokens)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_spares_most_work_for_its_memory_is_kept_first() {
        use Keep::{All, Attention, Input};
        let layers = [[2, 10]; 3];
        for (room, kept) in
            [(0, [Input; 3]), (5, [Attention, Attention, Input]), (6, [Attention; 3]), (22, [All, All, Attention]), (30, [All; 3])]
        {
            assert_eq!(most(room, &layers), kept, "{room}");
        }
    }
}
