//! DoRA on the GPU: outputs are scaled so that the rows of W + s·B·A get the lengths that are trained. Those lengths count as constants on
//! the way back, as on the CPU.
//!
//! With m the scales, and p what W and s·B·A make of x, the outputs are m ∘ p. With dropout it is only of what is left of x that an adapter
//! knows: the outputs are p of x and what is left of it, as without DoRA, and (m − 1) ∘ p of what is left alone.

use super::super::error::Result;
use super::super::gpu::{Argument, Buffer, Gpu, Launch, Rows};
use super::super::kernels::over;
use super::super::product::{Operand, Output, Size};
use super::super::source::Source;
use super::dropout::Dropout;
use super::work::Work;
use super::{Linear, Pair, Part};

/// Tokens whose outputs are made again at a time.
pub const TOKENS: usize = 2048;
/// Of these, those that one block of threads sums. There are fewer such stretches than columns of room for any adapter, in whose memory sums
/// are.
const STRETCH: usize = 128;

/// One number for each output of a matrix.
pub struct Lengths {
    /// Of the rows of W + s·B·A.
    lengths: Buffer<f32>,
    /// Those they are to have, over these.
    scales: Buffer<f32>,
}

/// Whether an adapter has lengths.
pub fn is_weighed(adapters: &[Option<Pair>]) -> bool {
    adapters.iter().flatten().any(|pair| pair.magnitude.is_some())
}

/// Some tokens of a batch: the first, and how many.
fn pieces(tokens: usize) -> impl Iterator<Item = (usize, usize)> {
    (0..tokens).step_by(TOKENS).map(move |first| (first, TOKENS.min(tokens - first)))
}

impl Lengths {
    pub fn new(gpu: &Gpu, outputs: usize) -> Result<Self> {
        Ok(Self { lengths: gpu.uninitialised(outputs)?, scales: gpu.uninitialised(outputs)? })
    }

    /// Bytes that [`Lengths::new`] takes.
    pub fn bytes(outputs: usize) -> usize {
        8 * outputs
    }

    /// Takes them from a matrix with its adapters in place.
    fn take(&self, work: Work<'_>, linear: &Linear, adapters: &[Option<Pair>]) -> Result<()> {
        let Linear { inputs, outputs, room, .. } = *linear;
        let Work { gpu, scratch, .. } = work;
        let (matrix, a) = (linear.rows(0), linear.rows(outputs));
        let size = Size { rows: outputs, columns: room, inner: inputs };
        gpu.product(size, Operand::plain(matrix), Operand::transposed(a), Output::single(&scratch.b, room))?;
        let size = Size { rows: room, ..size };
        gpu.product(size, Operand::plain(a), Operand::transposed(a), Output::single(&scratch.a, room))?;
        let launch = Launch { source: Source::Lengths, name: "row_lengths", grid: (outputs, 1), threads: 128, shared_bytes: 0 };
        let products = [matrix.into(), (&scratch.b).into(), (&scratch.a).into()];
        let rest = [(&self.lengths).into(), inputs.into(), room.into(), matrix.stride.into()];
        gpu.launch(launch, &[&products[..], &rest].concat())?;
        for (part, adapter) in linear.parts.iter().zip(adapters) {
            let (skip, count) = (4 * part.outputs.start as u64, part.outputs.len());
            let magnitudes = adapter.and_then(|pair| pair.magnitude).unwrap_or(0);
            let arguments =
                [magnitudes.into(), (self.lengths.address() + skip).into(), (self.scales.address() + skip).into(), count.into()];
            gpu.launch(over(Source::Lengths, "column_scales", count), &arguments)?;
        }
        gpu.mark("lengths")
    }

    /// x · (scales − `less`), of outputs from `first` on; to `out`, or added to it.
    fn scale(
        &self,
        gpu: &Gpu,
        name: &'static str,
        (x, out): (Rows<'_>, Rows<'_>),
        [tokens, first, outputs]: [usize; 3],
        less: f32,
    ) -> Result<()> {
        let places = [x.into(), (self.scales.address() + 4 * first as u64).into(), out.into()];
        let sizes = [tokens, outputs, x.stride, out.stride].map(Argument::from);
        gpu.launch(over(Source::Lengths, name, tokens * outputs / 8), &[&places[..], &sizes, &[less.into()]].concat())
    }

    /// Adds the gradients of the lengths of a part: what its scaled outputs' gradient and outputs before they were scaled, of some tokens,
    /// say of them.
    fn accumulate(&self, work: Work<'_>, (x, grad): (Rows<'_>, Rows<'_>), tokens: usize, part: &Part, into: u64) -> Result<()> {
        let (columns, stretches, sums) = (part.outputs.len(), tokens.div_ceil(STRETCH), &work.scratch.b);
        let grid = (columns.div_ceil(64), stretches);
        let launch = Launch { source: Source::Lengths, name: "length_sums", grid, threads: 256, shared_bytes: 0 };
        let places = [grad.into(), x.into(), sums.into()];
        work.gpu.launch(launch, &[&places[..], &[tokens, columns, grad.stride, x.stride, STRETCH].map(Argument::from)].concat())?;
        let lengths = self.lengths.address() + 4 * part.outputs.start as u64;
        let arguments = [sums.into(), lengths.into(), into.into(), columns.into(), stretches.into()];
        work.gpu.launch(over(Source::Lengths, "add_length_gradients", columns), &arguments)
    }
}

impl Linear {
    /// Whether rows can have lengths of their own.
    #[must_use]
    pub fn is_weighed(&self) -> bool {
        self.lengths.is_some()
    }

