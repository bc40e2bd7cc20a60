//! Products of activations with matrices.
//!
//! A few tokens: each row of weights is multiplied with each token where it lies in the file. Many tokens: 16 rows are unpacked
//! and all tokens are multiplied with them. Quantised weights meet activations of 8 bits, plain ones stay plain.

#![expect(unsafe_code, reason = "tasks write different stripes of one output, and `gemm` takes pointers")]

use std::cell::RefCell;
use std::ops::Range;

use gemm::Parallelism;

use crate::gguf::TensorKind;
use crate::lm::config::Activation;
use crate::lm::weights::{Source, Tensor};

use super::kernels::{self, Activations, Isa, LANES, Stripe, Tile};
use super::pool::Pool;
use super::rows::{Places, Rows};

/// From so many tokens on, unpacking a tile costs less than unpacking each row for each token.
const MANY: usize = 5;

/// A matrix in its file, and the rows of it that are used.
#[derive(Debug)]
pub struct Matrix {
    source: Source,
    tensor: Tensor,
    first: usize,
    pub rows: usize,
}

impl Matrix {
    pub fn new(source: &Source, tensor: &Tensor, rows: Range<usize>) -> Self {
        Self { source: source.clone(), tensor: *tensor, first: rows.start, rows: rows.len() }
    }

    fn bytes(&self, rows: Range<usize>) -> &[u8] {
        self.source.bytes(&self.tensor, self.first + rows.start..self.first + rows.end)
    }

    pub fn columns(&self) -> usize {
        self.tensor.columns
    }

    /// Unpacks one row.
    pub fn unpack(&self, isa: Isa, row: usize, out: &mut [f32]) {
        kernels::unpack_row_of(isa, self.tensor.kind, self.bytes(row..row + 1), out);
    }

    fn is_dense(&self) -> bool {
        kernels::is_dense(self.tensor.kind)
    }
}

/// The activations that matrices are multiplied with, in the forms these take.
struct Input<'a> {
    isa: Isa,
    plain: &'a Rows,
    /// Filled if one of the matrices is quantised.
    packed: Activations,
}

/// What a thread keeps from one tile to the next.
#[derive(Debug, Default)]
struct Scratch {
    tile: Tile,
    plain: Vec<f32>,
    gate: Vec<f32>,
    up: Vec<f32>,
}

thread_local! {
    static SCRATCH: RefCell<Scratch> = RefCell::default();
}

/// Products of every row of `x` with every matrix.
pub fn products(isa: Isa, pool: &Pool, x: &Rows, matrices: &[&Matrix]) -> Vec<Rows> {
    let input = Input::new(isa, pool, x, matrices);
    let mut out: Vec<Rows> = matrices.iter().map(|matrix| Rows::new(x.count(), matrix.rows)).collect();
    let places: Vec<Places<'_, f32>> = out.iter_mut().map(|rows| Places::new(&mut rows.values)).collect();
    let tasks = tasks(matrices, rows_per_task(pool, x.count(), matrices));
    pool.run(tasks.len(), |task| {
        let (which, rows) = &tasks[task];
        // SAFETY: no two tasks have rows of one matrix in common.
        unsafe { input.multiply(matrices[*which], rows.clone(), &places[*which]) };
    });
    drop(places);
    out
}

/// `activation(gate · x) · (up · x)`.
pub fn gated(isa: Isa, pool: &Pool, x: &Rows, gate: &Matrix, up: &Matrix, activation: Activation) -> Rows {
    let input = Input::new(isa, pool, x, &[gate, up]);
    let mut out = Rows::new(x.count(), gate.rows);
    let places = Places::new(&mut out.values);
    let tasks = tasks(&[gate], rows_per_task(pool, x.count(), &[gate, up]));
    pool.run(tasks.len(), |task| {
        // SAFETY: no two tasks have rows in common.
        unsafe { input.gate(gate, up, tasks[task].1.clone(), activation, &places) };
    });
    out
}

/// The gate itself, for products that were kept apart (to add biases).
pub fn activate(isa: Isa, activation: Activation, gate: &mut [f32], up: &[f32]) {
    match activation {
        Activation::Gelu => kernels::gelu_gate(isa, gate, up),
        Activation::Silu => kernels::silu_gate(isa, gate, up),
    }
}

fn rows_per_task(pool: &Pool, tokens: usize, matrices: &[&Matrix]) -> usize {
    if tokens >= MANY {
        return LANES;
    }
    let rows: usize = matrices.iter().map(|matrix| matrix.rows).sum();
    (rows / (4 * pool.threads())).clamp(32, 1024).next_multiple_of(8)
}

fn tasks(matrices: &[&Matrix], rows_each: usize) -> Vec<(usize, Range<usize>)> {
    let ranges = |rows: usize| (0..rows).step_by(rows_each).map(move |first| first..rows.min(first + rows_each));
    matrices.iter().enumerate().flat_map(|(which, matrix)| ranges(matrix.rows).map(move |range| (which, range))).collect()
}

impl<'a> Input<'a> {
    fn new(isa: Isa, pool: &Pool, x: &'a Rows, matrices: &[&Matrix]) -> Self {
        let quantized = matrices.iter().any(|matrix| !matrix.is_dense());
        Self { isa, plain: x, packed: if quantized { pack(isa, pool, x) } else { Activations::default() } }
    }

