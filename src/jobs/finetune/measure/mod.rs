//! How fast training is here, and in how much memory: on models of well-known shapes whose weights are random.
//!
//! A step is what the trainer does in one: passes over rows of random tokens, forwards and backwards, and AdamW's step for every adapter.
//! [`check`] compares what an accelerator gives with what the CPU gives, on tiny models of every family.

mod check;
mod memory;
mod shape;
mod synthetic;

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Instant;

use candle_core::{Device, Tensor};
use serde::Serialize;

use super::batch::{Batch, Row};
use super::engine::{self, AdamW, Checkpointing, Engine, Lora, Method, Precision, Settings};
use super::learner::{Learner, Pass, Tensors};
use super::rng::{Philox, Purpose};
use crate::gguf::{self, Header, TensorKind};
use crate::lm::Choice;
use memory::Watch;

pub use check::{Check, check};
pub use shape::Shape;

/// What matrices can be of.
pub const KINDS: [TensorKind; 11] = [
    TensorKind::F32,
    TensorKind::F16,
    TensorKind::BF16,
    TensorKind::Q4_0,
    TensorKind::Q4_1,
    TensorKind::Q5_0,
    TensorKind::Q5_1,
    TensorKind::Q8_0,
    TensorKind::Q4_K,
    TensorKind::Q5_K,
    TensorKind::Q6_K,
];

