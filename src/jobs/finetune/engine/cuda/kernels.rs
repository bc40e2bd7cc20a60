//! The kernels by name: what each is called with, and how its work is cut into blocks.

use super::error::Result;
use super::gpu::{Argument, Buffer, Gpu, Launch, Rows};
use super::shape::{Gate, Pairing};
use super::source::Source;
use super::table::Table;
use crate::jobs::finetune::learner::Update;

const THREADS: usize = 256;

/// Rows of one width, each normalised by itself.
#[derive(Clone, Copy)]
pub struct Norm<'a> {
    pub weight: &'a Buffer<f32>,
    pub rows: usize,
    pub columns: usize,
    pub epsilon: f32,
}

impl Norm<'_> {
    fn launch(&self, name: &'static str) -> Launch {
        let pieces = self.columns.div_ceil(2048).next_power_of_two();
        Launch { source: Source::Norm { pieces }, name, grid: (self.rows, 1), threads: 256, shared_bytes: 0 }
    }

    /// out = norm(x).
    pub fn forward(&self, gpu: &Gpu, x: &Buffer<u16>, out: Rows<'_>) -> Result<()> {
        let last = [out.into(), self.columns.into(), out.stride.into(), self.epsilon.into()];
        gpu.launch(self.launch("rms_norm"), &[[x.into(), self.weight.into()].as_slice(), &last].concat())
    }

    /// sum = x + added; out = norm(sum).
    pub fn forward_sum(&self, gpu: &Gpu, x: &Buffer<u16>, added: &Buffer<u16>, sum: &Buffer<u16>, out: Rows<'_>) -> Result<()> {
        let arguments = [
            x.into(),
            added.into(),
            self.weight.into(),
            sum.into(),
            out.into(),
            self.columns.into(),
            out.stride.into(),
            self.epsilon.into(),
        ];
        gpu.launch(self.launch("add_rms_norm"), &arguments)
    }

    /// out = the gradient of x.
    pub fn backward(&self, gpu: &Gpu, x: &Buffer<u16>, grad: Rows<'_>, out: Rows<'_>) -> Result<()> {
        let arguments = [
            x.into(),
            self.weight.into(),
            grad.into(),
            out.into(),
            self.columns.into(),
            grad.stride.into(),
            out.stride.into(),
            self.epsilon.into(),
        ];
        gpu.launch(self.launch("rms_norm_backward"), &arguments)
    }

    /// out += the gradient of x.
    pub fn backward_into(&self, gpu: &Gpu, x: &Buffer<u16>, grad: Rows<'_>, out: Rows<'_>) -> Result<()> {
        let arguments = [
            x.into(),
            self.weight.into(),
            grad.into(),
            out.into(),
            out.into(),
            self.columns.into(),
            grad.stride.into(),
            out.stride.into(),
            self.epsilon.into(),
        ];
        gpu.launch(self.launch("rms_norm_backward_add"), &arguments)
    }
}

/// Heads behind each other in every token.
#[derive(Clone, Copy)]
pub struct Heads {
    pub tokens: usize,
    pub count: usize,
    pub size: usize,
}

impl Heads {
    fn norm(self, name: &'static str) -> Launch {
        let grid = ((self.tokens * self.count).div_ceil(8), 1);
        Launch { source: Source::Norm { pieces: 1 }, name, grid, threads: 256, shared_bytes: 0 }
    }

    /// out = each head of x, normalised.
    pub fn norm_forward(self, gpu: &Gpu, x: Rows<'_>, weight: &Buffer<f32>, out: Rows<'_>, epsilon: f32) -> Result<()> {
        let arguments = [
            x.into(),
            weight.into(),
            out.into(),
            self.tokens.into(),
            self.count.into(),
            self.size.into(),
            x.stride.into(),
            out.stride.into(),
            epsilon.into(),
        ];
        gpu.launch(self.norm("head_norm"), &arguments)
    }

    /// Turns the gradient of the normalised heads into that of x.
    pub fn norm_backward(self, gpu: &Gpu, x: Rows<'_>, weight: &Buffer<f32>, grad: Rows<'_>, epsilon: f32) -> Result<()> {
        let arguments = [
            x.into(),
            weight.into(),
            grad.into(),
            grad.into(),
            self.tokens.into(),
            self.count.into(),
            self.size.into(),
            x.stride.into(),
            grad.stride.into(),
            epsilon.into(),
        ];
        gpu.launch(self.norm("head_norm_backward"), &arguments)
    }

