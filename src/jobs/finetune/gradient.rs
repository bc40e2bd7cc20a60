//! How long a gradient is, and whether it is one at all.

use candle_core::Tensor;

use super::error::{Error, Result};
use super::host;
use super::learner::{Learner, Tensors};

/// What PyTorch's `clip_grad_norm_` adds to the norm before it divides by it.
const CLIP_EPSILON: f64 = 1e-6;

/// The Euclidean norm over all tensors together.
///
/// # Errors
/// When a parameter has no gradient, or one that is zero or no number; the error names it. For one reason a gradient may be zero: that of
/// LoRA's A is as long as its B is, with which training begins.
pub(super) fn norm(learner: &dyn Learner, step: u64, parameters: &Tensors, gradients: &Tensors) -> Result<f64> {
    let wrong = |tensor: &str, what| Error::Gradient { step, tensor: tensor.to_owned(), what };
    let mut found = Vec::new();
    for (name, parameter) in parameters {
        let gradient = gradients.get(name).ok_or_else(|| wrong(name, "missing"))?;
        if gradient.shape() != parameter.shape() {
            return Err(wrong(name, "of another shape"));
        }
        found.push(gradient);
    }
    let squares = squares(learner, &found).map_err(Error::device("measuring the gradient"))?;
    for (name, square) in parameters.keys().zip(&squares) {
        if !square.is_finite() {
            return Err(wrong(name, "not a number, or infinite"));
        }
        if *square == 0.0 && !waits_for_b(name, parameters)? {
            return Err(wrong(name, "zero"));
        }
    }
    let norm = squares.iter().sum::<f64>().sqrt();
    // Each of them may be zero by itself, but then nothing moves at all.
    if norm == 0.0 { Err(wrong(parameters.keys().next().map_or("", String::as_str), "zero, as are all others")) } else { Ok(norm) }
}

/// What a gradient of this norm is multiplied with so that it is at most as long as wanted, as PyTorch does it.
pub(super) fn clip(norm: f64, most: Option<f64>) -> f64 {
    most.map_or(1.0, |most| (most / (norm + CLIP_EPSILON)).min(1.0))
}

/// The sum of the squares of each tensor. On an accelerator all are fetched at once, which it waits for only once.
fn squares(learner: &dyn Learner, tensors: &[&Tensor]) -> candle_core::Result<Vec<f64>> {
    let square = |numbers: &[f32]| numbers.iter().map(|number| f64::from(*number).powi(2)).sum();
    if tensors.iter().all(|tensor| tensor.device().is_cpu()) {
        return tensors.iter().map(|tensor| host::read(tensor, square)).collect();
    }
    if let Some(squares) = learner.squares(tensors)? {
        return Ok(squares);
    }
    let sums = tensors.iter().map(|tensor| tensor.sqr()?.sum_all()).collect::<candle_core::Result<Vec<_>>>()?;
    Ok(Tensor::stack(&sums, 0)?.to_vec1::<f32>()?.into_iter().map(f64::from).collect())
}

fn waits_for_b(name: &str, parameters: &Tensors) -> Result<bool> {
    let b = name.strip_suffix(".lora_a").and_then(|stem| parameters.get(&format!("{stem}.lora_b")));
    let all_zero = |numbers: &[f32]| numbers.iter().all(|number| *number == 0.0);
    b.map_or(Ok(false), |b| host::read(b, all_zero).map_err(Error::device("looking at LoRA's B")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::jobs::finetune::optimizer::Stepping;
    use candle_core::Device;

    fn tensors(pairs: &[(&str, &[f32])]) -> Tensors {
        pairs.iter().map(|(name, numbers)| ((*name).to_owned(), Tensor::new(*numbers, &Device::Cpu).expect("made"))).collect()
    }

    #[test]
    fn a_norm_is_over_all_tensors_and_longer_ones_are_cut() {
        let all = tensors(&[("a", &[3.0]), ("b", &[0.0, 4.0])]);
        assert!((norm(&Stepping(false), 0, &all, &all).expect("fine") - 5.0).abs() < 1e-12);
        assert_eq!((clip(5.0, None), clip(0.5, Some(1.0))), (1.0, 1.0));
        assert!((clip(5.0, Some(1.0)) - 0.2).abs() < 1e-7);
    }

    #[test]
    fn what_is_no_gradient_is_named() {
        let parameters = tensors(&[("a", &[1.0, 2.0]), ("b", &[1.0])]);
        for (gradients, word) in [
            (tensors(&[("a", &[1.0, 1.0])]), "`b` is missing"),
            (tensors(&[("a", &[1.0, f32::NAN]), ("b", &[1.0])]), "`a` is not a number"),
            (tensors(&[("a", &[f32::INFINITY, 1.0]), ("b", &[1.0])]), "`a` is not a number"),
            (tensors(&[("a", &[1.0, 1.0]), ("b", &[0.0])]), "`b` is zero"),
            (tensors(&[("a", &[1.0]), ("b", &[1.0])]), "`a` is of another shape"),
        ] {
            let error = norm(&Stepping(false), 7, &parameters, &gradients).expect_err("wrong").to_string();
            assert!(error.contains(word) && error.contains("step 7"), "{error}");
        }
    }

    #[test]
    fn loras_a_may_wait_for_its_b_but_only_as_long_as_that_is_zero() {
        let gradients = tensors(&[("x.lora_a", &[0.0]), ("x.lora_b", &[1.0])]);
        assert!(
            (norm(&Stepping(false), 0, &tensors(&[("x.lora_a", &[1.0]), ("x.lora_b", &[0.0])]), &gradients).expect("fine") - 1.0).abs()
                < 1e-12
        );
        assert!(norm(&Stepping(false), 0, &tensors(&[("x.lora_a", &[1.0]), ("x.lora_b", &[0.1])]), &gradients).is_err());
        let none = tensors(&[("x.lora_a", &[0.0]), ("x.lora_b", &[0.0])]);
        assert!(norm(&Stepping(false), 0, &none, &none).is_err());
    }
}
