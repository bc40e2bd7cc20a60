//! The encoder: BERT's layers in candle's operations, in single precision.
//!
//! One text at a time, so that nothing is padded and nothing masked. Formulas: Devlin et al., 2018, as `transformers` computes them.

use std::collections::HashMap;

use candle_core::{D, DType, Device, Module, Tensor};
use candle_nn::{LayerNorm, Linear, ops};

use super::Config;
use crate::lm::{Error, Result};

/// Weights by name, as the file has them.
pub(super) struct Weights {
    tensors: HashMap<String, Tensor>,
}

impl Weights {
    pub(super) fn new(tensors: HashMap<String, Tensor>) -> Self {
        Self { tensors }
    }

    /// The tensor of this name and shape, in single precision. Files of whole models put `bert.` before the names.
    fn need(&self, name: &str, shape: &[usize]) -> Result<Tensor> {
        let found = self.tensors.get(name).or_else(|| self.tensors.get(&format!("bert.{name}")));
        let tensor = found.ok_or_else(|| Error::MissingTensor { name: name.to_owned() })?;
        if tensor.dims() != shape {
            let wide = |dims: &[usize]| dims.iter().map(|n| *n as u64).collect();
            return Err(Error::Shape { name: name.to_owned(), found: wide(tensor.dims()), expected: wide(shape) });
        }
        Ok(tensor.to_dtype(DType::F32)?)
    }

    fn linear(&self, name: &str, from: usize, to: usize) -> Result<Linear> {
        let weight = self.need(&format!("{name}.weight"), &[to, from])?;
        Ok(Linear::new(weight, Some(self.need(&format!("{name}.bias"), &[to])?)))
    }

    fn norm(&self, name: &str, config: &Config) -> Result<LayerNorm> {
        let part = |part: &str| self.need(&format!("{name}.LayerNorm.{part}"), &[config.hidden_size]);
        Ok(LayerNorm::new(part("weight")?, part("bias")?, config.layer_norm_eps))
    }
}

#[derive(Debug)]
pub(super) struct Encoder {
    words: Tensor,
    /// Of the positions and of the first kind of token, together.
    positions: Tensor,
    norm: LayerNorm,
    layers: Vec<Layer>,
    device: Device,
}

#[derive(Debug)]
struct Layer {
    query: Linear,
    key: Linear,
    value: Linear,
    mixed: Linear,
    mixed_norm: LayerNorm,
    wide: Linear,
    narrow: Linear,
    narrow_norm: LayerNorm,
    heads: usize,
}

impl Encoder {
    pub(super) fn load(config: &Config, weights: &Weights, device: Device) -> Result<Self> {
        let hidden = config.hidden_size;
        let words = weights.need("embeddings.word_embeddings.weight", &[config.vocab_size, hidden])?;
        let positions = weights.need("embeddings.position_embeddings.weight", &[config.max_position_embeddings, hidden])?;
        let kinds = weights.need("embeddings.token_type_embeddings.weight", &[2, hidden])?;
        let positions = positions.broadcast_add(&kinds.get(0)?)?;
        let norm = weights.norm("embeddings", config)?;
        let layers = (0..config.num_hidden_layers).map(|index| Layer::load(config, weights, index)).collect::<Result<_>>()?;
        Ok(Self { words, positions, norm, layers, device })
    }

    /// The mean over all tokens' vectors, with length 1.
    pub(super) fn embed(&self, tokens: &[u32]) -> Result<Vec<f32>> {
        let ids = Tensor::new(tokens, &self.device)?;
        let sum = (self.words.index_select(&ids, 0)? + self.positions.narrow(0, 0, tokens.len())?)?;
        let mut x = self.norm.forward(&sum)?;
        for layer in &self.layers {
            x = layer.forward(&x)?;
        }
        let mean = x.mean(0)?;
        let norm = mean.sqr()?.sum_all()?.sqrt()?;
        Ok(mean.broadcast_div(&norm)?.to_vec1()?)
    }
}

impl Layer {
    fn load(config: &Config, weights: &Weights, index: usize) -> Result<Self> {
        let (hidden, inner) = (config.hidden_size, config.intermediate_size);
        let name = |part: &str| format!("encoder.layer.{index}.{part}");
        Ok(Self {
            query: weights.linear(&name("attention.self.query"), hidden, hidden)?,
            key: weights.linear(&name("attention.self.key"), hidden, hidden)?,
            value: weights.linear(&name("attention.self.value"), hidden, hidden)?,
            mixed: weights.linear(&name("attention.output.dense"), hidden, hidden)?,
            mixed_norm: weights.norm(&name("attention.output"), config)?,
            wide: weights.linear(&name("intermediate.dense"), hidden, inner)?,
            narrow: weights.linear(&name("output.dense"), inner, hidden)?,
            narrow_norm: weights.norm(&name("output"), config)?,
            heads: config.num_attention_heads,
        })
    }

    /// `x`: tokens × hidden.
    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let attended = self.mixed.forward(&self.attention(x)?)?;
        let x = self.mixed_norm.forward(&(x + attended)?)?;
        let inner = self.narrow.forward(&self.wide.forward(&x)?.gelu_erf()?)?;
        Ok(self.narrow_norm.forward(&(x + inner)?)?)
    }

    #[expect(clippy::cast_precision_loss, reason = "numbers in a head")]
    fn attention(&self, x: &Tensor) -> Result<Tensor> {
        let (tokens, hidden) = x.dims2()?;
        let each = hidden / self.heads;
        let heads = |linear: &Linear| -> Result<Tensor> {
            Ok(linear.forward(x)?.reshape((tokens, self.heads, each))?.transpose(0, 1)?.contiguous()?)
        };
        let (query, key, value) = (heads(&self.query)?, heads(&self.key)?, heads(&self.value)?);
        let scores = (query.matmul(&key.transpose(D::Minus1, D::Minus2)?.contiguous()?)? / (each as f64).sqrt())?;
        let mixed = ops::softmax_last_dim(&scores)?.matmul(&value)?;
        Ok(mixed.transpose(0, 1)?.contiguous()?.reshape((tokens, hidden))?)
    }
}