    /// Rotates in place: forwards with `turn` 1, backwards with −1.
    pub fn rotate(self, gpu: &Gpu, x: Rows<'_>, angles: &Angles, positions: &Buffer<i32>, turn: f32) -> Result<()> {
        let name = match angles.pairing {
            Pairing::Halves => "rotate_halves",
            Pairing::Adjacent => "rotate_adjacent",
        };
        let arguments = [
            x.into(),
            positions.into(),
            (&angles.cosines).into(),
            (&angles.sines).into(),
            self.tokens.into(),
            x.stride.into(),
            self.count.into(),
            self.size.into(),
            angles.pairs.into(),
            turn.into(),
        ];
        gpu.launch(over(Source::Pointwise, name, self.tokens * self.count * angles.pairs / 8), &arguments)
    }
}

/// Cosines and sines of positions × pairs.
pub struct Angles {
    pub cosines: Buffer<f32>,
    pub sines: Buffer<f32>,
    pub pairs: usize,
    pub pairing: Pairing,
}

pub(super) fn over(source: Source, name: &'static str, items: usize) -> Launch {
    Launch { source, name, grid: (items.div_ceil(THREADS), 1), threads: 256, shared_bytes: 0 }
}

/// out = activation(gate) · up; `both` holds gate and up beside each other.
pub fn gated(gpu: &Gpu, gate: Gate, both: Rows<'_>, out: Rows<'_>, rows: usize, columns: usize) -> Result<()> {
    let name = match gate {
        Gate::Silu => "swiglu",
        Gate::GeluTanh => "geglu",
    };
    let arguments =
        [both.into(), both.column(columns).into(), out.into(), rows.into(), columns.into(), both.stride.into(), out.stride.into()];
    gpu.launch(over(Source::Pointwise, name, rows * columns / 8), &arguments)
}

/// Writes the gradients of gate and up over them.
pub fn gated_backward(gpu: &Gpu, gate: Gate, both: Rows<'_>, grad: &Buffer<u16>, rows: usize, columns: usize) -> Result<()> {
    let name = match gate {
        Gate::Silu => "swiglu_backward",
        Gate::GeluTanh => "geglu_backward",
    };
    let (first, second): (Argument, Argument) = (both.into(), both.column(columns).into());
    let arguments = [first, second, grad.into(), first, second, rows.into(), columns.into(), both.stride.into(), both.stride.into()];
    gpu.launch(over(Source::Pointwise, name, rows * columns / 8), &arguments)
}

/// Adds one number to each column.
pub fn add_bias(gpu: &Gpu, x: Rows<'_>, bias: &Buffer<f32>, rows: usize, columns: usize) -> Result<()> {
    let arguments = [x.into(), bias.into(), rows.into(), columns.into(), x.stride.into()];
    gpu.launch(over(Source::Pointwise, "add_bias", rows * columns / 8), &arguments)
}

fn of_rows(name: &'static str, count: usize) -> Launch {
    Launch { source: Source::Rows, name, grid: (count, 1), threads: 256, shared_bytes: 0 }
}

/// What rows are picked by: `count` ids from `first` on.
#[derive(Clone, Copy)]
pub struct Ids<'a> {
    pub all: &'a Buffer<u32>,
    pub first: usize,
    pub count: usize,
}

impl Ids<'_> {
    pub fn address(&self) -> u64 {
        self.all.address() + 4 * self.first as u64
    }
}

/// out[i] = table[ids[i]] · scale, for a table of so many rows.
pub fn take_rows(gpu: &Gpu, table: Rows<'_>, rows: usize, ids: Ids<'_>, out: &Buffer<u16>, columns: usize, scale: f32) -> Result<()> {
    let arguments = [table.into(), ids.address().into(), out.into(), columns.into(), table.stride.into(), rows.into(), scale.into()];
    gpu.launch(of_rows("take_rows", ids.count), &arguments)
}

/// out[ids[i]] += rows[i], ids in ascending order.
pub fn add_rows(gpu: &Gpu, rows: &Buffer<u16>, ids: Ids<'_>, out: &Buffer<u16>, columns: usize) -> Result<()> {
    let arguments = [rows.into(), ids.address().into(), out.into(), columns.into(), ids.count.into()];
    gpu.launch(of_rows("add_rows", ids.count), &arguments)
}

