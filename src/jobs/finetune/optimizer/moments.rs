//! The running means of the gradient and of its square, of one tensor.

use candle_core::{DType, Error, Result, Tensor};

use super::blocks::{BLOCK, Blocks, Map, Rounding};
use super::{Draw, Step};
use crate::jobs::finetune::checkpoint::Content;
use crate::jobs::finetune::host;
use crate::jobs::finetune::learner::{Learner, Tensors, Update};

/// Tensors of fewer numbers are kept as they are: 8 bits would save nothing worth the error.
const SMALLEST_8_BIT: usize = 4096;

#[derive(Debug)]
pub(super) enum Moments {
    Host { first: Vec<f32>, second: Vec<f32> },
    Device { first: Tensor, second: Tensor },
    EightBit { first: Blocks, second: Blocks },
}

impl Moments {
    pub(super) fn zero(parameter: &Tensor, eight_bit: bool) -> Result<Self> {
        let count = parameter.elem_count();
        Ok(if eight_bit && count >= SMALLEST_8_BIT {
            Self::EightBit { first: Blocks::zero(count, Map::Signed), second: Blocks::zero(count, Map::Root) }
        } else if parameter.device().is_cpu() {
            Self::Host { first: vec![0.0; count], second: vec![0.0; count] }
        } else {
            Self::Device { first: parameter.zeros_like()?, second: parameter.zeros_like()? }
        })
    }

    /// Takes what [`Moments::contents`] gave of the tensor of this name out of the state.
    pub(super) fn restore(name: &str, parameter: &Tensor, eight_bit: bool, state: &mut Tensors) -> Result<Self> {
        let mut take = |what: &str| {
            let key = format!("{what}/{name}");
            state.remove(&key).ok_or_else(|| Error::Msg(format!("`{key}` is missing")))
        };
        let floats = |tensor: &Tensor, count| {
            let numbers = tensor.to_dtype(DType::F32)?.flatten_all()?.to_vec1::<f32>()?;
            if numbers.len() == count { Ok(numbers) } else { Err(Error::Msg(format!("the state of `{name}` is of another shape"))) }
        };
        let count = parameter.elem_count();
        Ok(if eight_bit && count >= SMALLEST_8_BIT {
            let mut blocks = |codes: &str, scales: &str, map| {
                let codes = take(codes)?.flatten_all()?.to_vec1::<u8>()?;
                let scales = floats(&take(scales)?, count.div_ceil(BLOCK))?;
                Blocks::new(codes, scales, map)
                    .filter(|blocks| blocks.len() == count)
                    .ok_or_else(|| Error::Msg(format!("the state of `{name}` is of another shape")))
            };
            Self::EightBit {
                first: blocks("first.codes", "first.scales", Map::Signed)?,
                second: blocks("second.codes", "second.scales", Map::Root)?,
            }
        } else {
            let (first, second) = (floats(&take("first")?, count)?, floats(&take("second")?, count)?);
            if parameter.device().is_cpu() {
                Self::Host { first, second }
            } else {
                let there = |numbers| Tensor::from_vec(numbers, parameter.shape(), parameter.device());
                Self::Device { first: there(first)?, second: there(second)? }
            }
        })
    }

    pub(super) fn contents(&self, name: &str) -> Vec<(String, Content<'_>)> {
        let named = |what: &str, content| (format!("{what}/{name}"), content);
        match self {
            Self::Host { first, second } => vec![named("first", Content::Floats(first)), named("second", Content::Floats(second))],
            Self::Device { first, second } => vec![named("first", Content::Tensor(first)), named("second", Content::Tensor(second))],
            Self::EightBit { first, second } => vec![
                named("first.codes", Content::Bytes(first.codes())),
                named("first.scales", Content::Floats(first.scales())),
                named("second.codes", Content::Bytes(second.codes())),
                named("second.scales", Content::Floats(second.scales())),
            ],
        }
    }

    /// Takes the gradient into the means; gives the parameter as it is afterwards, which may be the same tensor.
    pub(super) fn step(&mut self, learner: &dyn Learner, step: Step, parameter: &Tensor, gradient: &Tensor) -> Result<Tensor> {
        if let Self::Device { first, second } = self {
            let taken = learner.step_in_place(&step.update(), [parameter, gradient, first, second])?;
            return if taken { Ok(parameter.clone()) } else { on_device(step, parameter, gradient, first, second) };
        }
        let mut numbers = host::read(parameter, <[f32]>::to_vec)?;
        host::read(gradient, |gradient| match self {
            Self::Host { first, second } => update(step, &mut numbers, gradient, first, second),
            Self::EightBit { first, second } => by_blocks(step, &mut numbers, gradient, first, second),
            Self::Device { .. } => {}
        })?;
        Tensor::from_vec(numbers, parameter.shape(), parameter.device())
    }
}

impl Step {
    #[expect(clippy::cast_possible_truncation, reason = "scalars are rounded to what they are used with")]
    fn update(&self) -> Update {
        let ([beta_1, beta_2], [correction_1, correction_2]) = (self.betas, self.corrections);
        Update {
            scale: self.scale as f32,
            kept: (1.0 - self.rate * self.decay) as f32,
            mean_moves: (1.0 - beta_1) as f32,
            square_stays: beta_2 as f32,
            square_takes: (1.0 - beta_2) as f32,
            size: (-self.rate / correction_1) as f32,
            root: correction_2.sqrt() as f32,
            epsilon: self.epsilon as f32,
        }
    }
}

