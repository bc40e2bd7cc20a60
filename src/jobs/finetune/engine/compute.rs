//! Where and in what numbers is computed.

use candle_core::{DType, Device, Result, Tensor};

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

/// To 32 bits.
pub fn wide(x: &Tensor) -> Result<Tensor> {
    x.to_dtype(DType::F32)
}
