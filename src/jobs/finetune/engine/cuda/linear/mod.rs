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
//! With dropout an adapter reads inputs of its own, so that only the way there is one product: x·Aᵀ is made from what is left of x, and on
//! the way back d·A is added to g·W where x was not dropped. With DoRA outputs are scaled, and so are their gradients.
//!
//! Several matrices that read the same input (queries, keys, values; gate, up) are one; each has its own adapter, or none.
//!
//! Where the frozen weights are packed (QLoRA), that matrix exists in one layer at a time: all layers share memory for it.

mod dropout;
mod lengths;
mod work;

use std::ops::Range;

use super::error::Result;
use super::gpu::{Buffer, Gpu, Rows};
use super::kernels;
use super::packed::Packed;
use lengths::Lengths;

pub use dropout::drop_factors;
pub use lengths::is_weighed;
pub use work::{Scratch, Work};

/// A matrix and the adapter that it is to have.
#[derive(Debug, Clone, Copy)]
pub struct Wanted {
    pub outputs: usize,
    /// 0: no adapter.
    pub rank: usize,
    /// What B·A·x is multiplied with.
    pub scale: f32,
    /// What tells its dropout apart.
    pub place: [usize; 2],
}

/// What all adapters have in common.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct How {
    /// Share of their inputs that is dropped.
    pub dropout: f32,
    /// Whether rows have lengths of their own (DoRA).
    pub weighed: bool,
}

/// One of the matrices that are one, and its adapter.
#[derive(Debug, Clone, PartialEq)]
pub struct Part {
    index: usize,
    pub outputs: Range<usize>,
    /// 0: no adapter.
    pub rank: usize,
    /// What B·A·x is multiplied with.
    pub scale: f32,
    /// What tells its dropout apart.
    place: [usize; 2],
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
    /// DoRA's lengths: one for each output.
    pub magnitude: Option<u64>,
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
    how: How,
    lengths: Option<Lengths>,
}

impl Linear {
    /// Weights are yet to be placed; there is no adapter.
    pub fn new(gpu: &Gpu, inputs: usize, wanted: &[Wanted], how: How) -> Result<Self> {
        let mut linear = Self::packed(gpu, inputs, wanted, how, Vec::new())?;
        let weight = gpu.zeros(linear.size())?;
        linear.address = weight.address();
        linear.own = Some(weight);
        Ok(linear)
    }

    /// As [`Linear::new`], with packed weights for each part. It can be used once it has memory: see [`Linear::share`].
    ///
    /// # Errors
    /// What the device says.
    pub fn packed(gpu: &Gpu, inputs: usize, wanted: &[Wanted], how: How, packed: Vec<Packed>) -> Result<Self> {
        let (mut outputs, mut ranks) = (0, 0);
        let part = |(index, wanted): (usize, &Wanted)| {
            let Wanted { outputs: count, rank, scale, place } = *wanted;
            let part = Part { index, outputs: outputs..outputs + count, rank, scale, place, first: ranks };
            outputs += count;
            ranks += rank;
            part
        };
        let parts = wanted.iter().enumerate().map(part).collect();
        let lengths = (how.weighed && ranks > 0).then(|| Lengths::new(gpu, outputs)).transpose()?;
        let room = ranks.next_multiple_of(64);
        Ok(Self { own: None, address: 0, packed, inputs, outputs, room, parts, how, lengths })
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
        let weights = if self.own.is_some() { 2 * self.size() } else { self.packed.iter().map(Packed::size_bytes).sum() };
        weights + self.lengths.as_ref().map_or(0, |_| Lengths::bytes(self.outputs))
    }
}