/// Why nothing was measured.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("the model could not be made: {0}")]
    Made(#[from] std::io::Error),
    #[error("the model could not be read: {0}")]
    Read(#[from] gguf::Error),
    #[error("there is no such model: {0}")]
    Layout(#[from] gguf::layout::Error),
    #[error("weights cannot be packed so: {0}")]
    Pack(#[from] gguf::quants::Error),
    #[error(transparent)]
    Engine(#[from] engine::Error),
    #[error("the device failed: {0}")]
    Device(#[from] candle_core::Error),
}

/// What is to be measured.
#[derive(Debug, Clone)]
pub struct Wanted {
    pub shape: Shape,
    /// Of matrices.
    pub kind: TensorKind,
    /// Of each pass.
    pub rows: usize,
    /// Of each row.
    pub tokens: usize,
    /// Passes of a step.
    pub micro_batches: usize,
    pub rank: usize,
    pub dora: bool,
    pub dropout: f32,
    pub checkpointing: Checkpointing,
    pub precision: Precision,
    pub logits_bytes: usize,
    /// Timed; there is one before them.
    pub steps: usize,
    /// Whether one more step is made that says where its time goes.
    pub trace: bool,
}

/// What was measured.
#[derive(Debug, Clone, Serialize)]
pub struct Measurement {
    pub shape: &'static str,
    pub kind: &'static str,
    pub device: &'static str,
    /// Whether the work was done by kernels of this crate.
    pub kernels: bool,
    pub rows: usize,
    pub tokens: usize,
    pub micro_batches: usize,
    pub rank: usize,
    pub checkpointing: String,
    pub tokens_per_s: f64,
    /// The median, the fastest and the slowest.
    pub s_per_step: [f64; 3],
    /// Of all processors together; the median, the least and the most.
    pub cpu_s_per_step: [f64; 3],
    /// Of the device, all together; of this process on the CPU.
    pub peak_bytes: Option<u64>,
    /// Before the first step, of which the weights are.
    pub loaded_bytes: Option<u64>,
    /// What a pass was foretold to take, with weights and adapters.
    pub predicted_bytes: u64,
    pub made_s: f64,
    pub load_s: f64,
    /// Means of −ln p.
    pub losses: Vec<f64>,
    /// Milliseconds of one pass by what they are spent on.
    pub spent_ms: BTreeMap<&'static str, f32>,
}

/// Makes a model in `folder`, and trains it for some steps.
///
/// # Errors
/// When it cannot be made there, or the device fails.
pub fn measure(wanted: &Wanted, device: Choice, folder: &Path) -> Result<Measurement, Error> {
    let device = &open(device)?;
    let begun = Instant::now();
    let path = folder.join("model.gguf");
    synthetic::write(&path, &wanted.shape, wanted.kind)?;
    let (made_s, begun) = (begun.elapsed().as_secs_f64(), Instant::now());
    let engine = Engine::load(&path, &Header::read_file(&path)?, device.clone(), &settings(wanted))?;
    let mut run = Run::new(wanted, &engine)?;
    device.synchronize()?;
    let load_s = begun.elapsed().as_secs_f64();
    let watch = Watch::new(device);
    let (mut times, mut cpu_times, mut losses) = (Vec::new(), Vec::new(), Vec::new());
    for step in 0..=wanted.steps as u64 {
        let (begun, cpu_begun) = (Instant::now(), cpu_s());
        losses.push(run.step(step)?);
        device.synchronize()?;
        times.push(begun.elapsed().as_secs_f64());
        cpu_times.push(cpu_s() - cpu_begun);
    }
    let spent_ms = if wanted.trace { run.traced()? } else { BTreeMap::new() };
    let of_memory = [watch.peak_bytes(), watch.loaded_bytes()];
    let cpu_s_per_step = spread(&mut cpu_times[1..]);
    Ok(Measurement {
        made_s,
        load_s,
        cpu_s_per_step,
        losses,
        spent_ms,
        ..told(wanted, device, &engine, spread(&mut times[1..]), of_memory)
    })
}

fn told(
    wanted: &Wanted,
    device: &Device,
    engine: &Engine,
    s_per_step: [f64; 3],
    [peak_bytes, loaded_bytes]: [Option<u64>; 2],
) -> Measurement {
    let tokens = wanted.rows * wanted.tokens;
    let predicted = engine.predicted(tokens, wanted.tokens);
    Measurement {
        shape: wanted.shape.name,
        kind: wanted.kind.name(),
        device: if device.is_cuda() {
            "CUDA"
        } else if device.is_metal() {
            "Metal"
        } else {
            "CPU"
        },
        kernels: engine.uses_kernels(),
        rows: wanted.rows,
        tokens: wanted.tokens,
        micro_batches: wanted.micro_batches,
        rank: wanted.rank,
        checkpointing: wanted.checkpointing.to_string(),
        tokens_per_s: count(tokens * wanted.micro_batches) / s_per_step[0],
        s_per_step,
        cpu_s_per_step: [0.0; 3],
        peak_bytes,
        loaded_bytes,
        // The optimiser's state is twice as large as the parameters.
        predicted_bytes: predicted.total_bytes() + 2 * predicted.parameters_bytes,
        made_s: 0.0,
        load_s: 0.0,
        losses: Vec::new(),
        spent_ms: BTreeMap::new(),
    }
}

fn open(device: Choice) -> candle_core::Result<Device> {
    match device {
        Choice::Cpu => Ok(Device::Cpu),
        Choice::Cuda => Device::new_cuda(0),
        Choice::Metal => Device::new_metal(0),
        Choice::Auto => Device::new_cuda(0).or_else(|_| Device::new_metal(0)).or(Ok(Device::Cpu)),
    }
}

fn settings(wanted: &Wanted) -> Settings {
    let lora = Lora { rank: wanted.rank, dora: wanted.dora, dropout: wanted.dropout, ..Lora::default() };
    let Wanted { precision, checkpointing, logits_bytes, .. } = *wanted;
    Settings { method: Method::Lora(lora), precision, checkpointing, logits_bytes }
}

#[expect(clippy::cast_precision_loss, reason = "tokens and labels, of which there are few")]
fn count(count: usize) -> f64 {
    count as f64
}

/// What all threads of this process have computed.
#[expect(clippy::cast_precision_loss, reason = "seconds of a process")]
fn cpu_s() -> f64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
}

fn spread(times: &mut [f64]) -> [f64; 3] {
    times.sort_by(f64::total_cmp);
    let at = |index: usize| times.get(index).copied().unwrap_or_default();
    [at(times.len() / 2), at(0), at(times.len().saturating_sub(1))]
}

/// A training under way.
struct Run<'a> {
    wanted: &'a Wanted,
    engine: &'a Engine,
    parameters: Tensors,
    /// Means, and mean squares, of gradients.
    moments: [Tensors; 2],
}

impl<'a> Run<'a> {
    fn new(wanted: &'a Wanted, engine: &'a Engine) -> Result<Self, Error> {
        let parameters = engine.init(0)?;
        let zero = |(name, tensor): (&String, &Tensor)| Ok((name.clone(), tensor.zeros_like()?));
        let zeros = || parameters.iter().map(zero).collect::<candle_core::Result<_>>();
        Ok(Self { moments: [zeros()?, zeros()?], wanted, engine, parameters })
    }

    /// The mean of −ln p before the step.
    fn step(&mut self, step: u64) -> candle_core::Result<f64> {
        let (mut gradients, mut sum, mut labels) = (Tensors::new(), 0.0, 0);
        for micro_batch in 0..self.wanted.micro_batches as u64 {
            let batch = self.batch([step, micro_batch]);
            let pass = Pass { seed: 1, step, micro_batch };
            let log_probs = self.engine.accumulate(&self.parameters, &batch, Some(pass), &mut gradients)?;
            sum -= log_probs.iter().map(|log_prob| f64::from(*log_prob)).sum::<f64>();
            labels += log_probs.len();
        }
        self.optimise(step, &gradients)?;
        Ok(sum / count(labels))
    }

    /// Rows of random tokens, of which all but the first are foretold.
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::cast_precision_loss, reason = "tokens of a vocabulary")]
    fn batch(&self, [step, micro_batch]: [u64; 2]) -> Batch {
        let Wanted { rows, tokens, micro_batches, ref shape, .. } = *self.wanted;
        let weight = 1.0 / (rows * tokens.saturating_sub(1) * micro_batches) as f32;
        let mut batch = Batch::default();
        for row in 0..rows as u64 {
            let mut numbers = vec![0.0; tokens];
            Philox::new(1).stream(Purpose::Order, [step, micro_batch, row, 0]).fill_uniform(&mut numbers);
            let token = |number: f32| ((number * shape.vocabulary as f32) as u32).min(shape.vocabulary as u32 - 1);
            batch.push(&Row { tokens: numbers.into_iter().map(token).collect(), weights: vec![weight; tokens] });
        }
        batch
    }

    #[expect(clippy::cast_possible_truncation, clippy::cast_precision_loss, reason = "few steps")]
    fn optimise(&mut self, step: u64, gradients: &Tensors) -> candle_core::Result<()> {
        let corrections = [0.9_f64, 0.999].map(|beta| (1.0 - beta.powf(step as f64 + 1.0)) as f32);
        let adam = AdamW { rate: 1e-4, betas: [0.9, 0.999], epsilon: 1e-8, decay: 0.01, corrections };
        let [means, squares] = &mut self.moments;
        for (name, parameter) in &mut self.parameters {
            let (Some(gradient), Some(mean), Some(square)) = (gradients.get(name), means.get_mut(name), squares.get_mut(name)) else {
                candle_core::bail!("`{name}` has no gradient");
            };
            if !self.engine.step_in_place(&adam, [parameter, gradient, mean, square])? {
                composed_step(&adam, [parameter, mean, square], gradient)?;
            }
        }
        Ok(())
    }

    /// Where the time of one pass goes.
    fn traced(&self) -> candle_core::Result<BTreeMap<&'static str, f32>> {
        self.engine.spent(&self.parameters, &self.batch([u64::MAX, 0]))
    }
}

/// AdamW by the device's operations.
fn composed_step(adam: &AdamW, [parameter, mean, square]: [&mut Tensor; 3], gradient: &Tensor) -> candle_core::Result<()> {
    let AdamW { rate, epsilon, decay, .. } = *adam;
    let [(first, of_mean), (second, of_square)] = [0, 1].map(|which| (f64::from(adam.betas[which]), f64::from(adam.corrections[which])));
    *mean = ((&*mean * first)? + (gradient * (1.0 - first))?)?;
    *square = ((&*square * second)? + (gradient.sqr()? * (1.0 - second))?)?;
    let change = ((&*mean / of_mean)? / ((&*square / of_square)?.sqrt()? + f64::from(epsilon))?)?;
    *parameter = ((&*parameter * (1.0 - f64::from(rate * decay)))? - (change * f64::from(rate))?)?;
    Ok(())
}
