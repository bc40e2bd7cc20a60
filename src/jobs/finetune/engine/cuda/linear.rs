//! A frozen linear layer with LoRA in one matrix.
//!
//! The adapter is part of the weights: with W (outputs × inputs), A (rank × inputs), B (outputs × rank), the matrix that lies in memory is
//!
//! ```text
//! W  s·B      outputs rows
//! A   0       as many rows as there are columns beside W
//! ```
//!
//! and activations have as many columns of room behind them. x·Aᵀ is written into that room, then [x u]·[W s·B]ᵀ is the whole layer in one
//! product; on the way back g·s·B is written behind g, and [g d]·[W; A] is the whole gradient of x. On an H200 the wider products cost 1 %,
//! where reading and writing the outputs again for an adapter of their own costs 4 to 16 %.
//!
//! Several matrices that read the same input (queries, keys, values; gate, up) are one; each has its own adapter, or none.

use std::ops::Range;

use super::error::Result;
use super::gpu::{Buffer, Gpu, Operand, Output, Rows, Size};
use super::kernels;

/// One of the matrices that are one, and its adapter.
#[derive(Debug, Clone, PartialEq)]
pub struct Part {
    pub outputs: Range<usize>,
    /// 0: no adapter.
    pub rank: usize,
    /// What B·A·x is multiplied with.
    pub scale: f32,
    /// Of A's rows, and of B's columns.
    first: usize,
}

/// An adapter of a part, or its gradients: where they lie in single precision, rows behind each other.
#[derive(Debug, Clone, Copy)]
pub struct Pair {
    /// rank × inputs
    pub a: u64,
    /// outputs × rank
    pub b: u64,
}

/// Room for the gradients of a layer's adapters, until they are added to where they belong.
pub struct Scratch {
    a: Buffer<f32>,
    b: Buffer<f32>,
}

impl Scratch {
    /// For any of these layers.
    pub fn new<'a>(gpu: &Gpu, layers: impl Iterator<Item = &'a Linear>) -> Result<Self> {
        let (mut a, mut b) = (0, 0);
        for layer in layers {
            a = a.max(layer.room * layer.inputs);
            b = b.max(layer.room * layer.outputs);
        }
        Ok(Self { a: gpu.uninitialised(a)?, b: gpu.uninitialised(b)? })
    }
}

pub struct Linear {
    weight: Buffer<u16>,
    pub inputs: usize,
    pub outputs: usize,
    /// Columns behind the inputs, and behind the outputs: a multiple of 64, which is what products are cut into.
    pub room: usize,
    pub parts: Vec<Part>,
}

impl Linear {
    /// For matrices of so many outputs, each with the rank and scale of its adapter. Weights are yet to be placed; there is no adapter.
    pub fn new(gpu: &Gpu, inputs: usize, parts: &[(usize, usize, f32)]) -> Result<Self> {
        let (mut outputs, mut ranks) = (0, 0);
        let place = |&(count, rank, scale): &(usize, usize, f32)| {
            let part = Part { outputs: outputs..outputs + count, rank, scale, first: ranks };
            outputs += count;
            ranks += rank;
            part
        };
        let parts = parts.iter().map(place).collect();
        let room = ranks.next_multiple_of(64);
        let weight = gpu.zeros((outputs + room) * (inputs + room))?;
        Ok(Self { weight, inputs, outputs, room, parts })
    }

    /// From an output's row on.
    #[must_use]
    pub fn rows(&self, from: usize) -> Rows<'_> {
        Rows::new(&self.weight, self.inputs + self.room).row(from)
    }

    /// Numbers from row to row in buffers of inputs, and of gradients of outputs.
    #[must_use]
    pub fn strides(&self) -> (usize, usize) {
        (self.inputs + self.room, self.outputs + self.room)
    }

    /// Takes over an adapter.
    pub fn set(&self, gpu: &Gpu, part: &Part, adapter: Pair) -> Result<()> {
        kernels::place_block(gpu, adapter.a, self.rows(self.outputs + part.first), part.rank, self.inputs, 1.0)?;
        let b = self.rows(part.outputs.start).column(self.inputs + part.first);
        kernels::place_block(gpu, adapter.b, b, part.outputs.len(), part.rank, part.scale)
    }

    /// Writes x·Aᵀ behind x.
    pub fn lower(&self, gpu: &Gpu, x: Rows<'_>, tokens: usize) -> Result<()> {
        let size = Size { rows: tokens, columns: self.room, inner: self.inputs };
        let a = Operand::transposed(self.rows(self.outputs));
        gpu.product(size, Operand::plain(x), a, Output::half(x.column(self.inputs)))
    }

    /// The outputs, from x with x·Aᵀ behind it.
    pub fn forward(&self, gpu: &Gpu, x: Rows<'_>, tokens: usize, out: Rows<'_>) -> Result<()> {
        let size = Size { rows: tokens, columns: self.outputs, inner: self.inputs + self.room };
        gpu.product(size, Operand::plain(x), Operand::transposed(self.rows(0)), Output::half(out))
    }

    /// Writes g·s·B behind g.
    pub fn lower_grad(&self, gpu: &Gpu, grad: Rows<'_>, tokens: usize) -> Result<()> {
        let size = Size { rows: tokens, columns: self.room, inner: self.outputs };
        let b = Operand::plain(self.rows(0).column(self.inputs));
        gpu.product(size, Operand::plain(grad), b, Output::half(grad.column(self.outputs)))
    }

    /// The gradient of x, from g with g·s·B behind it.
    pub fn backward(&self, gpu: &Gpu, grad: Rows<'_>, tokens: usize, out: Rows<'_>) -> Result<()> {
        let size = Size { rows: tokens, columns: self.inputs, inner: self.outputs + self.room };
        gpu.product(size, Operand::plain(grad), Operand::plain(self.rows(0)), Output::half(out))
    }

    /// Adds the gradients of the adapters of all parts, `into` in their order, from x and g with what lies behind them.
    pub fn accumulate(
        &self,
        gpu: &Gpu,
        x: Rows<'_>,
        grad: Rows<'_>,
        tokens: usize,
        scratch: &Scratch,
        into: &[Option<Pair>],
    ) -> Result<()> {
        if self.room == 0 || into.iter().all(Option::is_none) {
            return Ok(());
        }
        let size = Size { rows: self.room, columns: self.inputs, inner: tokens };
        let lowered = Operand::transposed(grad.column(self.outputs));
        gpu.product(size, lowered, Operand::plain(x), Output::single(&scratch.a, self.inputs))?;
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
