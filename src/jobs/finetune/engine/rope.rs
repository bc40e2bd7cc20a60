//! Rotary position embeddings of the tokens of a batch.

use candle_core::{D, Result, Tensor};

use super::compute::{Compute, wide};
use super::products::in_rows;
use super::slices::edit;
use crate::jobs::finetune::batch::Batch;
use crate::lm::cpu::kernels::{self, Isa};
use crate::lm::rope::Ropes;
use crate::lm::{Config, Pairing};

/// The angles of every token, in layers of one kind.
#[derive(Debug)]
pub struct Turns {
    isa: Isa,
    pairing: Pairing,
    head_length: usize,
    pairs: usize,
    /// Cosine and sine of each pair, token by token.
    forth: Vec<[f32; 2]>,
    back: Vec<[f32; 2]>,
}

/// Which way to turn: gradients are turned back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    Forth,
    Back,
}

impl Turns {
    /// Every row is turned as its own length asks for.
    pub fn new(config: &Config, ropes: &Ropes, sliding: bool, batch: &Batch) -> Self {
        let angles = batch.rows().map(|row| ropes.for_length(row.len()).angles(sliding, 0, row.len()));
        let forth: Vec<_> = angles.flat_map(|angles| angles.values).collect();
        let back = forth.iter().map(|[cos, sin]| [*cos, -sin]).collect();
        let Config { head_length, rope, .. } = config;
        Self { isa: Isa::detect(), pairing: rope.pairing, head_length: *head_length, pairs: rope.dimensions / 2, forth, back }
    }

    fn angles(&self, way: Way) -> &[[f32; 2]] {
        match way {
            Way::Forth => &self.forth,
            Way::Back => &self.back,
        }
    }
}

/// Turns every head of every row. `x` has to be the caller's alone: it may be changed where it is.
pub fn turn(compute: &Compute, turns: &Turns, x: Tensor, way: Way) -> Result<Tensor> {
    let width = x.dim(1)?;
    if !compute.fused {
        return composed(compute, turns, &x, way);
    }
    let (pairs, angles) = (turns.pairs, turns.angles(way));
    edit(&x, |all| {
        in_rows(all, width, |first, rows| {
            for (row, angles) in rows.chunks_exact_mut(width).zip(angles[first * pairs..].chunks_exact(pairs)) {
                for head in row.chunks_exact_mut(turns.head_length) {
                    kernels::rotate(turns.isa, head, angles, turns.pairing == Pairing::Neighbours);
                }
            }
        });
    })?;
    Ok(x)
}

fn composed(compute: &Compute, turns: &Turns, x: &Tensor, way: Way) -> Result<Tensor> {
    let ((tokens, width), pairs) = (x.dims2()?, turns.pairs);
    let part = |which: usize| compute.tensor(turns.angles(way).iter().map(|pair| pair[which]).collect(), (tokens, 1, pairs));
    let (cos, sin) = (part(0)?, part(1)?);
    let heads = wide(x)?.reshape((tokens, width / turns.head_length, turns.head_length))?;
    let turned = heads.narrow(D::Minus1, 0, 2 * pairs)?;
    let (a, b) = match turns.pairing {
        Pairing::Halves => (turned.narrow(D::Minus1, 0, pairs)?, turned.narrow(D::Minus1, pairs, pairs)?),
        Pairing::Neighbours => {
            let couples = turned.reshape((tokens, (), pairs, 2))?;
            (couples.narrow(D::Minus1, 0, 1)?.squeeze(D::Minus1)?, couples.narrow(D::Minus1, 1, 1)?.squeeze(D::Minus1)?)
        }
    };
    let first = (a.broadcast_mul(&cos)? - b.broadcast_mul(&sin)?)?;
    let second = (a.broadcast_mul(&sin)? + b.broadcast_mul(&cos)?)?;
    let turned = match turns.pairing {
        Pairing::Halves => Tensor::cat(&[first, second], D::Minus1)?,
        Pairing::Neighbours => Tensor::stack(&[first, second], D::Minus1)?.flatten(D::Minus2, D::Minus1)?,
    };
    let rest = turns.head_length - 2 * pairs;
    let all = if rest == 0 { turned } else { Tensor::cat(&[turned, heads.narrow(D::Minus1, 2 * pairs, rest)?], D::Minus1)? };
    compute.narrow(&all.reshape((tokens, width))?)
}
