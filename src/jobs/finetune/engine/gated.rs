//! The gate of a feed-forward layer: activation(gate) · up.

use candle_core::{Result, Tensor};

use super::compute::{Compute, wide};
use super::products::in_rows;
use super::slices::numbers;
use super::vector;
use crate::lm::Activation;
use rayon::prelude::*;

pub fn forward(compute: &Compute, activation: Activation, gate: &Tensor, up: &Tensor) -> Result<Tensor> {
    if !compute.fused {
        let open = match activation {
            Activation::Gelu => gate.gelu()?,
            Activation::Silu => gate.silu()?,
        };
        return open * up;
    }
    let (gates, ups) = (numbers(gate)?, numbers(up)?);
    let mut out = vec![0.0; gates.len()];
    in_rows(&mut out, 1, |first, out| {
        let range = first..first + out.len();
        match activation {
            Activation::Gelu => vector::gelu_gated(out, &gates[range.clone()], &ups[range]),
            Activation::Silu => vector::silu_gated(out, &gates[range.clone()], &ups[range]),
        }
    });
    compute.tensor(out, gate.shape())
}

/// The gradients of gate and up. `dy` has to be the caller's alone: it may become one of them.
pub fn backward(compute: &Compute, activation: Activation, gate: &Tensor, up: &Tensor, dy: Tensor) -> Result<[Tensor; 2]> {
    if !compute.fused {
        return composed(compute, activation, gate, up, &dy);
    }
    let (gates, ups) = (numbers(gate)?, numbers(up)?);
    let mut d_gate = vec![0.0; gates.len()];
    super::slices::edit(&dy, |d_up| fused(activation, &gates, &ups, &mut d_gate, d_up))?;
    Ok([compute.tensor(d_gate, gate.shape())?, dy])
}

fn fused(activation: Activation, gate: &[f32], up: &[f32], d_gate: &mut [f32], d_up: &mut [f32]) {
    const NUMBERS: usize = 16_384;
    let parts = d_gate.par_chunks_mut(NUMBERS).zip(d_up.par_chunks_mut(NUMBERS));
    parts.zip(gate.par_chunks(NUMBERS).zip(up.par_chunks(NUMBERS))).for_each(|((d_gate, d_up), (gate, up))| match activation {
        Activation::Gelu => vector::gelu_gated_gradient(d_gate, d_up, gate, up),
        Activation::Silu => vector::silu_gated_gradient(d_gate, d_up, gate, up),
    });
}

/// The derivative of x · s(k(x)) with the logistic function s is s · (1 + x · k'(x) · (1 − s)).
fn composed(compute: &Compute, activation: Activation, gate: &Tensor, up: &Tensor, dy: &Tensor) -> Result<[Tensor; 2]> {
    const ROOT: f64 = 0.797_884_560_802_865_4;
    const CUBIC: f64 = 0.044_715;
    let (gate, up, dy) = (wide(gate)?, wide(up)?, wide(dy)?);
    let (inner, slope) = match activation {
        Activation::Silu => (gate.clone(), gate.ones_like()?),
        Activation::Gelu => {
            let square = gate.sqr()?;
            let inner = (&gate * square.affine(2.0 * ROOT * CUBIC, 2.0 * ROOT)?)?;
            (inner, square.affine(6.0 * ROOT * CUBIC, 2.0 * ROOT)?)
        }
    };
    let open = (inner.neg()?.exp()? + 1.0)?.recip()?;
    let derivative = (&open * ((&gate * slope)? * open.affine(-1.0, 1.0)?)?.affine(1.0, 1.0)?)?;
    let d_gate = ((&dy * up)? * derivative)?;
    let d_up = (dy * (gate * open)?)?;
    Ok([compute.narrow(&d_gate)?, compute.narrow(&d_up)?])
}
