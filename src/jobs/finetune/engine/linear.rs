//! A matrix of the model with what is trained of it: y = W x + bias, with a low-rank adapter (LoRA), magnitudes (DoRA), or W itself.

use candle_core::{DType, Result, Tensor};

use super::algebra::Side::{Across, As};
use super::algebra::{add_multiplied, add_to_gradient, multiply};
use super::base::Base;
use super::compute::Compute;
use super::dropout::Mask;
use super::gradients::Gradients;
use crate::jobs::finetune::learner::{Pass, Tensors};

/// A matrix of a model.
#[derive(Debug)]
pub struct Linear {
    /// As the file has it, without `.weight`.
    pub name: String,
    pub names: Names,
    pub base: Base,
    pub bias: Option<Tensor>,
    pub outputs: usize,
    pub inputs: usize,
    /// What its adapter, if it has one, is multiplied with.
    pub scale: f32,
    /// Share of the adapter's inputs that is dropped.
    pub dropout: f32,
    /// Tells its dropout apart: the layer, and the place in it.
    pub place: [usize; 2],
}

/// Of what is trained.
#[derive(Debug)]
pub struct Names {
    pub weight: String,
    pub bias: String,
    pub lora_a: String,
    pub lora_b: String,
    pub magnitude: String,
}

impl Names {
    pub fn new(name: &str) -> Self {
        let of = |what| format!("{name}.{what}");
        Self { weight: of("weight"), bias: of("bias"), lora_a: of("lora_a"), lora_b: of("lora_b"), magnitude: of("magnitude") }
    }
}

/// What the way back needs besides what came in.
#[derive(Debug, Default)]
pub struct Saved {
    /// A x, of what was not dropped.
    low: Option<Tensor>,
    weighed: Option<Weighed>,
}

/// Of DoRA.
#[derive(Debug)]
struct Weighed {
    /// (W + scale · B A) x, of what was not dropped.
    product: Tensor,
    /// Of the rows of W + scale · B A.
    norms: Tensor,
}

/// An adapter in use.
struct Adapter<'a> {
    a: &'a Tensor,
    b: &'a Tensor,
    magnitude: Option<&'a Tensor>,
    mask: Option<Mask>,
}

impl Linear {
    fn adapter<'a>(&self, parameters: &'a Tensors, pass: Option<Pass>) -> Option<Adapter<'a>> {
        Some(Adapter {
            a: parameters.get(&self.names.lora_a)?,
            b: parameters.get(&self.names.lora_b)?,
            magnitude: parameters.get(&self.names.magnitude),
            mask: Mask::new(pass, self.dropout, self.place[0], self.place[1]),
        })
    }

    /// Whether its product has to be known on the way back.
    pub fn needs_product(&self, parameters: &Tensors) -> bool {
        parameters.contains_key(&self.names.magnitude)
    }

    fn add_bias(&self, compute: &Compute, parameters: &Tensors, y: Tensor) -> Result<Tensor> {
        match parameters.get(&self.names.bias).or(self.bias.as_ref()) {
            Some(bias) => y.broadcast_add(&compute.narrow(bias)?),
            None => Ok(y),
        }
    }
}

/// What comes out, row for row of `x`, and what the way back needs.
pub fn forward(compute: &Compute, linear: &Linear, parameters: &Tensors, x: &Tensor, pass: Option<Pass>) -> Result<(Tensor, Saved)> {
    let trained = parameters.get(&linear.names.weight);
    let y = linear.base.forward(compute, trained, x)?;
    let mut saved = Saved::default();
    let y = match linear.adapter(parameters, pass) {
        None => y,
        Some(adapter) => {
            let kept = adapter.mask.map_or_else(|| Ok(x.clone()), |mask| mask.apply(compute, x))?;
            let low = saved.low.insert(multiply(compute, 1.0, As(&kept), Across(adapter.a))?);
            match adapter.magnitude {
                None => add_multiplied(compute, y, linear.scale, As(low), Across(adapter.b))?,
                Some(magnitude) => {
                    let (y, weighed) = weigh(compute, linear, &adapter, magnitude, [&kept, low], y)?;
                    saved.weighed = Some(weighed);
                    y
                }
            }
        }
    };
    Ok((linear.add_bias(compute, parameters, y)?, saved))
}

/// What the way back needs, where what comes out is known or of no use.
pub fn remember(compute: &Compute, linear: &Linear, parameters: &Tensors, x: &Tensor, pass: Option<Pass>) -> Result<Saved> {
    if linear.needs_product(parameters) {
        return Ok(forward(compute, linear, parameters, x, pass)?.1);
    }
    let low = linear.adapter(parameters, pass).map(|adapter| {
        let kept = adapter.mask.map_or_else(|| Ok(x.clone()), |mask| mask.apply(compute, x))?;
        multiply(compute, 1.0, As(&kept), Across(adapter.a))
    });
    Ok(Saved { low: low.transpose()?, weighed: None })
}

