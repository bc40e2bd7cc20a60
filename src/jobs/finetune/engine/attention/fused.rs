//! Attention on the CPU. Forth, a task is some queries of one head; back, it is a head of a row, whose shares of the gradients of keys and
//! values are summed over the heads that share them in the heads' order.

#![expect(unsafe_code, reason = "tasks write the columns of their own heads")]

use std::cell::RefCell;
use std::ops::Range;

use candle_core::{Result, Tensor};
use rayon::prelude::*;

use super::super::compute::Compute;
use super::super::products::{Matrix, Onto, in_rows, multiply, multiply_at};
use super::super::slices::numbers;
use super::super::vector;
use super::{How, rows};
use crate::lm::cpu::rows::Places;

/// Queries whose scores are made together.
pub const QUERIES: usize = 64;

thread_local! {
    static SCRATCH: RefCell<[Vec<f32>; 3]> = RefCell::default();
}

/// One head of one row of a batch.
#[derive(Debug, Clone)]
#[expect(clippy::struct_field_names, reason = "its number is what a head is called by")]
struct Head<'a> {
    how: &'a How,
    qkv: [&'a [f32]; 3],
    /// Places of the row in the batch.
    row: Range<usize>,
    head: usize,
}

impl<'a> Head<'a> {
    fn stride(&self) -> usize {
        self.how.heads * self.how.head_length
    }

    /// Tokens of the row, of a head of `all` that has `heads` of them.
    fn part(&self, all: &'a [f32], heads: usize, head: usize, tokens: Range<usize>) -> Matrix<'a> {
        let (width, stride) = (self.how.head_length, heads * self.how.head_length);
        let start = (self.row.start + tokens.start) * stride + head * width;
        Matrix::strided(&all[start..], tokens.len(), width, stride)
    }

    fn queries(&self, tokens: Range<usize>) -> Matrix<'a> {
        self.part(self.qkv[0], self.how.heads, self.head, tokens)
    }

    fn keys(&self, tokens: Range<usize>) -> Matrix<'a> {
        self.part(self.qkv[1], self.how.kv_heads, self.how.shared(self.head), tokens)
    }

    fn values(&self, tokens: Range<usize>) -> Matrix<'a> {
        self.part(self.qkv[2], self.how.kv_heads, self.how.shared(self.head), tokens)
    }

    /// The place of a token's first number in this head of queries, and of all that has as many heads.
    fn place(&self, token: usize) -> usize {
        (self.row.start + token) * self.stride() + self.head * self.how.head_length
    }

    fn tiles(&self) -> impl Iterator<Item = Range<usize>> + use<> {
        let length = self.row.len();
        (0..length).step_by(QUERIES).map(move |first| first..length.min(first + QUERIES))
    }

    /// How much some tokens make of what they see together; 0 where one does not see. `capped`: gets the scores that went through tanh.
    fn weights(&self, tokens: &Range<usize>, out: &mut Vec<f32>, capped: Option<&mut Vec<f32>>) {
        let seen = self.how.seen_by(tokens);
        out.resize(tokens.len() * seen.len(), 0.0);
        let keys = self.keys(seen.clone()).transposed();
        multiply(out, seen.len(), Onto::Nothing, self.how.scale, self.queries(tokens.clone()), keys);
        if let Some(limit) = self.how.softcap {
            vector::soft_cap(out, limit);
        }
        if let Some(capped) = capped {
            capped.clear();
            capped.extend_from_slice(out);
        }
        for (token, row) in tokens.clone().zip(out.chunks_exact_mut(seen.len())) {
            let own = self.how.seen(token);
            let own = own.start - seen.start..own.end - seen.start;
            row[..own.start].fill(0.0);
            row[own.end..].fill(0.0);
            let row = &mut row[own];
            let sum = vector::exponentials(row, vector::largest(row));
            vector::scale(row, 1.0 / sum);
        }
    }
}

fn heads<'a>(how: &'a How, starts: &'a [usize], qkv: [&'a [f32]; 3]) -> impl Iterator<Item = Head<'a>> + 'a {
    rows(starts).flat_map(move |row| (0..how.heads).map(move |head| Head { how, qkv, row: row.clone(), head }))
}

