//! Frozen linear layers and their adapters at work on a batch.

use std::ops::Range;

use super::super::error::Result;
use super::super::gpu::{Buffer, Gpu, Rows};
use super::super::kernels;
use super::super::product::{Operand, Output, Size};
use super::{Linear, Pair, lengths};
use crate::jobs::finetune::learner::Pass;

/// The batch, and memory to work in.
#[derive(Clone, Copy)]
pub struct Work<'a> {
    pub gpu: &'a Gpu,
    pub tokens: usize,
    /// Where something is to be dropped.
    pub pass: Option<Pass>,
    pub scratch: &'a Scratch,
}

/// Room for one layer's adapters at work.
pub struct Scratch {
    /// Their gradients, until they are added to where they belong; products of W and A with A; sums.
    pub a: Buffer<f32>,
    pub b: Buffer<f32>,
    /// What is left of inputs of which some are dropped, and gradients of such.
    left: Buffer<u16>,
    /// Outputs of some tokens before they are scaled, and gradients of such.
    pub outputs: Buffer<u16>,
}

/// Numbers in each buffer of it.
#[derive(Default)]
struct Sizes {
    a: usize,
    b: usize,
    left: usize,
    outputs: usize,
}

impl Scratch {
    /// For any of these layers, and so many tokens.
    pub fn new<'a>(gpu: &Gpu, layers: impl Iterator<Item = &'a Linear>, tokens: usize) -> Result<Self> {
        let Sizes { a, b, left, outputs } = Self::sizes(layers, tokens);
        Ok(Self {
            a: gpu.uninitialised(a)?,
            b: gpu.uninitialised(b)?,
            left: gpu.uninitialised(left)?,
            outputs: gpu.uninitialised(outputs)?,
        })
    }

    /// Bytes that [`Scratch::new`] takes.
    pub fn bytes<'a>(layers: impl Iterator<Item = &'a Linear>, tokens: usize) -> usize {
        let Sizes { a, b, left, outputs } = Self::sizes(layers, tokens);
        4 * (a + b) + 2 * (left + outputs)
    }

    fn sizes<'a>(layers: impl Iterator<Item = &'a Linear>, tokens: usize) -> Sizes {
        let mut sizes = Sizes::default();
        for layer in layers.filter(|layer| layer.room > 0) {
            sizes.a = sizes.a.max(layer.room * layer.inputs.max(layer.room));
            sizes.b = sizes.b.max(layer.room * layer.outputs);
            if layer.how.dropout > 0.0 {
                sizes.left = sizes.left.max(tokens * layer.inputs);
            }
            if layer.is_weighed() {
                sizes.outputs = sizes.outputs.max(tokens.min(lengths::TOKENS) * layer.outputs);
            }
        }
        sizes
    }
}

