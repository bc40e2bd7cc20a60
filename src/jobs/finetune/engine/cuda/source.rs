//! The kernels' sources, and how they are compiled: by NVRTC, once for each process, for the GPU that is there.

use candle_core::cuda_backend::cudarc::nvrtc::{CompileOptions, Ptx, compile_ptx_with_opts};

use super::error::{Error, Result};

/// Kernels that are compiled together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Source {
    Adapter,
    AttentionBackward {
        head_size: usize,
    },
    AttentionForward {
        head_size: usize,
    },
    CrossEntropy,
    Dropout,
    Lengths,
    /// For rows of up to so many times 2,048 numbers: 1, 2, 4 or 8.
    Norm {
        pieces: usize,
    },
    Packed,
    Pointwise,
    Rows,
}

const NUMBERS: &str = include_str!("kernels/numbers.cuh");
const MMA: &str = include_str!("kernels/mma.cuh");

impl Source {
    fn name(self) -> &'static str {
        match self {
            Self::Adapter => "adapter",
            Self::AttentionBackward { .. } => "attention_backward",
            Self::AttentionForward { .. } => "attention_forward",
            Self::CrossEntropy => "cross_entropy",
            Self::Dropout => "dropout",
            Self::Lengths => "lengths",
            Self::Norm { .. } => "norm",
            Self::Packed => "packed",
            Self::Pointwise => "pointwise",
            Self::Rows => "rows",
        }
    }

    fn code(self) -> &'static str {
        match self {
            Self::Adapter => include_str!("kernels/adapter.cu"),
            Self::AttentionBackward { .. } => include_str!("kernels/attention_backward.cu"),
            Self::AttentionForward { .. } => include_str!("kernels/attention_forward.cu"),
            Self::CrossEntropy => include_str!("kernels/cross_entropy.cu"),
            Self::Dropout => include_str!("kernels/dropout.cu"),
            Self::Lengths => include_str!("kernels/lengths.cu"),
            Self::Norm { .. } => include_str!("kernels/norm.cu"),
            Self::Packed => include_str!("kernels/packed.cu"),
            Self::Pointwise => include_str!("kernels/pointwise.cu"),
            Self::Rows => include_str!("kernels/rows.cu"),
        }
    }

    fn definition(self) -> Option<String> {
        match self {
            Self::AttentionBackward { head_size } | Self::AttentionForward { head_size } => Some(format!("-DHEAD_SIZE={head_size}")),
            Self::Norm { pieces } => Some(format!("-DPIECES={pieces}")),
            _ => None,
        }
    }

    /// Compiles for a GPU of this compute capability.
    ///
    /// # Errors
    /// What the compiler says.
    pub(super) fn compile(self, (major, minor): (i32, i32)) -> Result<Ptx> {
        let architecture = format!("--gpu-architecture=compute_{major}{minor}");
        let options = ["--std=c++17".to_owned(), architecture].into_iter().chain(self.definition()).collect();
        let code = [NUMBERS, MMA, self.code()].join("\n");
        let compiled = compile_ptx_with_opts(code, CompileOptions { options, ..CompileOptions::default() });
        compiled.map_err(|source| Error::Compile { module: self.name(), source })
    }
}
