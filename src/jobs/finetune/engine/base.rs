//! The frozen matrices of a model: where they lie, and products with them.
//!
//! On the CPU they stay in the mapped file, in whatever format it has them, and are unpacked piece by piece for each product. On an
//! accelerator plain ones are tensors, and quantised ones stay quantised and are unpacked whole for each product.

#![expect(unsafe_code, reason = "plain numbers are used where they are mapped, and threads write different pieces of one result")]

use std::borrow::Cow;
use std::cell::RefCell;
use std::ops::Range;

use candle_core::quantized::{GgmlDType, QStorage, QTensor};
use candle_core::{DType, Device, Result, Tensor, bail};
use rayon::prelude::*;

use super::compute::Compute;
use super::products::{Matrix, Onto, PIECE, in_columns, multiply, multiply_at, product};
use super::slices::{Numbers, edit, numbers};
use super::vector;
use crate::gguf::TensorKind;
use crate::lm::cpu::kernels::{Isa, is_dense, unpack_row_of};
use crate::lm::weights::{Source, Tensor as Packed};

/// A matrix of `rows` outputs and `columns` inputs.
#[derive(Debug)]
pub enum Base {
    File(Rows),
    Dense(Tensor),
    Quantized(QTensor),
}

/// Rows in a mapped file, or rounded from it.
#[derive(Debug, Clone)]
pub struct Rows {
    source: Source,
    packed: Packed,
    /// In the place of the file's.
    rounded: Option<Vec<u8>>,
    isa: Isa,
}

/// About so many numbers are unpacked at a time for all threads together.
pub const BLOCK: usize = 1 << 20;

thread_local! {
    static SCRATCH: RefCell<Vec<f32>> = RefCell::default();
}

impl Rows {
    pub fn new(source: &Source, packed: Packed) -> Self {
        Self { source: source.clone(), packed, rounded: None, isa: Isa::detect() }
    }

    /// As plain numbers of 16 bits, if the file has them of 32.
    #[must_use]
    pub fn rounded(mut self) -> Self {
        if self.packed.kind == TensorKind::F32 {
            let round = |bytes: &[u8; 4]| half::bf16::from_f32(f32::from_le_bytes(*bytes)).to_le_bytes();
            self.rounded = Some(self.bytes(0..self.packed.rows).as_chunks::<4>().0.iter().flat_map(round).collect());
            self.packed = Packed { kind: TensorKind::BF16, row_bytes: self.packed.row_bytes / 2, ..self.packed };
        }
        self
    }

    /// As they lie there, packed or not.
    pub fn bytes(&self, rows: Range<usize>) -> &[u8] {
        match &self.rounded {
            Some(bytes) => &bytes[rows.start * self.packed.row_bytes..rows.end * self.packed.row_bytes],
            None => self.source.bytes(&self.packed, rows),
        }
    }

    /// Where they lie, if they lie there as numbers of 32 bits.
    fn plain(&self, rows: Range<usize>) -> Option<&[f32]> {
        if self.packed.kind != TensorKind::F32 || cfg!(target_endian = "big") {
            return None;
        }
        // SAFETY: every pattern of 32 bits is a number.
        let (before, numbers, behind) = unsafe { self.bytes(rows).align_to::<f32>() };
        (before.is_empty() && behind.is_empty()).then_some(numbers)
    }

    /// Unpacks rows, all into `out`.
    pub fn unpack(&self, rows: Range<usize>, out: &mut [f32]) {
        unpack_row_of(self.isa, self.packed.kind, self.bytes(rows), out);
    }

    /// All rows as numbers.
    pub fn all(&self) -> Vec<f32> {
        let mut all = vec![0.0; self.packed.rows * self.packed.columns];
        self.unpack(0..self.packed.rows, &mut all);
        all
    }

    /// Rows as numbers, in `scratch` if they do not lie so.
    fn numbers<'a>(&'a self, rows: Range<usize>, scratch: &'a mut Vec<f32>) -> &'a [f32] {
        if let Some(numbers) = self.plain(rows.clone()) {
            return numbers;
        }
        scratch.resize(rows.len() * self.packed.columns, 0.0);
        self.unpack(rows, scratch);
        scratch
    }

    pub fn count(&self) -> usize {
        self.packed.rows
    }

    #[cfg(feature = "cuda")]
    pub fn kind(&self) -> TensorKind {
        self.packed.kind
    }

    pub fn columns(&self) -> usize {
        self.packed.columns
    }

    pub fn is_quantized(&self) -> bool {
        !is_dense(self.packed.kind)
    }

    /// Whether products need room to unpack.
    pub fn is_packed(&self) -> bool {
        self.plain(0..self.packed.rows).is_none()
    }

