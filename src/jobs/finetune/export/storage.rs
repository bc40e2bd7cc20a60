//! How each trained tensor is stored in a merged GGUF file.
//!
//! As the base has it, where that keeps the change; else in the next finer format that does. That is measured on rows spread over the
//! tensor before anything is written: a base that is quantized lies exactly on its format's grid, and a change smaller than a step of it
//! is rounded away as a whole. Formats of fewer than six bits are not even tried, unless the base's own formats are demanded.

use super::base::{Base, Rows, cannot, row, rows};
use super::change::Change;
use super::error::Result;
use super::survival::{LEAST_GAIN, Sums};
use crate::gguf::quants::{can_encode, decode, encode};
use crate::gguf::{TensorInfo, TensorKind};
use crate::jobs::convert;
use crate::jobs::convert::rows::length;

/// What trained tensors may become.
#[allow(non_camel_case_types, reason = "these are the names the formats are known by")]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Storage {
    /// Q8_0 at least.
    #[default]
    Q8_0,
    /// Q6_K at least: smaller, and rounds four times as coarsely.
    Q6_K,
    /// What the base has, however little of the training survives that. The share is told.
    AsBase,
}

/// Numbers of a tensor that are looked at: of small changes, only many numbers together show what is left.
const SAMPLE: u64 = 1 << 19;
/// What has to survive of them, a little more than of the whole tensor: they are but a sample.
const LEAST_IN_SAMPLE: f64 = LEAST_GAIN + 0.01;
/// A change that is smaller, over the size of the base, is nothing but the rounding of F32.
const NO_CHANGE: f64 = 1e-6;

/// Memory for one thread's rows.
#[derive(Debug, Default)]
pub(super) struct Work {
    raw: Vec<u8>,
    pub(super) base: Vec<f32>,
    pub(super) trained: Vec<f32>,
    stored: Vec<f32>,
    scratch: Vec<f32>,
}

impl Work {
    /// Fills in what rows are in the base, and what training made of them.
    pub(super) fn read(&mut self, base: &Base, tensor: &TensorInfo, change: &Change, rows: Rows) -> convert::error::Result<()> {
        base.numbers(tensor, rows, &mut self.raw, &mut self.base)?;
        self.trained.clear();
        self.trained.extend_from_slice(&self.base);
        change.apply(rows.first..rows.first + rows.count, &mut self.trained, length(row(tensor))?, &mut self.scratch)
    }

    /// Packs the trained rows, and counts what is left of the change.
    pub(super) fn pack(&mut self, tensor: &TensorInfo, kind: TensorKind, packed: &mut Vec<u8>) -> convert::error::Result<Sums> {
        let row = row(tensor);
        packed.clear();
        packed.resize(length(super::base::size_bytes(tensor, kind, self.trained.len() as u64 / row)?)?, 0);
        encode(kind, &self.trained, length(row)?, None, packed).map_err(|error| cannot(tensor, error))?;
        self.stored.clear();
        self.stored.resize(self.trained.len(), 0.0);
        decode(kind, packed, &mut self.stored).map_err(|error| cannot(tensor, error))?;
        let mut sums = Sums::default();
        sums.add(&self.base, &self.trained, &self.stored);
        Ok(sums)
    }
}

/// The format that a trained tensor gets. `None`: the training left it as it was.
pub(super) fn choose(base: &Base, tensor: &TensorInfo, change: &Change, storage: Storage) -> Result<Option<TensorKind>> {
    let ladder = ladder(tensor, storage);
    let Some(last) = ladder.last() else {
        return Err(cannot(tensor, format!("{} cannot be written here; choose another storage than the base's", tensor.kind)).into());
    };
    let (mut work, mut packed) = (Work::default(), Vec::new());
    for kind in &ladder {
        let mut sums = Sums::default();
        for sample in samples(tensor) {
            work.read(base, tensor, change, sample)?;
            sums = sums.and(work.pack(tensor, *kind, &mut packed)?);
        }
        if sums.change() < NO_CHANGE {
            return Ok(None);
        }
        if sums.gain() >= LEAST_IN_SAMPLE {
            return Ok(Some(*kind));
        }
    }
    Ok(Some(*last))
}

/// Rows spread evenly over the tensor, one by one.
fn samples(tensor: &TensorInfo) -> impl Iterator<Item = Rows> {
    let rows = rows(tensor);
    let count = (SAMPLE / row(tensor).max(1)).clamp(1, rows.max(1));
    (0..count).map(move |index| Rows { first: index * rows / count, count: 1 })
}

/// The formats to try, coarsest first. The last keeps everything.
fn ladder(tensor: &TensorInfo, storage: Storage) -> Vec<TensorKind> {
    use TensorKind as K;
    let coarsest = if storage == Storage::Q6_K { K::Q6_K } else { K::Q8_0 };
    let mut steps = match (storage, tensor.kind) {
        (Storage::AsBase, kind) => vec![kind],
        (_, K::F32) => vec![K::F32],
        (_, K::F16) => vec![K::F16, K::F32],
        (_, K::BF16) => vec![K::BF16, K::F16, K::F32],
        (_, K::Q8_0) => vec![K::Q8_0, K::F16, K::F32],
        (_, K::Q6_K) => vec![K::Q6_K, K::Q8_0, K::F16, K::F32],
        (_, _) => vec![coarsest, K::Q8_0, K::F16, K::F32],
    };
    steps.dedup();
    steps.retain(|kind| can_encode(*kind) && row(tensor).is_multiple_of(kind.block_size()));
    steps
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tensor(kind: TensorKind, dimensions: &[u64]) -> TensorInfo {
        TensorInfo { name: "x".into(), dimensions: dimensions.to_vec(), kind, offset: 0, size_bytes: 0 }
    }

    #[test]
    fn few_bits_are_not_tried_unless_they_are_demanded() {
        use TensorKind as K;
        for (kind, row, storage, expected) in [
            (K::Q4_K, 256, Storage::Q8_0, vec![K::Q8_0, K::F16, K::F32]),
            (K::Q4_K, 256, Storage::Q6_K, vec![K::Q6_K, K::Q8_0, K::F16, K::F32]),
            (K::Q5_0, 640, Storage::Q6_K, vec![K::Q8_0, K::F16, K::F32]),
            (K::Q6_K, 256, Storage::Q8_0, vec![K::Q6_K, K::Q8_0, K::F16, K::F32]),
            (K::F32, 7, Storage::Q8_0, vec![K::F32]),
            (K::F16, 7, Storage::Q8_0, vec![K::F16, K::F32]),
            (K::Q4_K, 256, Storage::AsBase, vec![K::Q4_K]),
            (K::IQ2_XXS, 256, Storage::AsBase, vec![]),
        ] {
            assert_eq!(ladder(&tensor(kind, &[row, 4]), storage), expected, "{kind} {storage:?}");
        }
    }

    #[test]
    fn samples_are_spread_and_within() {
        let firsts = |dimensions: &[u64]| samples(&tensor(TensorKind::F32, dimensions)).map(|rows| rows.first).collect::<Vec<_>>();
        assert_eq!(firsts(&[1 << 18, 10]), [0, 5]);
        assert_eq!(firsts(&[4, 3]), [0, 1, 2]);
        assert_eq!(firsts(&[4]), [0]);
        assert_eq!(firsts(&[1 << 20, 5]), [0]);
    }
}
