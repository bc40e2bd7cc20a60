//! LoRA's dropout: which inputs of an adapter are dropped is a function of the pass and the place, so that it is the same when a layer is
//! computed again.

use candle_core::{Result, Shape, Tensor};
use rayon::prelude::*;

use super::compute::Compute;
use super::slices::numbers;
use crate::jobs::finetune::learner::Pass;
use crate::jobs::finetune::rng::{Philox, Purpose, Stream, uniform};

/// Of one matrix in one pass.
#[derive(Debug, Clone, Copy)]
pub struct Mask {
    stream: Stream,
    probability: f32,
}

impl Mask {
    /// `None`: nothing is dropped.
    pub fn new(pass: Option<Pass>, probability: f32, layer: usize, module: usize) -> Option<Self> {
        let pass = pass.filter(|_| probability > 0.0)?;
        let words = [pass.step, pass.micro_batch, layer as u64, module as u64];
        Some(Self { stream: Philox::new(pass.seed).stream(Purpose::Dropout, words), probability })
    }

    /// Drops numbers of `x`, and scales the others so that their mean stays. Also what the gradient goes through.
    pub fn apply(self, compute: &Compute, x: &Tensor) -> Result<Tensor> {
        if compute.fused {
            let mut kept = numbers(x)?.to_vec();
            self.each(&mut kept, |x, factor| *x *= factor);
            return compute.tensor(kept, x.shape());
        }
        x * compute.narrow(&self.factors(compute, x.shape())?)?
    }

    /// What each number is multiplied with.
    fn factors(self, compute: &Compute, shape: &Shape) -> Result<Tensor> {
        #[cfg(feature = "cuda")]
        if compute.device.is_cuda() {
            return super::offload::drop_factors(&compute.device, self, shape);
        }
        let mut factors = vec![0.0; shape.elem_count()];
        self.each(&mut factors, |x, factor| *x = factor);
        compute.tensor(factors, shape)
    }

    /// Of the numbers that the mask is made of: see [`Stream::words`].
    #[cfg(feature = "cuda")]
    pub fn words(self) -> [u32; 4] {
        self.stream.words()
    }

    #[cfg(feature = "cuda")]
    pub fn probability(self) -> f32 {
        self.probability
    }

    /// What is not dropped is multiplied with this.
    pub fn scale(self) -> f32 {
        1.0 / (1.0 - self.probability)
    }

    fn each(self, numbers: &mut [f32], change: impl Fn(&mut f32, f32) + Sync) {
        /// A multiple of four.
        const NUMBERS: usize = 16_384;
        let scale = self.scale();
        numbers.par_chunks_mut(NUMBERS).enumerate().for_each(|(index, part)| {
            for (place, four) in (((index * NUMBERS) / 4) as u64..).zip(part.chunks_mut(4)) {
                for (number, bits) in four.iter_mut().zip(self.stream.four(place)) {
                    change(number, if uniform(bits) < self.probability { 0.0 } else { scale });
                }
            }
        });
    }
}