/// On slices of one length. Each operation is rounded to single precision, as PyTorch does it.
fn update(step: Step, parameters: &mut [f32], gradient: &[f32], first: &mut [f32], second: &mut [f32]) {
    let Update { scale, kept, mean_moves, square_stays, square_takes, size, root, epsilon } = step.update();
    for (((parameter, gradient), first), second) in parameters.iter_mut().zip(gradient).zip(first).zip(second) {
        let gradient = gradient * scale;
        *first += mean_moves * (gradient - *first);
        *second = *second * square_stays + square_takes * gradient * gradient;
        *parameter = *parameter * kept + size * *first / (second.sqrt() / root + epsilon);
    }
}

/// A block after the other, so that no more than one is ever there in single precision.
fn by_blocks(step: Step, parameters: &mut [f32], gradient: &[f32], first: &mut Blocks, second: &mut Blocks) {
    let Draw { seed, step: number, tensor } = step.draw;
    let (mut means, mut squares) = ([0.0; BLOCK], [0.0; BLOCK]);
    for (block, (parameters, gradient)) in parameters.chunks_mut(BLOCK).zip(gradient.chunks(BLOCK)).enumerate() {
        let rounding = |which| Rounding::new(seed, [number, tensor, block as u64, which]);
        let (means, squares) = (&mut means[..parameters.len()], &mut squares[..parameters.len()]);
        first.decode(block, means);
        second.decode(block, squares);
        update(step, parameters, gradient, means, squares);
        first.encode(block, means, rounding(0));
        second.encode(block, squares, rounding(1));
    }
}

fn on_device(step: Step, parameter: &Tensor, gradient: &Tensor, first: &mut Tensor, second: &mut Tensor) -> Result<Tensor> {
    let [beta_1, beta_2] = step.betas;
    let [correction_1, correction_2] = step.corrections;
    let gradient = gradient.affine(step.scale, 0.0)?;
    *first = (&*first + ((&gradient - &*first)? * (1.0 - beta_1))?)?;
    *second = ((&*second * beta_2)? + (gradient.sqr()? * (1.0 - beta_2))?)?;
    let below = second.sqrt()?.affine(1.0 / correction_2.sqrt(), step.epsilon)?;
    let change = (first.div(&below)? * (step.rate / correction_1))?;
    parameter.affine(1.0 - step.rate * step.decay, 0.0)? - change
}

#[cfg(test)]
pub(super) mod tests {
    use candle_core::Device;

    use super::*;
    use crate::jobs::finetune::batch::Batch;
    use crate::jobs::finetune::learner::Pass;

    /// Takes steps over, or leaves them to others.
    pub struct Stepping(pub bool);

    impl Learner for Stepping {
        fn log_probs(&self, _: &Tensors, _: &Batch) -> Result<Vec<f32>> {
            unreachable!("nothing is read")
        }

        fn accumulate(&self, _: &Tensors, _: &Batch, _: Option<Pass>, _: &mut Tensors) -> Result<Vec<f32>> {
            unreachable!("nothing is learnt")
        }

        fn step_in_place(&self, update: &Update, _: [&Tensor; 4]) -> Result<bool> {
            assert_eq!(*update, STEP.update());
            Ok(self.0)
        }
    }

    #[test]
    fn what_lies_on_a_device_is_changed_by_the_learner_if_it_can() {
        let tensor = |numbers: &[f32]| Tensor::new(numbers, &Device::Cpu).expect("made");
        for taken in [true, false] {
            let mut moments = Moments::Device { first: tensor(&[0.0]), second: tensor(&[0.0]) };
            let after = moments.step(&Stepping(taken), STEP, &tensor(&[1.0]), &tensor(&[0.5])).expect("made");
            assert_eq!(after.to_vec1::<f32>().expect("numbers") == [1.0], taken);
        }
    }

    const STEP: Step = Step {
        rate: 0.01,
        decay: 0.1,
        betas: [0.9, 0.999],
        epsilon: 1e-8,
        corrections: [0.1, 0.001],
        scale: 0.5,
        draw: Draw { seed: 1, step: 0, tensor: 0 },
    };

    #[test]
    fn the_operations_of_devices_say_what_the_slices_say() {
        let device = Device::Cpu;
        let (parameter, gradient) = ([1.0_f32, -2.0, 0.25], [0.5_f32, 1e-4, -3.0]);
        let (mut numbers, mut first, mut second) = (parameter.to_vec(), vec![0.1, 0.0, -0.2], vec![0.01, 0.0, 0.3]);
        let tensor = |numbers: &[f32]| Tensor::new(numbers, &device).expect("made");
        let (mut first_there, mut second_there) = (tensor(&first), tensor(&second));
        update(STEP, &mut numbers, &gradient, &mut first, &mut second);
        let there = on_device(STEP, &tensor(&parameter), &tensor(&gradient), &mut first_there, &mut second_there).expect("made");
        for (here, there) in [(numbers, there), (first, first_there), (second, second_there)] {
            for (here, there) in here.iter().zip(there.to_vec1::<f32>().expect("numbers")) {
                assert!((here - there).abs() <= 3e-7 * here.abs().max(0.1), "{here} {there}");
            }
        }
    }
}
