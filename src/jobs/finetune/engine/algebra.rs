//! Products of small matrices (of adapters), and of gradients.

use candle_core::{Result, Tensor};

use super::compute::Compute;
use super::gradients::Gradients;
use super::products::{Matrix, Onto, product};
use super::slices::{Numbers, edit, numbers};

/// A matrix, as it is or across.
#[derive(Debug, Clone, Copy)]
pub enum Side<'a> {
    As(&'a Tensor),
    Across(&'a Tensor),
}

use Side::{Across, As};

impl Side<'_> {
    fn tensor(self) -> Result<Tensor> {
        match self {
            As(tensor) => Ok(tensor.clone()),
            Across(tensor) => tensor.t(),
        }
    }

    fn numbers(&self) -> Result<(Numbers<'_>, usize)> {
        let (As(tensor) | Across(tensor)) = self;
        Ok((numbers(tensor)?, tensor.dim(1)?))
    }

    fn matrix<'a>(self, numbers: &'a (Numbers<'_>, usize)) -> Matrix<'a> {
        let matrix = Matrix::new(&numbers.0, numbers.1);
        if matches!(self, As(_)) { matrix } else { matrix.transposed() }
    }
}

fn onto(out: &mut [f32], onto: Onto, scale: f32, a: Side<'_>, b: Side<'_>) -> Result<[usize; 2]> {
    let (left, right) = (a.numbers()?, b.numbers()?);
    let (left, right) = (a.matrix(&left), b.matrix(&right));
    product(out, onto, scale, left, right);
    Ok([left.rows, right.columns])
}

fn shape(a: Side<'_>, b: Side<'_>) -> Result<(usize, usize)> {
    let rows = match a {
        As(a) => a.dim(0)?,
        Across(a) => a.dim(1)?,
    };
    let columns = match b {
        As(b) => b.dim(1)?,
        Across(b) => b.dim(0)?,
    };
    Ok((rows, columns))
}

/// scale · a · b. Sides of another kind of number than activations are brought to it.
pub fn multiply(compute: &Compute, scale: f32, a: Side<'_>, b: Side<'_>) -> Result<Tensor> {
    if compute.fused {
        let shape = shape(a, b)?;
        let mut out = vec![0.0; shape.0 * shape.1];
        onto(&mut out, Onto::Nothing, scale, a, b)?;
        return compute.tensor(out, shape);
    }
    compute.narrow(&a.tensor()?)?.matmul(&compute.narrow(&b.tensor()?)?)? * f64::from(scale)
}

/// sum + scale · a · b. `sum` has to be the caller's alone: it is changed where it is.
pub fn add_multiplied(compute: &Compute, sum: Tensor, scale: f32, a: Side<'_>, b: Side<'_>) -> Result<Tensor> {
    if !compute.fused {
        return sum + multiply(compute, scale, a, b)?;
    }
    let mut result = Ok([0; 2]);
    edit(&sum, |sum| result = onto(sum, Onto::Sum, scale, a, b))?;
    result.map(|_| sum)
}

/// Adds scale · a · b to a gradient.
pub fn add_to_gradient(compute: &Compute, gradients: &mut Gradients<'_>, name: &str, scale: f32, a: Side<'_>, b: Side<'_>) -> Result<()> {
    if compute.fused {
        return gradients.edit(name, |sum| onto(sum, Onto::Sum, scale, a, b).map(|_| ()));
    }
    gradients.add(name, &multiply(compute, scale, a, b)?)
}
