//! The decoder's operations on an accelerator, through candle's tensors.
//!
//! Plain and complete rather than tuned: weights stay quantised in the accelerator's memory, everything else is candle's
//! standard operations in 32-bit numbers. Every layer keeps the whole context; sliding layers mask what they do not see.

use std::borrow::Cow;
use std::ops::Range;

use candle_core::quantized::{GgmlDType, QMatMul, QStorage, QTensor};
use candle_core::{D, DType, Device, Module, Tensor};
use candle_nn::{ops, rotary_emb};

use crate::gguf::TensorKind;

use super::config::{Activation, Pairing};
use super::cpu::kernels::{Isa, unpack_row_of};
use super::error::{Error, Result};
use super::ops::{Attention, Linear, Ops, Room};
use super::rope::Angles;
use super::weights::{Source, Tensor as Packed};

/// A candle device.
#[derive(Debug)]
pub struct Accelerated {
    device: Device,
    isa: Isa,
}

/// A matrix on the device, and the rows of it in the file for looking up embeddings.
#[derive(Debug)]
pub struct Matrix {
    product: QMatMul,
    source: Source,
    packed: Packed,
}

/// Keys and values of one layer: heads × slots × numbers.
#[derive(Debug)]
pub struct Store {
    keys: Tensor,
    values: Tensor,
}

impl Accelerated {
    pub fn new(device: Device) -> Self {
        Self { device, isa: Isa::detect() }
    }

    fn tensor(&self, values: Vec<f32>, shape: impl Into<candle_core::Shape>) -> Result<Tensor> {
        Ok(Tensor::from_vec(values, shape.into(), &self.device)?)
    }

    /// 0 where a token sees, −∞ where it does not.
    fn mask(&self, how: &Attention, tokens: usize) -> Result<Tensor> {
        let seen = how.start + tokens;
        let sees = |position: usize, key: usize| key <= position && key >= how.first_seen(position);
        let row = |token| (0..seen).map(move |key| if sees(how.start + token, key) { 0.0 } else { f32::NEG_INFINITY });
        self.tensor((0..tokens).flat_map(row).collect(), (1, 1, tokens, seen))
    }

    fn project_one(x: &Tensor, linear: &Linear<Self>) -> Result<Tensor> {
        let product = linear.matrix.product.forward(x)?;
        Ok(if let Some(bias) = &linear.bias { product.broadcast_add(bias)? } else { product })
    }
}

