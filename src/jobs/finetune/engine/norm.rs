//! RMS norm (Zhang and Sennrich 2019) of rows, or of the heads of rows.

use candle_core::{D, Result, Tensor};

use super::compute::{Compute, wide};
use super::gradients::Gradients;
use super::products::in_rows;
use super::slices::numbers;
use super::vector;
use crate::jobs::finetune::learner::Tensors;

/// A norm of a model.
#[derive(Debug)]
pub struct Norm {
    /// Of its weight.
    pub name: String,
    pub weight: Tensor,
    pub epsilon: f32,
}

impl Norm {
    fn weight<'a>(&'a self, parameters: &'a Tensors) -> &'a Tensor {
        parameters.get(&self.name).unwrap_or(&self.weight)
    }

    fn width(&self) -> usize {
        self.weight.elem_count()
    }
}

/// x / rms(x) · weight.
pub fn forward(compute: &Compute, norm: &Norm, parameters: &Tensors, x: &Tensor) -> Result<Tensor> {
    let weight = norm.weight(parameters);
    if compute.fused {
        return fused(norm, &numbers(weight)?, x);
    }
    let heads = wide(x)?.reshape(((), norm.width()))?;
    let y = heads.broadcast_mul(&scales(norm, &heads)?)?.broadcast_mul(weight)?;
    compute.narrow(&y.reshape(x.shape())?)
}

/// The gradient of what was normed, and that of the weight if it is trained. `onto`: what it is added to.
pub fn backward(
    compute: &Compute,
    norm: &Norm,
    parameters: &Tensors,
    x: &Tensor,
    dy: &Tensor,
    onto: Option<&Tensor>,
    gradients: &mut Gradients<'_>,
) -> Result<Tensor> {
    let weight = norm.weight(parameters);
    let trained = parameters.contains_key(&norm.name);
    if compute.fused {
        if trained {
            gradients.edit(&norm.name, |sum| {
                fused_weight_gradient(norm, &numbers(x)?, &numbers(dy)?, sum);
                Ok(())
            })?;
        }
        return fused_gradient(norm, &numbers(weight)?, x, &numbers(dy)?, onto);
    }
    let width = norm.width();
    let (heads, dy) = (wide(x)?.reshape(((), width))?, wide(dy)?.reshape(((), width))?);
    let scales = scales(norm, &heads)?;
    if trained {
        gradients.add(&norm.name, &(&dy * heads.broadcast_mul(&scales)?)?.sum(0)?)?;
    }
    let weighted = dy.broadcast_mul(weight)?;
    let across = ((&weighted * &heads)?.mean_keepdim(D::Minus1)? * scales.powf(3.0)?)?;
    let dx = (weighted.broadcast_mul(&scales)? - heads.broadcast_mul(&across)?)?.reshape(x.shape())?;
    compute.narrow(&if let Some(onto) = onto { (dx + wide(onto)?)? } else { dx })
}

/// One over the root mean square of every row.
fn scales(norm: &Norm, heads: &Tensor) -> Result<Tensor> {
    (heads.sqr()?.mean_keepdim(D::Minus1)? + f64::from(norm.epsilon))?.sqrt()?.recip()
}

#[expect(clippy::cast_precision_loss, reason = "a width")]
fn scale_of(norm: &Norm, row: &[f32]) -> f32 {
    1.0 / (vector::dot(row, row) / row.len() as f32 + norm.epsilon).sqrt()
}

fn fused(norm: &Norm, weight: &[f32], x: &Tensor) -> Result<Tensor> {
    let (all, width) = (numbers(x)?, norm.width());
    let mut y = vec![0.0; all.len()];
    in_rows(&mut y, width, |first, y| {
        for (y, row) in y.chunks_exact_mut(width).zip(all[first * width..].chunks_exact(width)) {
            vector::weigh(y, row, weight, scale_of(norm, row));
        }
    });
    Tensor::from_vec(y, x.shape(), x.device())
}

#[expect(clippy::cast_precision_loss, reason = "a width")]
fn fused_gradient(norm: &Norm, weight: &[f32], x: &Tensor, dy: &[f32], onto: Option<&Tensor>) -> Result<Tensor> {
    let (all, onto, width) = (numbers(x)?, onto.map(numbers).transpose()?, norm.width());
    let mut dx = vec![0.0; all.len()];
    in_rows(&mut dx, width, |first, dx| {
        let rows = all[first * width..].chunks_exact(width).zip(dy[first * width..].chunks_exact(width));
        for (dx, (row, dy)) in dx.chunks_exact_mut(width).zip(rows) {
            let scale = scale_of(norm, row);
            let across = scale * scale * scale * vector::dot_3(dy, weight, row) / width as f32;
            vector::norm_gradient(dx, dy, weight, row, [scale, across]);
        }
        if let Some(onto) = &onto {
            vector::add(dx, &onto[first * width..]);
        }
    });
    Tensor::from_vec(dx, x.shape(), x.device())
}

/// Every number of the weight sums over the rows in their order.
fn fused_weight_gradient(norm: &Norm, x: &[f32], dy: &[f32], sum: &mut [f32]) {
    let width = norm.width();
    for (row, dy) in x.chunks_exact(width).zip(dy.chunks_exact(width)) {
        vector::add_product(sum, row, dy, scale_of(norm, row));
    }
}
