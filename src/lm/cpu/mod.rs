//! The decoder's operations on the CPU.
//!
//! Weights are used where they are mapped; activations are 32-bit numbers. Nothing here is tied to one model: a [`Cpu`] is
//! threads and an instruction set.

mod attention;
pub mod kernels;
mod linear;
mod pool;
pub mod rows;

use std::ops::Range;

use super::config::{Activation, Pairing};
use super::error::Result;
use super::ops::{Attention, Linear, Ops, Room};
use super::rope::Angles;
use super::weights::{Source, Tensor};

use kernels::Isa;
use linear::Matrix;
use pool::Pool;
use rows::Rows;

pub use attention::Store;

/// How exactly a cache keeps keys and values.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Precision {
    /// 16 bits, as llama.cpp does.
    #[default]
    Half,
    /// 32 bits: nothing is rounded, so that the decoder can be compared with others to the last digits.
    Single,
}

/// Threads and their instruction set.
#[derive(Debug)]
pub struct Cpu {
    isa: Isa,
    precision: Precision,
    pool: Pool,
}

impl Cpu {
    /// # Errors
    /// When the machine gives no more threads.
    pub fn new(threads: usize, isa: Isa, precision: Precision) -> Result<Self> {
        Ok(Self { isa, precision, pool: Pool::new(threads)? })
    }

    fn biased(&self, mut rows: Rows, bias: Option<&Vec<f32>>) -> Rows {
        if let Some(bias) = bias {
            rows.iter_mut().for_each(|row| kernels::add(self.isa, row, bias));
        }
        rows
    }

    fn norm_in_place(&self, values: &mut [f32], weight: &[f32], epsilon: f32) {
        let mut normed = vec![0.0; weight.len()];
        for part in values.chunks_exact_mut(weight.len()) {
            kernels::rms_norm(self.isa, part, weight, epsilon, &mut normed);
            part.copy_from_slice(&normed);
        }
    }
}

impl Ops for Cpu {
    type Rows = Rows;
    type Matrix = Matrix;
    type Vector = Vec<f32>;
    type Store = Store;

    fn matrix(&self, source: &Source, tensor: &Tensor, rows: Range<usize>) -> Result<Matrix> {
        Ok(Matrix::new(source, tensor, rows))
    }

    fn vector(&self, source: &Source, tensor: &Tensor, range: Range<usize>) -> Result<Vec<f32>> {
        Ok(super::decoder::numbers(source, tensor, range))
    }

    fn keeps_rings(&self) -> bool {
        true
    }

    fn store(&self, room: Room) -> Result<Store> {
        Ok(Store::new(room, self.precision))
    }

    fn embed(&self, table: &Matrix, tokens: &[u32], scale: f32) -> Result<Rows> {
        let mut rows = Rows::new(tokens.len(), table.columns());
        for (&token, row) in tokens.iter().zip(rows.iter_mut()) {
            table.unpack(self.isa, token as usize, row);
            kernels::scale(self.isa, row, scale);
        }
        Ok(rows)
    }

    fn norm(&self, x: &Rows, weight: &Vec<f32>, epsilon: f32) -> Result<Rows> {
        let mut out = Rows::new(x.count(), x.width);
        for (row, out) in x.iter().zip(out.iter_mut()) {
            kernels::rms_norm(self.isa, row, weight, epsilon, out);
        }
        Ok(out)
    }

    fn norm_heads(&self, mut x: Rows, weight: &Vec<f32>, epsilon: f32) -> Result<Rows> {
        self.norm_in_place(&mut x.values, weight, epsilon);
        Ok(x)
    }

    fn rotate(&self, mut x: Rows, angles: &Angles, head_length: usize, pairing: Pairing) -> Result<Rows> {
        for (row, angles) in x.iter_mut().zip(angles.values.chunks_exact(angles.pairs)) {
            for head in row.chunks_exact_mut(head_length) {
                kernels::rotate(self.isa, head, angles, pairing == Pairing::Neighbours);
            }
        }
        Ok(x)
    }

    fn project<const N: usize>(&self, x: &Rows, with: [&Linear<Self>; N]) -> Result<[Rows; N]> {
        let mut products = linear::products(self.isa, &self.pool, x, &with.map(|linear| &linear.matrix)).into_iter();
        Ok(with.map(|linear| self.biased(products.next().unwrap_or_default(), linear.bias.as_ref())))
    }

    fn attend(&self, [query, key, value]: [Rows; 3], store: &mut Store, how: &Attention) -> Result<Rows> {
        Ok(attention::attend(self.isa, &self.pool, [&query, &key, &value], store, how))
    }

    fn gated(&self, x: &Rows, gate: &Linear<Self>, up: &Linear<Self>, activation: Activation) -> Result<Rows> {
        if gate.bias.is_none() && up.bias.is_none() {
            return Ok(linear::gated(self.isa, &self.pool, x, &gate.matrix, &up.matrix, activation));
        }
        let [mut gate, up] = self.project(x, [gate, up])?;
        linear::activate(self.isa, activation, &mut gate.values, &up.values);
        Ok(gate)
    }

    fn add(&self, mut sum: Rows, x: &Rows) -> Result<Rows> {
        kernels::add(self.isa, &mut sum.values, &x.values);
        Ok(sum)
    }

    fn last(&self, x: &Rows) -> Result<Rows> {
        Ok(Rows { values: x.row(x.count() - 1).to_vec(), width: x.width })
    }

    fn logits(&self, x: &Rows, head: &Matrix, softcap: Option<f32>) -> Result<Vec<f32>> {
        let mut logits = linear::products(self.isa, &self.pool, x, &[head]).pop().unwrap_or_default().values;
        if let Some(limit) = softcap {
            kernels::soft_cap(self.isa, &mut logits, limit);
        }
        Ok(logits)
    }
}