/// candle's name of a kind; `None`: it does not have it.
fn dtype(kind: TensorKind) -> Option<GgmlDType> {
    Some(match kind {
        TensorKind::F32 => GgmlDType::F32,
        TensorKind::F16 => GgmlDType::F16,
        TensorKind::BF16 => GgmlDType::BF16,
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

/// Limits by tanh.
fn soft_cap(x: Tensor, limit: Option<f32>) -> Result<Tensor> {
    Ok(if let Some(limit) = limit.map(f64::from) { ((x / limit)?.tanh()? * limit)? } else { x })
}

impl Ops for Accelerated {
    type Rows = Tensor;
    type Matrix = Matrix;
    type Vector = Tensor;
    type Store = Store;

    fn matrix(&self, source: &Source, tensor: &Packed, rows: Range<usize>) -> Result<Matrix> {
        let kind = dtype(tensor.kind).ok_or_else(|| Error::Unsupported { what: format!("{} on this device", tensor.kind) })?;
        let shape = (rows.len(), tensor.columns);
        let storage = QStorage::from_data(Cow::Borrowed(source.bytes(tensor, rows.clone())), &self.device, kind)?;
        let product = QMatMul::from_qtensor(QTensor::new(storage, shape)?)?;
        let packed = Packed { rows: rows.len(), offset: tensor.offset + rows.start * tensor.row_bytes, ..*tensor };
        Ok(Matrix { product, source: source.clone(), packed })
    }

    fn vector(&self, source: &Source, tensor: &Packed, range: Range<usize>) -> Result<Tensor> {
        let length = range.len();
        self.tensor(super::decoder::numbers(source, tensor, range), length)
    }

    fn keeps_rings(&self) -> bool {
        false
    }

    fn store(&self, room: Room) -> Result<Store> {
        let zeros = || Tensor::zeros((room.head_count_kv, room.slots, room.head_length), DType::F32, &self.device);
        Ok(Store { keys: zeros()?, values: zeros()? })
    }

    fn embed(&self, table: &Matrix, tokens: &[u32], scale: f32) -> Result<Tensor> {
        let Packed { kind, columns, .. } = table.packed;
        let mut rows = vec![0.0; tokens.len() * columns];
        for (&token, row) in tokens.iter().zip(rows.chunks_exact_mut(columns)) {
            let token = token as usize;
            unpack_row_of(self.isa, kind, table.source.bytes(&table.packed, token..token + 1), row);
        }
        Ok((self.tensor(rows, (tokens.len(), columns))? * f64::from(scale))?)
    }

    fn norm(&self, x: &Tensor, weight: &Tensor, epsilon: f32) -> Result<Tensor> {
        Ok(ops::rms_norm(&x.contiguous()?, weight, epsilon)?)
    }

    fn norm_heads(&self, x: Tensor, weight: &Tensor, epsilon: f32) -> Result<Tensor> {
        let shape = x.dims2()?;
        let heads = x.contiguous()?.reshape((shape.0 * shape.1 / weight.elem_count(), weight.elem_count()))?;
        Ok(ops::rms_norm(&heads, weight, epsilon)?.reshape(shape)?)
    }

    fn rotate(&self, x: Tensor, angles: &Angles, head_length: usize, pairing: Pairing) -> Result<Tensor> {
        let (tokens, width) = x.dims2()?;
        let heads = x.reshape((1, tokens, width / head_length, head_length))?.transpose(1, 2)?.contiguous()?;
        let part = |which: usize| self.tensor(angles.values.iter().map(|pair| pair[which]).collect(), (tokens, angles.pairs));
        let (cos, sin) = (part(0)?, part(1)?);
        let turned = heads.narrow(D::Minus1, 0, 2 * angles.pairs)?.contiguous()?;
        let turned = match pairing {
            Pairing::Halves => rotary_emb::rope(&turned, &cos, &sin)?,
            Pairing::Neighbours => rotary_emb::rope_i(&turned, &cos, &sin)?,
        };
        let rest = head_length - 2 * angles.pairs;
        let all = if rest == 0 { turned } else { Tensor::cat(&[&turned, &heads.narrow(D::Minus1, 2 * angles.pairs, rest)?], D::Minus1)? };
        Ok(all.transpose(1, 2)?.contiguous()?.reshape((tokens, width))?)
    }

    fn project<const N: usize>(&self, x: &Tensor, with: [&Linear<Self>; N]) -> Result<[Tensor; N]> {
        let products = with.iter().map(|linear| Self::project_one(x, linear)).collect::<Result<Vec<_>>>()?;
        products.try_into().map_err(|_| Error::Candle(candle_core::Error::Msg("a product is missing".to_owned())))
    }

    fn attend(&self, [query, key, value]: [Tensor; 3], store: &mut Store, how: &Attention) -> Result<Tensor> {
        let (tokens, _) = query.dims2()?;
        let (heads, per_key, width) = (how.head_count_kv, how.head_count / how.head_count_kv, how.head_length);
        let by_head = |x: Tensor, heads| -> Result<Tensor> { Ok(x.reshape((tokens, heads, width))?.transpose(0, 1)?.contiguous()?) };
        store.keys.slice_set(&by_head(key, heads)?, 1, how.start)?;
        store.values.slice_set(&by_head(value, heads)?, 1, how.start)?;
        let seen = how.start + tokens;
        let keys = store.keys.narrow(1, 0, seen)?.contiguous()?;
        let values = store.values.narrow(1, 0, seen)?.contiguous()?;
        let query = by_head(query, how.head_count)?.reshape((heads, per_key * tokens, width))?;
        let scores = (query.matmul(&keys.t()?.contiguous()?)? * f64::from(how.scale))?;
        let scores = soft_cap(scores, how.softcap)?.reshape((heads, per_key, tokens, seen))?;
        let scores = scores.broadcast_add(&self.mask(how, tokens)?)?;
        let weights = ops::softmax_last_dim(&scores)?.reshape((heads, per_key * tokens, seen))?;
        let out = weights.matmul(&values)?.reshape((how.head_count, tokens, width))?;
        Ok(out.transpose(0, 1)?.contiguous()?.reshape((tokens, how.head_count * width))?)
    }

    fn gated(&self, x: &Tensor, gate: &Linear<Self>, up: &Linear<Self>, activation: Activation) -> Result<Tensor> {
        let gate = Self::project_one(x, gate)?;
        let gate = match activation {
            Activation::Gelu => gate.gelu()?,
            Activation::Silu => gate.silu()?,
        };
        Ok((gate * Self::project_one(x, up)?)?)
    }

    fn add(&self, sum: Tensor, x: &Tensor) -> Result<Tensor> {
        Ok((sum + x)?)
    }

    fn last(&self, x: &Tensor) -> Result<Tensor> {
        Ok(x.narrow(0, x.dim(0)? - 1, 1)?.contiguous()?)
    }

    fn logits(&self, x: &Tensor, head: &Matrix, softcap: Option<f32>) -> Result<Vec<f32>> {
        let logits = soft_cap(head.product.forward(x)?, softcap)?;
        Ok(logits.flatten_all()?.to_vec1()?)
    }
}