/// ln p of some of a batch's labels, and, where wanted, the gradient of Σ weight · −ln p; `out` has room for all of them.
pub fn cross_entropy(
    gpu: &Gpu,
    logits: &Buffer<f32>,
    (table, ids): (&Table, Ids<'_>),
    out: &Buffer<f32>,
    grads: Option<&Buffer<u16>>,
    (columns, cap): (usize, f32),
) -> Result<()> {
    let skip = 4 * ids.first as u64;
    let arguments = [
        logits.into(),
        (table.labels.address() + skip).into(),
        (table.weights.address() + skip).into(),
        (out.address() + skip).into(),
        grads.map_or(0, Buffer::address).into(),
        columns.into(),
        cap.into(),
    ];
    let launch = Launch { source: Source::CrossEntropy, name: "cross_entropy_f32", grid: (ids.count, 1), threads: 512, shared_bytes: 0 };
    gpu.launch(launch, &arguments)
}

/// A block of bf16 numbers: scale · from (single precision, rows behind each other).
pub fn place_block(gpu: &Gpu, from: u64, to: Rows<'_>, rows: usize, columns: usize, scale: f32) -> Result<()> {
    let arguments = [from.into(), to.into(), rows.into(), columns.into(), to.stride.into(), scale.into()];
    gpu.launch(over(Source::Adapter, "place_block", rows * columns), &arguments)
}

/// A block of bf16 zeros.
pub fn clear_block(gpu: &Gpu, to: Rows<'_>, rows: usize, columns: usize) -> Result<()> {
    let arguments = [to.into(), rows.into(), columns.into(), to.stride.into()];
    gpu.launch(over(Source::Adapter, "clear_block", rows * columns), &arguments)
}

/// to += scale · a block of `from` that begins at `offset` and whose rows are `stride` apart.
pub fn add_block(gpu: &Gpu, from: (&Buffer<f32>, usize, usize), to: u64, rows: usize, columns: usize, scale: f32) -> Result<()> {
    let (buffer, offset, stride) = from;
    let address = buffer.address() + 4 * offset as u64;
    let arguments = [address.into(), to.into(), rows.into(), columns.into(), stride.into(), scale.into()];
    gpu.launch(over(Source::Adapter, "add_block", rows * columns), &arguments)
}

/// A block of bf16 numbers from others behind each other.
pub fn copy_block(gpu: &Gpu, from: u64, to: Rows<'_>, rows: usize, columns: usize) -> Result<()> {
    let arguments = [from.into(), to.into(), rows.into(), columns.into(), to.stride.into()];
    gpu.launch(over(Source::Adapter, "copy_block", rows * columns), &arguments)
}

/// AdamW's step of `count` parameters with their gradients, means and mean squares, all in single precision.
pub fn adamw(gpu: &Gpu, update: &Update, [x, grad, mean, square]: [u64; 4], count: usize) -> Result<()> {
    let Update { scale, kept, mean_moves, square_stays, square_takes, size, root, epsilon } = *update;
    let numbers = [scale, kept, mean_moves, square_stays, square_takes, size, root, epsilon].map(Argument::from);
    let buffers = [x, grad, mean, square].map(Argument::from);
    gpu.launch(over(Source::Adapter, "adamw", count), &[&buffers[..], &[count.into()], &numbers].concat())
}

/// The sum of the squares of each stretch of numbers in single precision: where it begins, and how many they are.
pub fn squares(gpu: &Gpu, stretches: &[(u64, usize)]) -> Result<Vec<f32>> {
    let starts: Vec<u64> = stretches.iter().map(|(start, _)| *start).collect();
    let counts: Vec<i32> = stretches.iter().map(|(_, count)| i32::try_from(*count).unwrap_or(i32::MAX)).collect();
    let (starts, counts, sums) = (gpu.upload(&starts)?, gpu.upload(&counts)?, gpu.uninitialised::<f32>(stretches.len())?);
    let launch = Launch { source: Source::Adapter, name: "squares", grid: (stretches.len(), 1), threads: 256, shared_bytes: 0 };
    gpu.launch(launch, &[(&starts).into(), (&counts).into(), (&sums).into()])?;
    gpu.download(&sums)
}