/// DoRA: every output is scaled so that its row of W + scale · B A gets the length that is trained. That length counts as a constant on the
/// way back (section 4.3 of the paper). Without dropout it is magnitude / norm · product; with it, the plain product keeps all inputs.
fn weigh(
    compute: &Compute,
    linear: &Linear,
    adapter: &Adapter<'_>,
    magnitude: &Tensor,
    [kept, low]: [&Tensor; 2],
    y: Tensor,
) -> Result<(Tensor, Weighed)> {
    let norms = linear.base.row_norms(compute, Some((adapter.a, adapter.b, linear.scale)))?;
    let scales = compute.narrow(&(magnitude / &norms)?)?;
    if adapter.mask.is_none() {
        let product = add_multiplied(compute, y, linear.scale, As(low), Across(adapter.b))?;
        return Ok((product.broadcast_mul(&scales)?, Weighed { product, norms }));
    }
    let plain = linear.base.forward(compute, None, kept)?;
    let y = (y - &plain)?;
    let product = add_multiplied(compute, plain, linear.scale, As(low), Across(adapter.b))?;
    Ok(((y + product.broadcast_mul(&scales)?)?, Weighed { product, norms }))
}

/// A matrix on the way back: what went in, and the gradient of what came out.
pub struct Part<'a> {
    pub linear: &'a Linear,
    pub saved: &'a Saved,
    pub x: &'a Tensor,
    pub dy: &'a Tensor,
}

/// The gradient of what went into matrices that have it in common. Adds those of what is trained.
pub fn backward(
    compute: &Compute,
    parts: &[Part<'_>],
    parameters: &Tensors,
    pass: Option<Pass>,
    gradients: &mut Gradients<'_>,
) -> Result<Tensor> {
    let mut dx = None;
    for part in parts {
        dx = Some(backward_one(compute, part, parameters, pass, gradients, dx)?);
    }
    dx.ok_or_else(|| candle_core::Error::Msg("a layer has no matrices".to_owned()))
}

fn backward_one(
    compute: &Compute,
    part: &Part<'_>,
    parameters: &Tensors,
    pass: Option<Pass>,
    gradients: &mut Gradients<'_>,
    dx: Option<Tensor>,
) -> Result<Tensor> {
    let Part { linear, saved, x, dy } = *part;
    let (names, trained) = (&linear.names, parameters.get(&linear.names.weight));
    if parameters.contains_key(&names.bias) {
        gradients.add(&names.bias, &dy.to_dtype(DType::F32)?.sum(0)?)?;
    }
    if trained.is_some() {
        add_to_gradient(compute, gradients, &names.weight, 1.0, Across(dy), As(x))?;
    }
    let (Some(adapter), Some(low)) = (linear.adapter(parameters, pass), &saved.low) else {
        return linear.base.backward(compute, trained, dy, dx);
    };
    // The adapter's share of the gradient, and W's: with DoRA they are scaled.
    let scales = saved.weighed.as_ref().map(|weighed| weighed_backward(compute, linear, &adapter, weighed, dy, gradients)).transpose()?;
    let scaled = scales.as_ref().map(|scales| dy.broadcast_mul(scales)).transpose()?;
    let of_product = scaled.as_ref().unwrap_or(dy);
    add_to_gradient(compute, gradients, &names.lora_b, linear.scale, Across(of_product), As(low))?;
    let d_low = multiply(compute, linear.scale, As(of_product), As(adapter.b))?;
    let Some(mask) = adapter.mask else {
        add_to_gradient(compute, gradients, &names.lora_a, 1.0, Across(&d_low), As(x))?;
        let dx = linear.base.backward(compute, trained, of_product, dx)?;
        return add_multiplied(compute, dx, 1.0, As(&d_low), As(adapter.a));
    };
    add_to_gradient(compute, gradients, &names.lora_a, 1.0, Across(&d_low), As(&mask.apply(compute, x)?))?;
    let mut of_kept = multiply(compute, 1.0, As(&d_low), As(adapter.a))?;
    if let Some(scaled) = &scaled {
        of_kept = linear.base.backward(compute, trained, &(scaled - dy)?, Some(of_kept))?;
    }
    linear.base.backward(compute, trained, dy, dx)? + mask.apply(compute, &of_kept)?
}

/// Adds the gradient of the magnitudes, and gives what outputs were scaled with.
fn weighed_backward(
    compute: &Compute,
    linear: &Linear,
    adapter: &Adapter<'_>,
    weighed: &Weighed,
    dy: &Tensor,
    gradients: &mut Gradients<'_>,
) -> Result<Tensor> {
    let Some(magnitude) = adapter.magnitude else { candle_core::bail!("`{}` has no magnitude", linear.name) };
    let per_output = (dy.to_dtype(DType::F32)? * weighed.product.to_dtype(DType::F32)?)?.sum(0)?;
    gradients.add(&linear.names.magnitude, &(per_output / &weighed.norms)?)?;
    compute.narrow(&(magnitude / &weighed.norms)?)
}
