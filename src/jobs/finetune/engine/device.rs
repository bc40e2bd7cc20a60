//! What only some devices can do: telling where time goes.

use std::collections::BTreeMap;

use candle_core::Result;

use super::Engine;
use crate::jobs::finetune::batch::Batch;
use crate::jobs::finetune::learner::Tensors;

impl Engine {
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
