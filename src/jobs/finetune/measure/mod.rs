//! How fast training is here, and in how much memory: on models of well-known shapes whose weights are random.
//!
//! A step is what the trainer does in one: passes over rows of random tokens, forwards and backwards, the gradient's norm, and the trainer's
//! own optimiser.
//! [`check`] compares what an accelerator gives with what the CPU gives, on tiny models of every family.

mod check;
mod memory;
mod shape;
mod synthetic;

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Instant;

use candle_core::Device;
use serde::Serialize;

use super::batch::{Batch, Row};
use super::busy::cpu_s;
use super::engine::{self, Checkpointing, Engine, Extent, Lora, Method, Precision, Settings};
use super::gradient;
use super::learner::{Learner, Pass, Tensors};
use super::optimizer::AdamW;
use super::options::Options;
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
    #[error(transparent)]
    Training(#[from] super::Error),
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
    /// `None`: as the trainer has it on this device.
    pub logits_bytes: Option<usize>,
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
    /// What of a step the gradient's norm and the optimiser take; the median, the least and the most.
    pub s_optimising: [f64; 3],
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
    let engine = Engine::load(&path, &Header::read_file(&path)?, device.clone(), &settings(wanted, device))?;
    let mut run = Run::new(wanted, &engine)?;
    device.synchronize()?;
    let load_s = begun.elapsed().as_secs_f64();
    let watch = Watch::new(device);
    let (mut times, mut cpu_times, mut optimising, mut losses) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for step in 0..=wanted.steps as u64 {
        let (begun, cpu_begun) = (Instant::now(), cpu_s());
        let (loss, gradients) = run.learn(step)?;
        device.synchronize()?;
        let learnt = begun.elapsed();
        run.optimise(step, &gradients)?;
        device.synchronize()?;
        times.push(begun.elapsed().as_secs_f64());
        cpu_times.push(cpu_s() - cpu_begun);
        optimising.push(begun.elapsed().saturating_sub(learnt).as_secs_f64());
        losses.push(loss);
    }
    let spent_ms = if wanted.trace { run.traced()? } else { BTreeMap::new() };
    let of_memory = [watch.peak_bytes(), watch.loaded_bytes()];
    let (cpu_s_per_step, s_optimising) = (spread(&mut cpu_times[1..]), spread(&mut optimising[1..]));
    Ok(Measurement {
        cpu_s_per_step,
        s_optimising,
        made_s,
        load_s,
        losses,
        spent_ms,
        ..told(wanted, device, &engine, spread(&mut times[1..]), of_memory)?
    })
}

fn told(
    wanted: &Wanted,
    device: &Device,
    engine: &Engine,
    s_per_step: [f64; 3],
    [peak_bytes, loaded_bytes]: [Option<u64>; 2],
) -> Result<Measurement, Error> {
    let tokens = wanted.rows * wanted.tokens;
    let predicted = engine.predicted(Extent::whole(tokens, wanted.tokens))?;
    Ok(Measurement {
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
        s_optimising: [0.0; 3],
        peak_bytes,
        loaded_bytes,
        // The optimiser's state is twice as large as the parameters.
        predicted_bytes: predicted.total_bytes() + 2 * predicted.parameters_bytes,
        made_s: 0.0,
        load_s: 0.0,
        losses: Vec::new(),
        spent_ms: BTreeMap::new(),
    })
}

fn open(device: Choice) -> candle_core::Result<Device> {
    match device {
        Choice::Cpu => Ok(Device::Cpu),
        Choice::Cuda => Device::new_cuda(0),
        Choice::Metal => Device::new_metal(0),
        Choice::Auto => Device::new_cuda(0).or_else(|_| Device::new_metal(0)).or(Ok(Device::Cpu)),
    }
}

fn settings(wanted: &Wanted, device: &Device) -> Settings {
    let lora = Lora { rank: wanted.rank, dora: wanted.dora, dropout: wanted.dropout, ..Lora::default() };
    let Wanted { precision, checkpointing, .. } = *wanted;
    let logits_bytes = wanted.logits_bytes.unwrap_or_else(|| Settings::logits_bytes_on(device));
    Settings { method: Method::Lora(lora), precision, checkpointing, logits_bytes }
}

#[expect(clippy::cast_precision_loss, reason = "tokens and labels, of which there are few")]
fn count(count: usize) -> f64 {
    count as f64
}

/// The median, the least and the most.
fn spread(times: &mut [f64]) -> [f64; 3] {
    times.sort_by(f64::total_cmp);
    let at = |index: usize| times.get(index).copied().unwrap_or_default();
    let last = times.len().saturating_sub(1);
    [f64::midpoint(at(last / 2), at(times.len() / 2)), at(0), at(last)]
}

/// A training under way.
struct Run<'a> {
    wanted: &'a Wanted,
    engine: &'a Engine,
    parameters: Tensors,
    optimizer: AdamW,
}

impl<'a> Run<'a> {
    fn new(wanted: &'a Wanted, engine: &'a Engine) -> Result<Self, Error> {
        let parameters = engine.init(0)?;
        let optimizer = AdamW::new(&Options { learning_rate: 1e-4, weight_decay: 0.01, ..Options::default() }, &parameters)?;
        Ok(Self { wanted, engine, parameters, optimizer })
    }

    /// The mean of −ln p before the step, and its gradient.
    fn learn(&self, step: u64) -> candle_core::Result<(f64, Tensors)> {
        let (mut gradients, mut sum, mut labels) = (Tensors::new(), 0.0, 0);
        for micro_batch in 0..self.wanted.micro_batches as u64 {
            let batch = self.batch([step, micro_batch]);
            let pass = Pass { seed: 1, step, micro_batch };
            let log_probs = self.engine.accumulate(&self.parameters, &batch, Some(pass), &mut gradients)?;
            sum -= log_probs.iter().map(|log_prob| f64::from(*log_prob)).sum::<f64>();
            labels += log_probs.len();
        }
        Ok((sum / count(labels), gradients))
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

    fn optimise(&mut self, step: u64, gradients: &Tensors) -> Result<(), Error> {
        let norm = gradient::norm(self.engine, step, &self.parameters, gradients)?;
        self.optimizer.step(self.engine, &mut self.parameters, gradients, (1.0, gradient::clip(norm, Some(1.0))))?;
        Ok(())
    }

    /// Where the time of one pass goes.
    fn traced(&self) -> candle_core::Result<BTreeMap<&'static str, f32>> {
        let pass = Pass { seed: 1, step: u64::MAX, micro_batch: 0 };
        self.engine.spent(&self.parameters, &self.batch([pass.step, pass.micro_batch]), Some(pass))
    }
}
