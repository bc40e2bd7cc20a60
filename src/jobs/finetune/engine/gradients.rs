//! The gradients that a pass adds to.

use candle_core::{DType, Result, Tensor, bail};

use super::slices::edit;
use crate::jobs::finetune::learner::Tensors;

/// One for each parameter, of its shape.
#[derive(Debug)]
pub struct Gradients<'a> {
    all: &'a mut Tensors,
}

impl<'a> Gradients<'a> {
    /// Puts zeros where a parameter has no gradient yet.
    pub fn new(all: &'a mut Tensors, parameters: &Tensors) -> Result<Self> {
        for (name, parameter) in parameters {
            match all.get(name) {
                None => drop(all.insert(name.clone(), Tensor::zeros(parameter.shape(), DType::F32, parameter.device())?)),
                Some(gradient) if gradient.shape() == parameter.shape() => {}
                Some(gradient) => bail!("the gradient of `{name}` has the shape {:?}, not {:?}", gradient.shape(), parameter.shape()),
            }
        }
        Ok(Self { all })
    }

    #[cfg(feature = "cuda")]
    pub fn all(&self) -> &Tensors {
        self.all
    }

    fn of(&self, name: &str) -> Result<&Tensor> {
        self.all.get(name).ok_or_else(|| candle_core::Error::Msg(format!("`{name}` is no parameter of this pass")))
    }

    /// Adds to it.
    pub fn add(&mut self, name: &str, gradient: &Tensor) -> Result<()> {
        let sum = (self.of(name)? + gradient.to_dtype(DType::F32)?)?;
        self.all.insert(name.to_owned(), sum);
        Ok(())
    }

    /// Lets its numbers be added to where they are, on the CPU.
    pub fn edit(&mut self, name: &str, change: impl FnOnce(&mut [f32]) -> Result<()>) -> Result<()> {
        let mut result = Ok(());
        edit(self.of(name)?, |numbers| result = change(numbers))?;
        result
    }
}

/// Whether all numbers are finite.
///
/// # Errors
/// When one is not: the first tensor it is found in.
pub fn check_finite(tensors: &Tensors) -> Result<()> {
    for (name, tensor) in tensors {
        // Infinities and NaN stay in a sum of magnitudes, which itself has room for 10³⁸.
        let sum: f32 = tensor.to_dtype(DType::F32)?.abs()?.sum_all()?.to_scalar()?;
        if !sum.is_finite() {
            bail!("`{name}` is not finite (an infinity, or no number at all): lower the learning rate, or look at the data");
        }
    }
    Ok(())
}
