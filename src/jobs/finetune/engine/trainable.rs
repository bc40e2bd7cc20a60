//! What of a model is trained: names, shapes and first values.

use candle_core::{DType, Result, Tensor, bail};

use super::base::{Base, Rows};
use super::compute::Compute;
use super::linear::Linear;
use super::settings::{Lora, Method, matches};
use crate::jobs::finetune::learner::Tensors;
use crate::jobs::finetune::rng::{Philox, Purpose};

/// A parameter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trainable {
    pub name: String,
    pub shape: Vec<usize>,
}

/// A matrix or vector that can be trained itself.
pub enum Weight<'a> {
    Matrix(&'a Base, [usize; 2]),
    Table(&'a Rows, [usize; 2]),
    Vector(&'a Tensor),
}

impl Weight<'_> {
    pub fn shape(&self) -> Vec<usize> {
        match self {
            Self::Matrix(_, shape) | Self::Table(_, shape) => shape.to_vec(),
            Self::Vector(vector) => vector.dims().to_vec(),
        }
    }
}

/// Which weights are trained themselves.
pub fn is_whole(method: &Method, name: &str) -> bool {
    match method {
        Method::Full(patterns) => patterns.is_empty() || patterns.iter().any(|pattern| matches(pattern, name)),
        Method::Lora(lora) => lora.also.iter().any(|pattern| matches(pattern, name)),
    }
}

/// Whether a matrix gets an adapter. The head does only if it is asked for.
pub fn is_adapted<'a>(method: &'a Method, name: &str) -> Option<&'a Lora> {
    match method {
        Method::Lora(lora) if name.starts_with("blk.") => Some(lora).filter(|lora| lora.adapts(name)),
        Method::Lora(lora) if name == "output" => Some(lora).filter(|lora| lora.targets.iter().any(|pattern| matches_head(pattern))),
        _ => None,
    }
}

/// Patterns for all matrices mean those of the blocks, as PEFT's `all-linear` does.
fn matches_head(pattern: &str) -> bool {
    pattern != "all-linear" && pattern != "*" && matches(pattern, "output")
}

/// The parameters of a matrix's adapter.
pub fn adapter(linear: &Linear, lora: &Lora) -> Vec<Trainable> {
    let (rank, names) = (lora.rank_of(&linear.name), &linear.names);
    let mut all = vec![
        Trainable { name: names.lora_a.clone(), shape: vec![rank, linear.inputs] },
        Trainable { name: names.lora_b.clone(), shape: vec![linear.outputs, rank] },
    ];
    if lora.dora {
        all.push(Trainable { name: names.magnitude.clone(), shape: vec![linear.outputs] });
    }
    all
}

/// The first values of an adapter: A as PyTorch's linear layers (uniform within one over the root of its inputs), B zero, magnitudes those
/// that change nothing.
pub fn init_adapter(compute: &Compute, linear: &Linear, parameters: &[Trainable], seed: u64, into: &mut Tensors) -> Result<()> {
    for Trainable { name, shape } in parameters {
        let tensor = if *name == linear.names.lora_a {
            kaiming(compute, linear, shape, seed)?
        } else if *name == linear.names.lora_b {
            Tensor::zeros(shape.as_slice(), DType::F32, &compute.device)?
        } else if *name == linear.names.magnitude {
            linear.base.row_norms(compute, None)?
        } else {
            continue;
        };
        into.insert(name.clone(), tensor);
    }
    Ok(())
}

#[expect(clippy::cast_precision_loss, reason = "a width")]
fn kaiming(compute: &Compute, linear: &Linear, shape: &[usize], seed: u64) -> Result<Tensor> {
    let bound = 1.0 / (linear.inputs as f32).sqrt();
    let mut values = vec![0.0; shape.iter().product()];
    let [layer, module] = linear.place.map(|place| place as u64);
    Philox::new(seed).stream(Purpose::Init, [layer, module, 0, 0]).fill_uniform(&mut values);
    for value in &mut values {
        *value = (*value * 2.0 - 1.0) * bound;
    }
    compute.tensor(values, shape)
}

/// A weight's own numbers, in memory of their own.
pub fn init_whole(compute: &Compute, weight: &Weight<'_>) -> Result<Tensor> {
    match weight {
        Weight::Matrix(base, _) => base.dense(compute)?.to_dtype(DType::F32)?.copy(),
        Weight::Table(rows, shape) => compute.tensor(rows.all(), (shape[0], shape[1])),
        Weight::Vector(vector) => vector.copy(),
    }
}

/// Whether these are parameters of the model, whose own are in the order of their names.
///
/// # Errors
/// When one is not, or has another shape.
pub fn check(trainable: &[Trainable], parameters: &Tensors) -> Result<()> {
    for (name, tensor) in parameters {
        let known = trainable.binary_search_by(|trainable| trainable.name.cmp(name)).ok();
        match known.map(|index| &trainable[index]) {
            None => bail!("`{name}` is not trained by these settings"),
            Some(known) if known.shape != tensor.dims() => bail!("`{name}` has the shape {:?}, not {:?}", tensor.dims(), known.shape),
            Some(_) if tensor.dtype() != DType::F32 => bail!("`{name}` is not of 32 bits"),
            Some(_) => {}
        }
    }
    Ok(())
}