    fn on_device(&self, compute: &Compute) -> Result<Base> {
        let shape = (self.packed.rows, self.packed.columns);
        if self.is_quantized() {
            let Some(kind) = ggml(self.packed.kind) else { bail!("{} is not known on this device", self.packed.kind) };
            let storage = QStorage::from_data(Cow::Borrowed(self.bytes(0..self.packed.rows)), &compute.device, kind)?;
            return Ok(Base::Quantized(QTensor::new(storage, shape)?));
        }
        // Narrowed before it goes there, so that nothing wider leaves holes in the device's memory.
        let all = Tensor::from_vec(self.all(), shape, &Device::Cpu)?;
        Ok(Base::Dense(all.to_dtype(compute.dtype)?.to_device(&compute.device)?))
    }
}

/// candle's name of a quantised format.
fn ggml(kind: TensorKind) -> Option<GgmlDType> {
    Some(match kind {
        TensorKind::Q4_0 => GgmlDType::Q4_0,
        TensorKind::Q4_1 => GgmlDType::Q4_1,
        TensorKind::Q5_0 => GgmlDType::Q5_0,
        TensorKind::Q5_1 => GgmlDType::Q5_1,
        TensorKind::Q8_0 => GgmlDType::Q8_0,
        TensorKind::Q4_K => GgmlDType::Q4K,
        TensorKind::Q5_K => GgmlDType::Q5K,
        TensorKind::Q6_K => GgmlDType::Q6K,
        _ => return None,
    })
}

/// What a product on the CPU is made with: the matrix of the file, or what is trained in its place.
enum Weights<'a> {
    Trained(Numbers<'a>),
    File(&'a Rows),
}

impl Weights<'_> {
    /// All numbers, if they lie so.
    fn plain(&self) -> Option<&[f32]> {
        match self {
            Self::Trained(numbers) => Some(numbers),
            Self::File(rows) => rows.plain(0..rows.count()),
        }
    }

    /// Calls with some rows as numbers.
    fn with<R>(&self, rows: Range<usize>, columns: usize, call: impl FnOnce(&[f32]) -> R) -> R {
        match self {
            Self::Trained(numbers) => call(&numbers[rows.start * columns..rows.end * columns]),
            Self::File(file) => SCRATCH.with_borrow_mut(|scratch| call(file.numbers(rows, scratch))),
        }
    }
}

impl Base {
    /// Takes a matrix into use.
    pub fn new(compute: &Compute, rows: Rows) -> Result<Self> {
        if compute.fused { Ok(Self::File(rows)) } else { rows.on_device(compute) }
    }

    /// As plain numbers of the device.
    pub fn dense(&self, compute: &Compute) -> Result<Tensor> {
        match self {
            Self::Dense(tensor) => Ok(tensor.clone()),
            Self::Quantized(tensor) => tensor.dequantize(&compute.device)?.to_dtype(compute.dtype),
            Self::File(rows) => compute.tensor(rows.all(), (rows.count(), rows.columns())),
        }
    }

    /// What it takes of an accelerator's memory.
    pub fn device_bytes(&self) -> usize {
        match self {
            Self::Dense(tensor) => tensor.elem_count() * tensor.dtype().size_in_bytes(),
            Self::Quantized(tensor) => tensor.storage_size_in_bytes(),
            Self::File(_) => 0,
        }
    }

    fn weights<'a>(&'a self, trained: Option<&'a Tensor>) -> Result<Weights<'a>> {
        Ok(match (trained, self) {
            (Some(trained), _) => Weights::Trained(numbers(trained)?),
            (None, Self::File(rows)) => Weights::File(rows),
            (None, Self::Dense(tensor)) => Weights::Trained(numbers(tensor)?),
            (None, Self::Quantized(_)) => bail!("a matrix of the accelerator is asked for on the CPU"),
        })
    }

    /// x · Wᵀ.
    pub fn forward(&self, compute: &Compute, trained: Option<&Tensor>, x: &Tensor) -> Result<Tensor> {
        if !compute.fused {
            return x.matmul(&self.whole(compute, trained)?.t()?);
        }
        let (weights, all, (tokens, columns)) = (self.weights(trained)?, numbers(x)?, x.dims2()?);
        let rows = self.row_count(trained)?;
        let (x, mut y) = (Matrix::new(&all, columns), vec![0.0; tokens * rows]);
        in_columns(&mut y, rows, |range, at| {
            weights.with(range, columns, |w| {
                // SAFETY: `in_columns` gives each task columns of its own.
                unsafe { multiply_at(at, rows, Onto::Nothing, 1.0, x, Matrix::new(w, columns).transposed()) }
            });
        });
        compute.tensor(y, (tokens, rows))
    }

