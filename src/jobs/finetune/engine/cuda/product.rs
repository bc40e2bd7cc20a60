//! Products of matrices, by cuBLAS.
#![expect(unsafe_code, reason = "the library takes matrices by address")]

use std::ffi::c_void;

use candle_core::cuda_backend::cudarc::cublas;

use super::error::{Error, Result};
use super::gpu::{Buffer, Gpu, Rows};

impl Gpu {
    /// Multiplies on the tensor cores, adding up in single precision: out = left · right, or out += left · right.
    ///
    /// # Errors
    /// When cuBLAS refuses.
    pub(super) fn product(&self, size: Size, left: Operand<'_>, right: Operand<'_>, out: Output) -> Result<()> {
        let int = |count: usize| i32::try_from(count).unwrap_or(i32::MAX);
        let flag = |transposed: bool| {
            if transposed { cublas::sys::cublasOperation_t::CUBLAS_OP_T } else { cublas::sys::cublasOperation_t::CUBLAS_OP_N }
        };
        let (kind, alpha, beta) = (out.kind.cuda(), 1.0_f32, if out.adds { 1.0_f32 } else { 0.0 });
        let bf16 = cublas::sys::cudaDataType_t::CUDA_R_16BF;
        if size.rows == 0 || size.columns == 0 {
            return Ok(());
        }
        // cuBLAS counts columns first: what it sees are the transposed matrices, and their product the other way round.
        // SAFETY: the callers, all in this folder, pass buffers that hold what `size` and the strides say.
        let multiplied = unsafe {
            cublas::result::gemm_ex(
                *self.blas.handle(),
                flag(right.transposed),
                flag(left.transposed),
                int(size.columns),
                int(size.rows),
                int(size.inner),
                std::ptr::from_ref(&alpha).cast(),
                right.rows.address as *const c_void,
                bf16,
                int(right.rows.stride),
                left.rows.address as *const c_void,
                bf16,
                int(left.rows.stride),
                std::ptr::from_ref(&beta).cast(),
                out.address as *mut c_void,
                kind,
                int(out.stride),
                cublas::sys::cublasComputeType_t::CUBLAS_COMPUTE_32F,
                cublas::sys::cublasGemmAlgo_t::CUBLAS_GEMM_DEFAULT,
            )
        };
        let Size { rows, columns, inner } = size;
        multiplied.map_err(|source| Error::Product { rows, columns, inner, source })
    }
}

/// Of a product: rows × inner by inner × columns.
#[derive(Debug, Clone, Copy)]
pub struct Size {
    pub rows: usize,
    pub columns: usize,
    pub inner: usize,
}

/// A factor, as it lies in memory or the other way round.
#[derive(Debug, Clone, Copy)]
pub struct Operand<'a> {
    rows: Rows<'a>,
    transposed: bool,
}

impl<'a> Operand<'a> {
    #[must_use]
    pub fn plain(rows: Rows<'a>) -> Self {
        Self { rows, transposed: false }
    }

    #[must_use]
    pub fn transposed(rows: Rows<'a>) -> Self {
        Self { rows, transposed: true }
    }
}

#[derive(Debug, Clone, Copy)]
enum Kind {
    Half,
    Single,
}

impl Kind {
    fn cuda(self) -> cublas::sys::cudaDataType_t {
        match self {
            Self::Half => cublas::sys::cudaDataType_t::CUDA_R_16BF,
            Self::Single => cublas::sys::cudaDataType_t::CUDA_R_32F,
        }
    }
}

/// Where a product goes.
#[derive(Debug, Clone, Copy)]
pub struct Output {
    address: u64,
    stride: usize,
    kind: Kind,
    adds: bool,
}

impl Output {
    /// Rounded to bf16.
    #[must_use]
    pub fn half(rows: Rows<'_>) -> Self {
        Self { address: rows.address, stride: rows.stride, kind: Kind::Half, adds: false }
    }

    /// In single precision, rows behind each other.
    #[must_use]
    pub fn single(buffer: &Buffer<f32>, stride: usize) -> Self {
        Self { address: buffer.address(), stride, kind: Kind::Single, adds: false }
    }

    /// Onto what is there.
    #[must_use]
    pub fn added(self) -> Self {
        Self { adds: true, ..self }
    }

    /// From this row on.
    #[must_use]
    pub fn row(self, row: usize) -> Self {
        let number_bytes = match self.kind {
            Kind::Half => 2,
            Kind::Single => 4,
        };
        Self { address: self.address + number_bytes * (row * self.stride) as u64, ..self }
    }
}