    fn weighed(&self, adapters: &[Option<Pair>]) -> Option<&Lengths> {
        self.lengths.as_ref().filter(|_| is_weighed(adapters))
    }

    /// Looks how long rows are with these adapters, which are in place.
    pub fn weigh(&self, work: Work<'_>, adapters: &[Option<Pair>]) -> Result<()> {
        self.weighed(adapters).map_or(Ok(()), |lengths| lengths.take(work, self, adapters))
    }

    /// Gives the outputs the lengths of these adapters: `out` is what [`Linear::forward`] made of `x`, which has x·Aᵀ behind it.
    pub fn scale(&self, work: Work<'_>, x: Rows<'_>, out: Rows<'_>, adapters: &[Option<Pair>]) -> Result<()> {
        let Some(lengths) = self.weighed(adapters) else { return Ok(()) };
        let drops = self.drops(work);
        if drops.is_empty() {
            lengths.scale(work.gpu, "scale_columns", (out, out), [work.tokens, 0, self.outputs], 0.0)?;
        }
        for drop in &drops {
            let (start, columns) = (drop.part.outputs.start, drop.part.outputs.len());
            self.outputs_of_left(work, drop, x, |first, count, product| {
                let sum = out.row(first).column(start);
                lengths.scale(work.gpu, "add_scaled_columns", (product, sum), [count, start, columns], 1.0)
            })?;
        }
        work.gpu.mark("scale")
    }

    /// What W and s·B·A make of what is left of x, some tokens at a time. Calls with the first of these tokens, how many there are, and their
    /// outputs.
    fn outputs_of_left(
        &self,
        work: Work<'_>,
        drop: &Dropout<'_>,
        x: Rows<'_>,
        mut call: impl FnMut(usize, usize, Rows<'_>) -> Result<()>,
    ) -> Result<()> {
        let (left, weights) = (self.left(work), self.rows(drop.part.outputs.start));
        let (behind, columns) = (self.inputs + drop.columns.start, drop.part.outputs.len());
        let out = Rows::new(&work.scratch.outputs, columns);
        drop.apply(work, self.inputs, x, left)?;
        for (first, count) in pieces(work.tokens) {
            let size = Size { rows: count, columns, inner: self.inputs };
            work.gpu.product(size, Operand::plain(left.row(first)), Operand::transposed(weights), Output::half(out))?;
            let (lowered, b) = (Operand::plain(x.row(first).column(behind)), Operand::transposed(weights.column(behind)));
            work.gpu.product(Size { inner: drop.columns.len(), ..size }, lowered, b, Output::half(out).added())?;
            call(first, count, out)?;
        }
        Ok(())
    }

    /// Adds the gradients of lengths, `into` for each part, from x with x·Aᵀ behind it, and the gradient of scaled outputs. Outputs before
    /// they were scaled are made again: nobody keeps them.
    pub fn accumulate_lengths(&self, work: Work<'_>, (x, grad): (Rows<'_>, Rows<'_>), into: &[Option<Pair>]) -> Result<()> {
        let Some(lengths) = self.weighed(into) else { return Ok(()) };
        let magnitudes = |part: &Part| into.get(part.index).copied().flatten().and_then(|pair| pair.magnitude);
        let drops = self.drops(work);
        for drop in &drops {
            let Some(magnitude) = magnitudes(drop.part) else { continue };
            self.outputs_of_left(work, drop, x, |first, count, product| {
                let grad = grad.row(first).column(drop.part.outputs.start);
                lengths.accumulate(work, (product, grad), count, drop.part, magnitude)
            })?;
        }
        if drops.is_empty() {
            let outputs = Rows::new(&work.scratch.outputs, self.outputs);
            for (first, count) in pieces(work.tokens) {
                self.forward(Work { tokens: count, ..work }, x.row(first), outputs)?;
                for part in &self.parts {
                    let (start, Some(magnitude)) = (part.outputs.start, magnitudes(part)) else { continue };
                    lengths.accumulate(work, (outputs.column(start), grad.row(first).column(start)), count, part, magnitude)?;
                }
            }
        }
        work.gpu.mark("lengths back")
    }

    /// The gradient of outputs before they were scaled, as adapters see it; `out` may be `grad`.
    pub fn scale_grad(&self, work: Work<'_>, grad: Rows<'_>, out: Rows<'_>, adapters: &[Option<Pair>]) -> Result<()> {
        let Some(lengths) = self.weighed(adapters) else { return Ok(()) };
        lengths.scale(work.gpu, "scale_columns", (grad, out), [work.tokens, 0, self.outputs], 0.0)?;
        work.gpu.mark("scale")
    }

    /// Adds to the gradient of x what W makes of (scales − 1) ∘ g where x was not dropped.
    pub(super) fn backward_left(&self, work: Work<'_>, grad: Rows<'_>, out: Rows<'_>, adapters: &[Option<Pair>]) -> Result<()> {
        let Some(lengths) = self.weighed(adapters) else { return Ok(()) };
        for drop in self.drops(work) {
            let (start, outputs, left) = (drop.part.outputs.start, drop.part.outputs.len(), self.left(work));
            for (first, count) in pieces(work.tokens) {
                let scaled = Rows::new(&work.scratch.outputs, outputs);
                let grad = grad.row(first).column(start);
                lengths.scale(work.gpu, "scale_columns", (grad, scaled), [count, start, outputs], 1.0)?;
                let size = Size { rows: count, columns: self.inputs, inner: outputs };
                work.gpu.product(size, Operand::plain(scaled), Operand::plain(self.rows(start)), Output::half(left.row(first)))?;
            }
            drop.add(work, self.inputs, left, out)?;
        }
        Ok(())
    }
}
