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
//!
//! Where the frozen weights are packed (QLoRA), that matrix exists in one layer at a time: all layers share memory for it.

use std::ops::Range;

use super::error::Result;
use super::gpu::{Buffer, Gpu, Operand, Output, Rows, Size};
use super::kernels;
use super::packed::Packed;

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
        let (a, b) = Self::sizes(layers);
        Ok(Self { a: gpu.uninitialised(a)?, b: gpu.uninitialised(b)? })
    }

    /// Bytes that [`Scratch::new`] takes.
    pub fn bytes<'a>(layers: impl Iterator<Item = &'a Linear>) -> usize {
        let (a, b) = Self::sizes(layers);
        4 * (a + b)
    }

    fn sizes<'a>(layers: impl Iterator<Item = &'a Linear>) -> (usize, usize) {
        let (mut a, mut b) = (0, 0);
        for layer in layers {
            a = a.max(layer.room * layer.inputs);
            b = b.max(layer.room * layer.outputs);
        }
        (a, b)
    }
}

pub struct Linear {
    /// Memory of its own; without it, `address` is in memory that layers share.
    own: Option<Buffer<u16>>,
    address: u64,
    /// The weights of each part, where they are packed.
    packed: Vec<Packed>,
    pub inputs: usize,
    pub outputs: usize,
    /// Columns behind the inputs, and behind the outputs: a multiple of 64, which is what products are cut into.
    pub room: usize,
    pub parts: Vec<Part>,
}

impl Linear {
    /// For matrices of so many outputs, each with the rank and scale of its adapter. Weights are yet to be placed; there is no adapter.
    pub fn new(gpu: &Gpu, inputs: usize, parts: &[(usize, usize, f32)]) -> Result<Self> {
        let mut linear = Self::packed(inputs, parts, Vec::new());
        let weight = gpu.zeros(linear.size())?;
        linear.address = weight.address();
        linear.own = Some(weight);
        Ok(linear)
    }

    /// As [`Linear::new`], with packed weights for each part. It can be used once it has memory: see [`Linear::share`].
    #[must_use]
    pub fn packed(inputs: usize, parts: &[(usize, usize, f32)], packed: Vec<Packed>) -> Self {
        let (mut outputs, mut ranks) = (0, 0);
        let place = |&(count, rank, scale): &(usize, usize, f32)| {
            let part = Part { outputs: outputs..outputs + count, rank, scale, first: ranks };
            outputs += count;
            ranks += rank;
            part
        };
        let parts = parts.iter().map(place).collect();
        Self { own: None, address: 0, packed, inputs, outputs, room: ranks.next_multiple_of(64), parts }
    }

    /// Numbers of the matrix in memory.
    #[must_use]
    pub fn size(&self) -> usize {
        (self.outputs + self.room) * (self.inputs + self.room)
    }

    /// Numbers of memory that it shares with those of other layers.
    #[must_use]
    pub fn shared(&self) -> usize {
        if self.own.is_some() { 0 } else { self.size() }
    }

    /// Where that memory is.
    pub(super) fn share(&mut self, address: u64) {
        if self.own.is_none() {
            self.address = address;
        }
    }

    /// Puts the matrix into shared memory.
    pub(super) fn unpack(&self, gpu: &Gpu, adapters: &[Option<Pair>]) -> Result<()> {
        if self.own.is_some() {
            return Ok(());
        }
        let (inputs, outputs, room) = (self.inputs, self.outputs, self.room);
        kernels::clear_block(gpu, self.rows(0).column(inputs), outputs, room)?;
        kernels::clear_block(gpu, self.rows(outputs), room, inputs + room)?;
        for (part, packed) in self.parts.iter().zip(&self.packed) {
            packed.unpack(gpu, self.rows(part.outputs.start))?;
        }
        self.place(gpu, adapters)
    }

    /// From an output's row on.
    #[must_use]
    pub fn rows(&self, from: usize) -> Rows<'_> {
        Rows::at(self.address, self.inputs + self.room).row(from)
    }

    /// Numbers from row to row in buffers of inputs, and of gradients of outputs.
    #[must_use]
    pub fn strides(&self) -> (usize, usize) {
        (self.inputs + self.room, self.outputs + self.room)
    }

    /// Takes over the adapters of all parts; those that are not given are none. Packed weights get theirs when they are unpacked.
    pub(super) fn set(&self, gpu: &Gpu, adapters: &[Option<Pair>]) -> Result<()> {
        if self.own.is_some() { self.place(gpu, adapters) } else { Ok(()) }
    }

    fn place(&self, gpu: &Gpu, adapters: &[Option<Pair>]) -> Result<()> {
        for (part, adapter) in self.parts.iter().zip(adapters) {
            let a = self.rows(self.outputs + part.first);
            let b = self.rows(part.outputs.start).column(self.inputs + part.first);
            let (rank, outputs) = (part.rank, part.outputs.len());
            if let Some(pair) = adapter {
                kernels::place_block(gpu, pair.a, a, rank, self.inputs, 1.0)?;
                kernels::place_block(gpu, pair.b, b, outputs, rank, part.scale)?;
            } else {
                kernels::clear_block(gpu, a, rank, self.inputs)?;
                kernels::clear_block(gpu, b, outputs, rank)?;
            }
        }
        Ok(())
    }

    /// Bytes of its weights in the device's memory, but for what is shared.
    #[must_use]
    pub fn size_bytes(&self) -> usize {
        if self.own.is_some() { 2 * self.size() } else { self.packed.iter().map(Packed::size_bytes).sum() }
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
