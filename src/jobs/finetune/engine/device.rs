//! What only some devices can do: an optimiser's step where parameters are, and telling where time goes.

use std::collections::BTreeMap;

use candle_core::{Result, Tensor};

use super::Engine;
use crate::jobs::finetune::batch::Batch;
use crate::jobs::finetune::learner::Tensors;

/// AdamW's numbers for one step of one tensor (Loshchilov and Hutter 2019, as PyTorch writes it).
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct AdamW {
    pub rate: f32,
    pub betas: [f32; 2],
    pub epsilon: f32,
    pub decay: f32,
    /// 1 − βⁿ of each β.
    pub corrections: [f32; 2],
}

impl Engine {
    /// Changes a parameter by its gradient where it is, and its mean and mean square with it; all four are of single precision and of one
    /// shape. Their clones see it. `false`: nothing was done, since there is no kernel for it here.
    ///
    /// # Errors
    /// When shapes differ, or what the device says.
    #[cfg_attr(not(feature = "cuda"), allow(clippy::unnecessary_wraps, clippy::unused_self, reason = "elsewhere there is one"))]
    pub fn step_in_place(&self, step: &AdamW, [parameter, gradient, mean, square]: [&Tensor; 4]) -> Result<bool> {
        #[cfg(feature = "cuda")]
        if let Some(offload) = &self.offload {
            offload.step(&step.of_kernel(), [parameter, gradient, mean, square])?;
            return Ok(true);
        }
        let _ = (step, parameter, gradient, mean, square);
        Ok(false)
    }

    /// Milliseconds of each kind of work of a pass there and back, by the device's own clock; nothing where it has none.
    ///
    /// # Errors
    /// As [`Learner::accumulate`](super::Learner::accumulate).
    #[cfg_attr(not(feature = "cuda"), allow(clippy::unnecessary_wraps, clippy::unused_self, reason = "elsewhere there is a clock"))]
    pub fn spent(&self, parameters: &Tensors, batch: &Batch) -> Result<BTreeMap<&'static str, f32>> {
        #[cfg(feature = "cuda")]
        if let Some(offload) = &self.offload {
            self.check(parameters, batch)?;
            let mut gradients = Tensors::new();
            return offload.spent(self, parameters, batch, super::Gradients::new(&mut gradients, parameters)?.all());
        }
        let _ = (parameters, batch);
        Ok(BTreeMap::new())
    }

    /// Whether passes are made by kernels of this crate, on a GPU.
    #[must_use]
    pub fn uses_kernels(&self) -> bool {
        #[cfg(feature = "cuda")]
        return self.offload.is_some();
        #[cfg(not(feature = "cuda"))]
        false
    }
}

#[cfg(feature = "cuda")]
impl AdamW {
    fn of_kernel(&self) -> super::cuda::AdamW {
        let Self { rate, betas: [first, second], epsilon, decay, corrections } = *self;
        let [mean, square] = corrections.map(|correction| 1.0 / correction);
        super::cuda::AdamW { rate, betas: (first, second), epsilon, decay, corrections: (mean, square) }
    }
}
