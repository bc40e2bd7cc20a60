//! What only some devices can do: telling how much memory is taken, and where time goes.

use std::collections::BTreeMap;

use candle_core::{Device, Result};

use super::Engine;
use crate::jobs::finetune::batch::Batch;
#[cfg(feature = "cuda")]
use crate::jobs::finetune::learner::Learner as _;
use crate::jobs::finetune::learner::{Pass, Tensors};

/// Has an accelerator keep memory between passes, which take the same again and again.
#[cfg(feature = "cuda")]
pub fn keep_memory(device: &Device) -> Result<()> {
    let Ok(cuda) = device.as_cuda_device() else { return Ok(()) };
    super::cuda::pool::keep(cuda.cuda_stream().context()).map_err(candle_core::Error::wrap)
}

/// Memory of an accelerator that is taken, by anybody; what this process takes counts with the most it had since [`forget_peak`]. `None`:
/// the device does not say.
#[must_use]
pub fn peak_bytes(device: &Device) -> Option<u64> {
    #[cfg(feature = "cuda")]
    return super::cuda::pool::peak_bytes(device.as_cuda_device().ok()?.cuda_stream().context()).ok();
    #[cfg(not(feature = "cuda"))]
    {
        let _ = device;
        None
    }
}

/// Gives memory of an accelerator back that nobody uses, and begins to count anew.
pub fn forget_peak(device: &Device) {
    #[cfg(feature = "cuda")]
    if let Ok(cuda) = device.as_cuda_device() {
        // Where it cannot be done, an older peak is told.
        let _ = super::cuda::pool::forget_peak(cuda.cuda_stream().context());
    }
    #[cfg(not(feature = "cuda"))]
    let _ = device;
}

/// What an NVIDIA GPU is called by its driver.
#[cfg(feature = "cuda")]
pub fn uuid(device: &Device) -> Option<String> {
    let uuid = device.as_cuda_device().ok()?.cuda_stream().context().uuid().ok()?;
    Some(format!("GPU-{}", uuid::Uuid::from_bytes(uuid.bytes.map(i8::cast_unsigned))))
}

impl Engine {
    /// Milliseconds of each kind of work of a pass there and back, by the device's own clock; nothing where it has none.
    ///
    /// # Errors
    /// As [`Learner::accumulate`](super::Learner::accumulate).
    #[cfg_attr(not(feature = "cuda"), allow(clippy::unnecessary_wraps, clippy::unused_self, reason = "elsewhere there is a clock"))]
    pub fn spent(&self, parameters: &Tensors, batch: &Batch, pass: Option<Pass>) -> Result<BTreeMap<&'static str, f32>> {
        #[cfg(feature = "cuda")]
        if let Some(offload) = &self.offload {
            return offload.traced(|| self.accumulate(parameters, batch, pass, &mut Tensors::new()));
        }
        let _ = (parameters, batch, pass);
        Ok(BTreeMap::new())
    }

    #[must_use]
    pub fn is_on_cpu(&self) -> bool {
        self.compute.device.is_cpu()
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