impl Linear {
    /// Room for what is left of inputs.
    pub(super) fn left<'a>(&self, work: Work<'a>) -> Rows<'a> {
        Rows::new(&work.scratch.left, self.inputs)
    }

    /// Calls with the columns of room of adapters and what these read: all at once, or each with what is left of x for it.
    fn read_by_adapters(&self, work: Work<'_>, x: Rows<'_>, call: impl Fn(Range<usize>, Rows<'_>) -> Result<()>) -> Result<()> {
        let (drops, left) = (self.drops(work), self.left(work));
        if drops.is_empty() {
            return call(0..self.room, x);
        }
        for drop in drops {
            drop.apply(work, self.inputs, x, left)?;
            call(drop.columns, left)?;
        }
        Ok(())
    }

    /// Writes x·Aᵀ behind x.
    pub fn lower(&self, work: Work<'_>, x: Rows<'_>) -> Result<()> {
        self.read_by_adapters(work, x, |columns, from| {
            let size = Size { rows: work.tokens, columns: columns.len(), inner: self.inputs };
            let a = Operand::transposed(self.rows(self.outputs + columns.start));
            work.gpu.product(size, Operand::plain(from), a, Output::half(x.column(self.inputs + columns.start)))
        })
    }

    /// The outputs, from x with x·Aᵀ behind it.
    pub fn forward(&self, work: Work<'_>, x: Rows<'_>, out: Rows<'_>) -> Result<()> {
        let size = Size { rows: work.tokens, columns: self.outputs, inner: self.inputs + self.room };
        work.gpu.product(size, Operand::plain(x), Operand::transposed(self.rows(0)), Output::half(out))
    }

    /// Writes g·s·B behind g.
    pub fn lower_grad(&self, work: Work<'_>, grad: Rows<'_>) -> Result<()> {
        let size = Size { rows: work.tokens, columns: self.room, inner: self.outputs };
        let b = Operand::plain(self.rows(0).column(self.inputs));
        work.gpu.product(size, Operand::plain(grad), b, Output::half(grad.column(self.outputs)))
    }

    /// Some columns of a gradient, or of what lies behind it, times the same rows of the widened matrix.
    fn back(&self, work: Work<'_>, grad: Rows<'_>, rows: Range<usize>, out: Rows<'_>) -> Result<()> {
        let size = Size { rows: work.tokens, columns: self.inputs, inner: rows.len() };
        let (grad, weights) = (Operand::plain(grad.column(rows.start)), Operand::plain(self.rows(rows.start)));
        work.gpu.product(size, grad, weights, Output::half(out))
    }

    /// Where something is dropped: what W alone says of the gradient of x, from that of the outputs as they came out.
    pub fn backward_frozen(&self, work: Work<'_>, grad: Rows<'_>, out: Rows<'_>, adapters: &[Option<Pair>]) -> Result<()> {
        if self.drops(work).is_empty() {
            return Ok(());
        }
        self.back(work, grad, 0..self.outputs, out)?;
        self.backward_left(work, grad, out, adapters)
    }

    /// The gradient of x, from g with g·s·B behind it; where something is dropped, added to what [`Linear::backward_frozen`] gave.
    pub fn backward(&self, work: Work<'_>, grad: Rows<'_>, out: Rows<'_>) -> Result<()> {
        let (drops, left) = (self.drops(work), self.left(work));
        if drops.is_empty() {
            return self.back(work, grad, 0..self.outputs + self.room, out);
        }
        for drop in drops {
            self.back(work, grad, self.outputs + drop.columns.start..self.outputs + drop.columns.end, left)?;
            drop.add(work, self.inputs, left, out)?;
        }
        Ok(())
    }

    /// Adds the gradients of the adapters of all parts, `into` in their order, from x and g with what lies behind them.
    pub fn accumulate(&self, work: Work<'_>, (x, grad): (Rows<'_>, Rows<'_>), into: &[Option<Pair>]) -> Result<()> {
        if self.room == 0 || into.iter().all(Option::is_none) {
            return Ok(());
        }
        let Work { gpu, tokens, scratch, .. } = work;
        self.read_by_adapters(work, x, |columns, from| {
            let size = Size { rows: columns.len(), columns: self.inputs, inner: tokens };
            let lowered = Operand::transposed(grad.column(self.outputs + columns.start));
            gpu.product(size, lowered, Operand::plain(from), Output::single(&scratch.a, self.inputs).row(columns.start))
        })?;
        let size = Size { rows: self.outputs, columns: self.room, inner: tokens };
        let lowered = Operand::plain(x.column(self.inputs));
        gpu.product(size, Operand::transposed(grad), lowered, Output::single(&scratch.b, self.room))?;
        for (part, pair) in self.parts.iter().zip(into) {
            let Some(pair) = pair else { continue };
            let from = (&scratch.a, part.first * self.inputs, self.inputs);
            kernels::add_block(gpu, from, pair.a, part.rank, self.inputs, 1.0)?;
            let from = (&scratch.b, part.outputs.start * self.room + part.first, self.room);
            kernels::add_block(gpu, from, pair.b, part.outputs.len(), part.rank, part.scale)?;
        }
        Ok(())
    }
}
