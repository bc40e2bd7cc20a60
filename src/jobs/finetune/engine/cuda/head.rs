//! From the residual stream to ln p of labels and back: logits of a few labels at a time, in single precision.

use super::error::Result;
use super::gpu::{Buffer, Gpu, Rows};
use super::kernels::{Ids, add_rows, cross_entropy, take_rows};
use super::product::{Operand, Output, Size};
use super::shape::Shape;
use super::table::Table;

/// Memory for so many labels at a time.
pub struct Logits {
    hidden: Buffer<u16>,
    scores: Buffer<f32>,
    grads: Buffer<u16>,
    d_hidden: Buffer<u16>,
    labels: usize,
}

impl Logits {
    /// As many labels as fit into so many bytes, and no more than there are.
    pub fn new(gpu: &Gpu, shape: &Shape, size_bytes: usize, labels: usize) -> Result<Self> {
        let labels = Self::fit(shape, size_bytes, labels);
        Ok(Self {
            hidden: gpu.uninitialised(labels * shape.hidden)?,
            scores: gpu.uninitialised(labels * shape.vocabulary)?,
            grads: gpu.uninitialised(labels * shape.vocabulary)?,
            d_hidden: gpu.uninitialised(labels * shape.hidden)?,
            labels,
        })
    }

    fn each(shape: &Shape) -> usize {
        6 * shape.vocabulary + 4 * shape.hidden
    }

    fn fit(shape: &Shape, size_bytes: usize, labels: usize) -> usize {
        let fit = (size_bytes / Self::each(shape)).max(128) / 128 * 128;
        fit.min(labels.next_multiple_of(128))
    }

    /// Bytes that [`Logits::new`] takes.
    pub fn bytes(shape: &Shape, size_bytes: usize, labels: usize) -> usize {
        Self::fit(shape, size_bytes, labels) * Self::each(shape)
    }
}

/// The output matrix (vocabulary × hidden) at work on a batch.
pub struct Head<'a> {
    pub gpu: &'a Gpu,
    pub shape: &'a Shape,
    pub weight: Rows<'a>,
    pub memory: &'a Logits,
}

impl Head<'_> {
    /// ln p of every label (`out`) from the normalised residual stream; `d_normed`, if given, gets the gradient of Σ weight · −ln p.
    pub fn run(&self, normed: Rows<'_>, table: &Table, out: &Buffer<f32>, mut d_normed: Option<&mut Buffer<u16>>) -> Result<()> {
        if let Some(grad) = &mut d_normed {
            self.gpu.clear(grad)?;
        }
        for first in (0..table.labels_count).step_by(self.memory.labels) {
            let count = self.memory.labels.min(table.labels_count - first);
            self.some(normed, table, Ids { all: &table.places, first, count }, out, d_normed.as_deref())?;
        }
        Ok(())
    }

    fn some(&self, normed: Rows<'_>, table: &Table, ids: Ids<'_>, out: &Buffer<f32>, d_normed: Option<&Buffer<u16>>) -> Result<()> {
        let Self { gpu, shape, memory, .. } = *self;
        let (hidden, vocabulary) = (shape.hidden, shape.vocabulary);
        take_rows(gpu, normed, table.tokens_count, ids, &memory.hidden, hidden, 1.0)?;
        gpu.mark("take rows")?;
        let size = Size { rows: ids.count, columns: vocabulary, inner: hidden };
        let x = Operand::plain(Rows::new(&memory.hidden, hidden));
        gpu.product(size, x, Operand::transposed(self.weight), Output::single(&memory.scores, vocabulary))?;
        gpu.mark("logits")?;
        let grads = d_normed.map(|_| &memory.grads);
        cross_entropy(gpu, &memory.scores, (table, ids), out, grads, (vocabulary, shape.logit_cap))?;
        gpu.mark("cross-entropy")?;
        let Some(d_normed) = d_normed else { return Ok(()) };
        let size = Size { rows: ids.count, columns: hidden, inner: vocabulary };
        let grad = Operand::plain(Rows::new(&memory.grads, vocabulary));
        gpu.product(size, grad, Operand::plain(self.weight), Output::half(Rows::new(&memory.d_hidden, hidden)))?;
        gpu.mark("logits back")?;
        add_rows(gpu, &memory.d_hidden, ids, d_normed, hidden)?;
        gpu.mark("take rows")
    }
}
