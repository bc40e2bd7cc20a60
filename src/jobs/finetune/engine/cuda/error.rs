//! What goes wrong on a GPU.

use candle_core::cuda_backend::cudarc::cublas::result::CublasError;
use candle_core::cuda_backend::cudarc::driver::DriverError;
use candle_core::cuda_backend::cudarc::nvrtc::CompileError;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("the GPU could not {what}")]
    Driver { what: &'static str, source: DriverError },
    #[error("cuBLAS could not multiply {rows}×{inner} by {inner}×{columns}")]
    Product { rows: usize, columns: usize, inner: usize, source: CublasError },
    #[error("the kernels of {module} could not be compiled for this GPU")]
    Compile { module: &'static str, source: CompileError },
    /// Nothing is lost: such a model is trained by the operations that every device has.
    #[error("the fast path on GPUs does not know {what}")]
    Unsupported { what: String },
}

pub type Result<T> = std::result::Result<T, Error>;

/// Says what was being done when the driver refused.
pub(super) fn doing<T>(what: &'static str, result: std::result::Result<T, DriverError>) -> Result<T> {
    result.map_err(|source| Error::Driver { what, source })
}
