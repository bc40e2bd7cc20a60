//! Where and in what numbers is computed.

use candle_core::{DType, Device, Result, Tensor};

use super::settings::{Precision, Settings};

/// Chosen once, when a model is loaded.
#[derive(Debug, Clone)]
pub struct Compute {
    pub device: Device,
    /// By the loops of this crate over slices on the CPU; otherwise by candle's operations.
    pub fused: bool,
    /// Of activations between the layers. Statistics, scores and logits are of 32 bits.
    pub dtype: DType,
}

impl Compute {
    /// As the settings want it. An accelerator keeps memory between passes from now on.
    #[cfg_attr(not(feature = "cuda"), expect(clippy::unnecessary_wraps, reason = "only an accelerator can fail"))]
    pub fn on(device: Device, settings: &Settings) -> Result<Self> {
        #[cfg(feature = "cuda")]
        super::device::keep_memory(&device)?;
        let fused = device.is_cpu();
        Ok(Self { dtype: activations(fused, settings), fused, device })
    }

    /// The loops of this crate.
    pub fn cpu() -> Self {
        Self { device: Device::Cpu, fused: true, dtype: DType::F32 }
    }

    /// A tensor of 32 bits on the device. On the CPU the numbers stay where they are.
    pub fn tensor(&self, values: Vec<f32>, shape: impl Into<candle_core::Shape>) -> Result<Tensor> {
        Tensor::from_vec(values, shape.into(), &self.device)
    }

    /// To what activations are.
    pub fn narrow(&self, x: &Tensor) -> Result<Tensor> {
        x.to_dtype(self.dtype)
    }
}

/// What activations are of.
pub fn activations(fused: bool, settings: &Settings) -> DType {
    if !fused && settings.precision == Precision::Brain { DType::BF16 } else { DType::F32 }
}

/// To 32 bits.
pub fn wide(x: &Tensor) -> Result<Tensor> {
    x.to_dtype(DType::F32)
}