pub fn forward(compute: &Compute, how: &How, starts: &[usize], [q, k, v]: [&Tensor; 3]) -> Result<Tensor> {
    let (q_all, k, v) = (numbers(q)?, numbers(k)?, numbers(v)?);
    let mut out = vec![0.0; q_all.len()];
    let places = Places::new(&mut out);
    let heads = heads(how, starts, [&q_all, &k, &v]);
    let tasks: Vec<_> = heads.flat_map(|head| head.tiles().map(move |tile| (head.clone(), tile))).collect();
    tasks.into_par_iter().for_each(|(head, tile)| {
        SCRATCH.with_borrow_mut(|[weights, ..]| {
            head.weights(&tile, weights, None);
            let seen = how.seen_by(&tile);
            let (at, values) = (places.pointer(head.place(tile.start)), head.values(seen.clone()));
            // SAFETY: these tokens' columns of this head are this task's alone.
            unsafe { multiply_at(at, head.stride(), Onto::Nothing, 1.0, Matrix::new(weights, seen.len()), values) };
        });
    });
    compute.tensor(out, q.shape())
}

/// Where the gradients of one head go: of queries, and its shares of those of keys and values, all as wide as the queries.
type Outs<'a> = [Places<'a, f32>; 3];

pub fn backward(compute: &Compute, how: &How, starts: &[usize], [q, k, v]: [&Tensor; 3], dy: &Tensor) -> Result<[Tensor; 3]> {
    let (q_all, k_all, v_all, dy) = (numbers(q)?, numbers(k)?, numbers(v)?, numbers(dy)?);
    let [mut dq, mut dk, mut dv] = std::array::from_fn(|_| vec![0.0; q_all.len()]);
    let outs = [&mut dq, &mut dk, &mut dv].map(|out| Places::new(out));
    let tasks: Vec<_> = heads(how, starts, [&q_all, &k_all, &v_all]).collect();
    tasks.into_par_iter().for_each(|head| {
        // SAFETY: these places of this head are this task's alone.
        SCRATCH.with_borrow_mut(|scratch| head.tiles().for_each(|tile| unsafe { backward_tile(&head, &tile, &dy, scratch, &outs) }));
    });
    let [dk, dv] = [dk, dv].map(|shares| if how.heads == how.kv_heads { shares } else { summed(how, &shares) });
    Ok([compute.tensor(dq, q.shape())?, compute.tensor(dk, k.shape())?, compute.tensor(dv, v.shape())?])
}

/// # Safety
/// Nobody else uses the places of this head.
unsafe fn backward_tile(head: &Head<'_>, tile: &Range<usize>, dy: &[f32], [weights, ds, capped]: &mut [Vec<f32>; 3], outs: &Outs<'_>) {
    let (how, stride) = (head.how, head.stride());
    let seen = how.seen_by(tile);
    head.weights(tile, weights, how.softcap.map(|_| &mut *capped));
    let dy = head.part(dy, how.heads, head.head, tile.clone());
    ds.resize(weights.len(), 0.0);
    multiply(ds, seen.len(), Onto::Nothing, 1.0, dy, head.values(seen.clone()).transposed());
    // What is not seen has weight 0, which makes its gradient 0, too.
    for (ds, weights) in ds.chunks_exact_mut(seen.len()).zip(weights.chunks_exact(seen.len())) {
        vector::softmax_gradient(ds, weights, vector::dot(weights, ds));
    }
    if let Some(limit) = how.softcap {
        vector::soft_cap_gradient(ds, capped, limit);
    }
    let (ds, weights) = (Matrix::new(ds, seen.len()), Matrix::new(weights, seen.len()));
    let [dq, dk, dv] = [(0, tile.start), (1, seen.start), (2, seen.start)].map(|(which, token)| outs[which].pointer(head.place(token)));
    // SAFETY: as the caller vouches; all three have the queries' shape, and `seen` ends in the row.
    unsafe {
        multiply_at(dq, stride, Onto::Nothing, how.scale, ds, head.keys(seen.clone()));
        multiply_at(dk, stride, Onto::Sum, how.scale, ds.transposed(), head.queries(tile.clone()));
        multiply_at(dv, stride, Onto::Sum, 1.0, weights.transposed(), dy);
    }
}

/// Sums what heads have in common.
fn summed(how: &How, shares: &[f32]) -> Vec<f32> {
    let (width, each) = (how.head_length, how.heads / how.kv_heads);
    let mut sums = vec![0.0; shares.len() / each];
    in_rows(&mut sums, width, |first, sums| {
        for (sum, shares) in sums.chunks_exact_mut(width).zip(shares[first * each * width..].chunks_exact(each * width)) {
            shares.chunks_exact(width).for_each(|share| vector::add(sum, share));
        }
    });
    sums
}
