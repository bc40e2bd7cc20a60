//! AdamW with decoupled weight decay (Loshchilov and Hutter 2019, arXiv:1711.05101), by PyTorch's formula and in its order of operations.
//!
//! Parameters, gradients and what is computed are of single precision; the state is, too, or 8 bits a number ([`blocks`]). On the CPU, and
//! with 8 bits anywhere, the work is done on slices one after another, so that it comes out the same on every run; otherwise by the learner
//! where the tensors lie, if it can, or by operations of the device.

mod blocks;
mod moments;

use std::collections::BTreeMap;

use candle_core::Tensor;

use super::checkpoint::Content;
use super::error::{Error, Result};
use super::learner::{Learner, Tensors};
use super::options::Options;
use moments::Moments;
#[cfg(test)]
pub(super) use moments::tests::Stepping;

/// One step for one tensor.
#[derive(Debug, Clone, Copy)]
struct Step {
    /// The learning rate of the tensor.
    rate: f64,
    decay: f64,
    betas: [f64; 2],
    epsilon: f64,
    /// 1 − βⁿ of each β, by which moments that began with zero are too small.
    corrections: [f64; 2],
    /// What the gradient is multiplied with first.
    scale: f64,
    draw: Draw,
}

/// What rounding to 8 bits is drawn from.
#[derive(Debug, Clone, Copy)]
struct Draw {
    seed: u64,
    /// Of the optimiser, from 0.
    step: u64,
    /// Among all, in the order of their names.
    tensor: u64,
}

#[derive(Debug)]
pub(super) struct AdamW {
    options: Options,
    /// Made so far.
    steps: u64,
    moments: BTreeMap<String, Moments>,
}

impl AdamW {
    /// One that has made no step.
    pub(super) fn new(options: &Options, parameters: &Tensors) -> Result<Self> {
        let doing = Error::device("making the optimiser's state");
        let made = |(name, tensor): (&String, &Tensor)| Ok((name.clone(), Moments::zero(tensor, options.eight_bit)?));
        let moments = parameters.iter().map(made).collect::<candle_core::Result<_>>().map_err(doing)?;
        Ok(Self { options: options.clone(), steps: 0, moments })
    }

    /// One that has made so many steps, with the state of [`AdamW::state`].
    pub(super) fn restore(options: &Options, parameters: &Tensors, steps: u64, state: &mut Tensors) -> Result<Self> {
        let doing = Error::device("reading the optimiser's state");
        let made = |(name, tensor): (&String, &Tensor)| Ok((name.clone(), Moments::restore(name, tensor, options.eight_bit, state)?));
        let moments = parameters.iter().map(made).collect::<candle_core::Result<_>>().map_err(doing)?;
        Ok(Self { options: options.clone(), steps, moments })
    }

    /// Changes the parameters by a gradient. `factors`: the schedule's, of the learning rate, and what the gradient is multiplied with.
    pub(super) fn step(&mut self, learner: &dyn Learner, parameters: &mut Tensors, gradients: &Tensors, factors: (f64, f64)) -> Result<()> {
        for (tensor, (name, moments)) in (0..).zip(&mut self.moments) {
            let (Some(parameter), Some(gradient)) = (parameters.get_mut(name), gradients.get(name)) else {
                return Err(Error::Gradient { step: self.steps, tensor: name.clone(), what: "missing" });
            };
            let draw = Draw { seed: self.options.seed, step: self.steps, tensor };
            let step = of_tensor(&self.options, draw, name, factors);
            *parameter = moments.step(learner, step, parameter, gradient).map_err(Error::device("changing the parameters"))?;
        }
        self.steps += 1;
        Ok(())
    }

    /// All of it but the number of steps, to be written.
    pub(super) fn state(&self) -> Vec<(String, Content<'_>)> {
        self.moments.iter().flat_map(|(name, moments)| moments.contents(name)).collect()
    }
}

fn of_tensor(options: &Options, draw: Draw, name: &str, (factor, scale): (f64, f64)) -> Step {
    let times = if name.ends_with(".lora_b") { options.lora_plus_ratio } else { 1.0 };
    // As Hugging Face's trainer chooses them.
    let spared = name.rsplit('.').next() == Some("bias") || name.contains("norm");
    #[expect(clippy::cast_precision_loss, reason = "no run has 2^53 steps")]
    let power = (draw.step + 1) as f64;
    Step {
        rate: options.learning_rate * times * factor,
        decay: if spared { 0.0 } else { options.weight_decay },
        betas: options.betas,
        epsilon: options.epsilon,
        corrections: options.betas.map(|beta| 1.0 - beta.powf(power)),
        scale,
        draw,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::Device;

    fn tensors(name: &str, numbers: &[f32]) -> Tensors {
        Tensors::from([(name.to_owned(), Tensor::new(numbers, &Device::Cpu).expect("made"))])
    }

    fn numbers(tensors: &Tensors, name: &str) -> Vec<f32> {
        tensors[name].to_vec1().expect("numbers")
    }

    /// `torch.optim.AdamW([p], lr=0.1, betas=(0.9, 0.95), eps=1e-6, weight_decay=0.1)`, torch 2.8.0.
    #[test]
    fn steps_are_pytorchs() {
        let options = Options { learning_rate: 0.1, betas: [0.9, 0.95], epsilon: 1e-6, weight_decay: 0.1, ..Options::default() };
        let mut parameters = tensors("w.weight", &[1.0, -2.0, 0.5]);
        let mut optimizer = AdamW::new(&options, &parameters).expect("made");
        let gradients: [&[f32]; 3] = [&[0.1, -0.2, 3.0], &[0.3, 0.1, -1.0], &[-0.5, 0.0, 0.25]];
        for (gradient, expected) in gradients.into_iter().zip(TORCH) {
            let gradients = tensors("w.weight", gradient);
            optimizer.step(&Stepping(false), &mut parameters, &gradients, (1.0, 1.0)).expect("made");
            for (found, expected) in numbers(&parameters, "w.weight").iter().zip(expected) {
                assert!((found - expected).abs() <= 2e-7, "{found} {expected}");
            }
        }
    }

    const TORCH: [[f32; 3]; 3] =
        [[0.890_001, -1.880_000_5, 0.395_000_04], [0.790_232_2, -1.834_363_7, 0.350_619_38], [0.798_150_3, -1.795_007, 0.310_409_55]];

    #[test]
    fn b_learns_faster_norms_do_not_decay_and_a_long_gradient_is_scaled() {
        let options = Options { learning_rate: 0.1, lora_plus_ratio: 16.0, weight_decay: 0.5, ..Options::default() };
        let step = |name: &str| of_tensor(&options, Draw { seed: 0, step: 0, tensor: 0 }, name, (0.5, 0.25));
        assert_eq!((step("x.lora_a").rate, step("x.lora_b").rate), (0.05, 0.8));
        assert_eq!((step("blk.0.attn_norm.weight").decay, step("blk.0.attn_q.bias").decay, step("x.lora_a").decay), (0.0, 0.0, 0.5));
        assert_eq!((step("x").scale, step("x").rate), (0.25, 0.05));
    }
}
