//! LoRA's dropout on the GPU: the same numbers as on the CPU, since both count them out by the same generator.

use std::ops::Range;

use super::super::error::Result;
use super::super::gpu::{Argument, Gpu, Rows};
use super::super::kernels::over;
use super::super::source::Source;
use super::work::Work;
use super::{Linear, Part};
use crate::jobs::finetune::engine::dropout::Mask;

/// What is dropped of the inputs of a part's adapter.
pub struct Dropout<'a> {
    pub part: &'a Part,
    pub mask: Mask,
    /// Columns of room that are the adapter's own; the last has those that are left over.
    pub columns: Range<usize>,
}

impl Linear {
    /// Of every adapter; nothing where nothing is dropped.
    pub(super) fn drops(&self, work: Work<'_>) -> Vec<Dropout<'_>> {
        let adapted = self.parts.iter().filter(|part| part.rank > 0);
        let drops = adapted.filter_map(|part| {
            let Part { place: [layer, module], first, rank, .. } = *part;
            let mask = Mask::new(work.pass, self.how.dropout, layer, module)?;
            Some(Dropout { part, mask, columns: first..first + rank })
        });
        let mut drops: Vec<Dropout<'_>> = drops.collect();
        if let Some(last) = drops.last_mut() {
            last.columns.end = self.room;
        }
        drops
    }
}

impl Dropout<'_> {
    fn launch(&self, work: Work<'_>, name: &'static str, columns: usize, from: Rows<'_>, to: Rows<'_>) -> Result<()> {
        let places = [from.into(), to.into(), work.tokens.into(), columns.into(), from.stride.into(), to.stride.into()];
        let all = [&places[..], &arguments(self.mask)].concat();
        work.gpu.launch(over(Source::Dropout, name, work.tokens * columns / 8), &all)
    }

    /// out = x without what is dropped, which has as many columns as the layer has inputs.
    pub fn apply(&self, work: Work<'_>, inputs: usize, x: Rows<'_>, out: Rows<'_>) -> Result<()> {
        self.launch(work, "drop", inputs, x, out)
    }

    /// sum += x without what is dropped.
    pub fn add(&self, work: Work<'_>, inputs: usize, x: Rows<'_>, sum: Rows<'_>) -> Result<()> {
        self.launch(work, "add_dropped", inputs, x, sum)
    }
}

fn arguments(mask: Mask) -> Vec<Argument> {
    mask.words().map(Argument::from).into_iter().chain([mask.probability(), mask.scale()].map(Argument::from)).collect()
}

/// What a mask multiplies numbers with, at an address with room for `count` in single precision.
pub fn drop_factors(gpu: &Gpu, mask: Mask, out: u64, count: usize) -> Result<()> {
    let first = [out.into(), Argument::from(count as u64)];
    gpu.launch(over(Source::Dropout, "drop_factors", count.div_ceil(4)), &[&first[..], &arguments(mask)].concat())
}