    /// Products with some rows of a matrix, into their columns of `out`.
    ///
    /// # Safety
    /// Nobody else uses these columns of `out`.
    unsafe fn multiply(&self, matrix: &Matrix, rows: Range<usize>, out: &Places<'_, f32>) {
        let tokens = self.plain.count();
        if tokens >= MANY {
            let to = Stripe { at: out.pointer(rows.start), stride: matrix.rows, width: rows.len() };
            // SAFETY: the caller keeps the columns for us.
            SCRATCH.with_borrow_mut(|scratch| unsafe { self.tile(matrix, rows, &mut scratch.tile, &mut scratch.plain, to) });
            return;
        }
        for token in 0..tokens {
            let at = token * matrix.rows;
            // SAFETY: as above.
            let out = unsafe { out.slice(at + rows.start..at + rows.end) };
            self.few(matrix, rows.clone(), token, out);
        }
    }

    /// As [`Input::multiply`], for both halves of a gated layer.
    ///
    /// # Safety
    /// Nobody else uses these columns of `out`.
    unsafe fn gate(&self, gate: &Matrix, up: &Matrix, rows: Range<usize>, activation: Activation, out: &Places<'_, f32>) {
        let (tokens, width) = (self.plain.count(), rows.len());
        SCRATCH.with_borrow_mut(|scratch| {
            scratch.gate.resize(tokens * width, 0.0);
            scratch.up.resize(tokens * width, 0.0);
            for (matrix, to) in [(gate, &mut scratch.gate), (up, &mut scratch.up)] {
                if tokens >= MANY {
                    let to = Stripe { at: to.as_mut_ptr(), stride: width, width };
                    // SAFETY: the scratch has room for all tokens.
                    unsafe { self.tile(matrix, rows.clone(), &mut scratch.tile, &mut scratch.plain, to) };
                } else {
                    for (token, to) in to.chunks_exact_mut(width).enumerate() {
                        self.few(matrix, rows.clone(), token, to);
                    }
                }
            }
            activate(self.isa, activation, &mut scratch.gate, &scratch.up);
            for (token, gate) in scratch.gate.chunks_exact(width).enumerate() {
                let at = token * up.rows;
                // SAFETY: the caller keeps the columns for us.
                unsafe { out.slice(at + rows.start..at + rows.end) }.copy_from_slice(gate);
            }
        });
    }

    fn few(&self, matrix: &Matrix, rows: Range<usize>, token: usize, out: &mut [f32]) {
        let (kind, bytes) = (matrix.tensor.kind, matrix.bytes(rows));
        if !matrix.is_dense() {
            return kernels::dot_rows(self.isa, kind, bytes, &self.packed, token, out);
        }
        let x = self.plain.row(token);
        for (row, out) in bytes.chunks_exact(matrix.tensor.row_bytes).zip(out) {
            *out = kernels::dense_dot(self.isa, kind, row, x);
        }
    }

    /// # Safety
    /// `out` may be written for every token, by nobody else.
    unsafe fn tile(&self, matrix: &Matrix, rows: Range<usize>, tile: &mut Tile, plain: &mut Vec<f32>, out: Stripe) {
        let (kind, bytes) = (matrix.tensor.kind, matrix.bytes(rows));
        if matrix.is_dense() {
            // SAFETY: as the caller vouches.
            unsafe { self.dense(kind, bytes, matrix.tensor.columns, plain, out) };
        } else {
            // SAFETY: as the caller vouches.
            unsafe { kernels::multiply_tile(self.isa, kind, bytes, &self.packed, tile, out) };
        }
    }

    /// # Safety
    /// As [`Input::tile`].
    #[expect(clippy::cast_possible_wrap, reason = "strides of matrices that fit into memory")]
    unsafe fn dense(&self, kind: TensorKind, bytes: &[u8], columns: usize, weights: &mut Vec<f32>, out: Stripe) {
        weights.resize(out.width * columns, 0.0);
        kernels::unpack_row_of(self.isa, kind, bytes, weights);
        let (tokens, x) = (self.plain.count(), self.plain.values.as_ptr());
        // SAFETY: `x` is tokens × columns, `weights` is width × columns (used transposed), `out` is the caller's.
        unsafe {
            gemm::gemm(
                tokens,
                out.width,
                columns,
                out.at,
                1,
                out.stride as isize,
                false,
                x,
                1,
                columns as isize,
                weights.as_ptr(),
                columns as isize,
                1,
                0.0,
                1.0,
                false,
                false,
                false,
                Parallelism::None,
            );
        }
    }
}

/// Quantises activations, on all threads if they are many.
fn pack(isa: Isa, pool: &Pool, x: &Rows) -> Activations {
    /// Rows of one task.
    const ROWS: usize = 16;
    let mut packed = Activations::new(x.count(), x.width);
    let groups = packed.groups;
    let quants = Places::new(&mut packed.quants);
    let scales = Places::new(&mut packed.scales);
    let halves = Places::new(&mut packed.halves);
    let sums = Places::new(&mut packed.sums);
    pool.run(x.count().div_ceil(ROWS), |task| {
        let rows = task * ROWS..x.count().min((task + 1) * ROWS);
        let (values, at) = (rows.start * x.width..rows.end * x.width, rows.start * groups..rows.end * groups);
        // SAFETY: no two tasks have rows in common.
        unsafe {
            let (quants, scales) = (quants.slice(values.clone()), scales.slice(at.clone()));
            kernels::quantize(isa, &x.values[values], quants, scales, halves.slice(at.clone()), sums.slice(at));
        }
    });
    packed
}