    /// dy · W, added to `onto`.
    pub fn backward(&self, compute: &Compute, trained: Option<&Tensor>, dy: &Tensor, onto: Option<Tensor>) -> Result<Tensor> {
        if !compute.fused {
            let dx = dy.matmul(&self.whole(compute, trained)?)?;
            return if let Some(onto) = onto { onto + dx } else { Ok(dx) };
        }
        let (weights, all, (tokens, rows)) = (self.weights(trained)?, numbers(dy)?, dy.dims2()?);
        let columns = self.column_count(trained)?;
        let dy = Matrix::new(&all, rows);
        if let Some(sum) = onto {
            edit(&sum, |sum| backward(&weights, dy, columns, Onto::Sum, sum))?;
            return Ok(sum);
        }
        let mut dx = vec![0.0; tokens * columns];
        backward(&weights, dy, columns, Onto::Nothing, &mut dx);
        compute.tensor(dx, (tokens, columns))
    }

    fn whole(&self, compute: &Compute, trained: Option<&Tensor>) -> Result<Tensor> {
        trained.map_or_else(|| self.dense(compute), |trained| trained.to_dtype(compute.dtype))
    }

    fn row_count(&self, trained: Option<&Tensor>) -> Result<usize> {
        Ok(match (trained, self) {
            (Some(tensor), _) | (None, Self::Dense(tensor)) => tensor.dim(0)?,
            (None, Self::File(rows)) => rows.count(),
            (None, Self::Quantized(tensor)) => tensor.shape().dims2()?.0,
        })
    }

    fn column_count(&self, trained: Option<&Tensor>) -> Result<usize> {
        Ok(match (trained, self) {
            (Some(tensor), _) | (None, Self::Dense(tensor)) => tensor.dim(1)?,
            (None, Self::File(rows)) => rows.columns(),
            (None, Self::Quantized(tensor)) => tensor.shape().dims2()?.1,
        })
    }

    /// The length of every row of W + scale · B · A.
    pub fn row_norms(&self, compute: &Compute, adapter: Option<(&Tensor, &Tensor, f32)>) -> Result<Tensor> {
        // Where kernels train, the file's rows are still on the CPU, and so is the quicker way.
        if compute.fused || (matches!(self, Self::File(_)) && adapter.is_none()) {
            return self.fused_row_norms(compute, adapter);
        }
        let mut all = self.dense(compute)?.to_dtype(DType::F32)?;
        if let Some((a, b, scale)) = adapter {
            all = (all + (b.matmul(a)? * f64::from(scale))?)?;
        }
        all.sqr()?.sum(1)?.sqrt()
    }

    fn fused_row_norms(&self, compute: &Compute, adapter: Option<(&Tensor, &Tensor, f32)>) -> Result<Tensor> {
        let (weights, rows, columns) = (self.weights(None)?, self.row_count(None)?, self.column_count(None)?);
        let adapter = adapter.map(|(a, b, scale)| Ok::<_, candle_core::Error>((numbers(a)?, numbers(b)?, scale))).transpose()?;
        let mut norms = vec![0.0; rows];
        norms.par_chunks_mut(PIECE).enumerate().for_each(|(index, norms)| {
            let range = index * PIECE..index * PIECE + norms.len();
            let mut whole = weights.with(range.clone(), columns, <[f32]>::to_vec);
            if let Some((a, b, scale)) = &adapter {
                let rank = b.len() / rows;
                multiply(&mut whole, columns, Onto::Sum, *scale, Matrix::new(b, rank).rows(range), Matrix::new(a, columns));
            }
            for (norm, row) in norms.iter_mut().zip(whole.chunks_exact(columns)) {
                *norm = vector::dot(row, row).sqrt();
            }
        });
        compute.tensor(norms, rows)
    }
}

/// dy · W for weights that may have to be unpacked, some of their rows at a time.
fn backward(weights: &Weights<'_>, dy: Matrix<'_>, columns: usize, mut onto: Onto, dx: &mut [f32]) {
    if let Some(all) = weights.plain() {
        return product(dx, onto, 1.0, dy, Matrix::new(all, columns));
    }
    let each = (BLOCK / columns).max(1);
    let mut block = vec![0.0; each.min(dy.columns) * columns];
    for first in (0..dy.columns).step_by(each) {
        let range = first..dy.columns.min(first + each);
        let block = &mut block[..range.len() * columns];
        block.par_chunks_mut(16 * columns).enumerate().for_each(|(index, out)| {
            let start = first + index * 16;
            weights.with(start..start + out.len() / columns, columns, |rows| out.copy_from_slice(rows));
        });
        product(dx, onto, 1.0, dy.columns(range), Matrix::new(block, columns));
        onto = Onto::Sum;
    }
}
