//! What an accelerator gives against what the CPU gives, which itself is proven against other programs.

use std::path::Path;

use candle_core::{Device, Tensor};
use serde::Serialize;

use super::shape::{FAMILIES, Shape, TINY};
use super::{Error, KINDS, synthetic};
use crate::gguf::{Header, TensorKind};
use crate::jobs::finetune::batch::{Batch, Row};
use crate::jobs::finetune::engine::{Checkpointing, Engine, Lora, Method, Precision, Settings};
use crate::jobs::finetune::gradient;
use crate::jobs::finetune::learner::{Learner, Pass, Tensors};
use crate::jobs::finetune::optimizer::AdamW;
use crate::jobs::finetune::options::Options;
use crate::jobs::finetune::rng::{Philox, Purpose};
use crate::lm::Choice;
use crate::lm::cpu::kernels::is_dense;

/// One comparison.
#[derive(Debug, Clone, Serialize)]
pub struct Check {
    pub what: String,
    /// Whether the work was done by kernels of this crate.
    pub kernels: bool,
    /// How far the loss is off, as a share; the same without adapters.
    pub loss: f64,
    pub base_loss: f64,
    /// How far all gradients together are off, as a share, and the worst of them.
    pub gradients: f64,
    pub worst: f64,
    pub worst_name: String,
    /// How far the norm of these gradients, and what the optimiser does with them, are off what they are on the CPU, as a share.
    pub step: f64,
    /// Whether every way to keep activations gave the same bits.
    pub same_bits: bool,
    pub passed: bool,
}

/// What is compared.
struct Case {
    what: &'static str,
    shape: Shape,
    kind: TensorKind,
    method: Method,
    precision: Precision,
    /// Whether kernels are to do it.
    kernels: bool,
}

const PASS: Pass = Pass { seed: 9, step: 1, micro_batch: 2 };

/// Compares `device` with the CPU on tiny models, which are made in `folder`, and tells each comparison as it is made.
///
/// # Errors
/// When they cannot be made, or the device fails.
pub fn check(device: Choice, folder: &Path, mut tell: impl FnMut(&Check)) -> Result<(), Error> {
    let device = super::open(device)?;
    for case in cases(device.is_cuda()) {
        tell(&compare(&case, &device, folder)?);
    }
    Ok(())
}

fn cases(kernels: bool) -> Vec<Case> {
    let lora = || Lora { rank: 8, ..Lora::default() };
    let case = |what, method| Case { what, shape: TINY, kind: TensorKind::BF16, method, precision: Precision::Brain, kernels: false };
    let fast = |what, lora| Case { kernels, ..case(what, Method::Lora(lora)) };
    let names = |all: &[&str]| all.iter().map(|name| (*name).to_owned()).collect();
    let mut all = vec![fast("LoRA", lora())];
    all.extend(FAMILIES.map(|shape| Case { shape, ..fast("LoRA", lora()) }));
    all.push(Case { kind: TensorKind::F32, ..fast("LoRA", lora()) });
    all.push(fast(
        "some targets, ranks of their own",
        Lora {
            targets: names(&["q_proj", "v_proj", "down_proj", "blk.1.*"]),
            rank_pattern: vec![("v_proj".to_owned(), 24)],
            rslora: true,
            ..lora()
        },
    ));
    all.push(fast("only the highest layer", Lora { targets: names(&["blk.2.*"]), ..lora() }));
    all.extend(KINDS.into_iter().filter(|kind| !is_dense(*kind)).map(|kind| Case { kind, ..fast("QLoRA", lora()) }));
    let weighed = || Lora { dora: true, ..lora() };
    let both = || Lora { dropout: 0.2, ..weighed() };
    for (what, lora) in [("DoRA", weighed()), ("dropout", Lora { dropout: 0.2, ..lora() }), ("DoRA with dropout", both())] {
        all.extend(FAMILIES.map(|shape| Case { shape, ..fast(what, lora.clone()) }));
        all.push(Case { kind: TensorKind::Q4_K, ..fast(what, lora.clone()) });
        all.push(fast(what, Lora { targets: names(&["q_proj", "v_proj", "down_proj"]), rank: 12, ..lora }));
    }
    all.push(case("embeddings besides", Method::Lora(Lora { also: names(&["token_embd.weight"]), ..lora() })));
    all.push(case("the head, too", Method::Lora(Lora { targets: names(&["attn_*", "ffn_*", "output"]), ..lora() })));
    all.push(case("everything", Method::Full(Vec::new())));
    let single = |case| Case { precision: Precision::Single, kernels: false, ..case };
    all.push(single(fast("LoRA in single precision", lora())));
    all.push(single(Case { kind: TensorKind::Q4_K, ..case("DoRA with dropout in single precision", Method::Lora(both())) }));
    all.push(single(Case { shape: FAMILIES[4], ..case("everything in single precision", Method::Full(Vec::new())) }));
    all
}

fn compare(case: &Case, device: &Device, folder: &Path) -> Result<Check, Error> {
    let path = folder.join("model.gguf");
    synthetic::write(&path, &case.shape, case.kind)?;
    let header = Header::read_file(&path)?;
    let settings =
        |checkpointing| Settings { method: case.method.clone(), precision: case.precision, checkpointing, logits_bytes: 1 << 20 };
    let exact = Settings { precision: Precision::Single, ..settings(Checkpointing::Full) };
    let cpu = Engine::load(&path, &header, Device::Cpu, &exact)?;
    let (here, batch) = (perturbed(&cpu)?, batch(case.shape.vocabulary));
    let expected = Given::by(&cpu, &here, &batch)?;
    let moved = |(name, tensor): (&String, &Tensor)| Ok((name.clone(), tensor.to_device(device)?));
    let parameters = here.iter().map(moved).collect::<candle_core::Result<Tensors>>()?;
    let mut given: Vec<Given> = Vec::new();
    let (mut kernels, mut step) = (true, 0.0);
    for checkpointing in [Checkpointing::Full, Checkpointing::Attention(1), Checkpointing::Off, Checkpointing::Auto] {
        let engine = Engine::load(&path, &header, device.clone(), &settings(checkpointing))?;
        kernels &= engine.uses_kernels();
        given.push(Given::by(&engine, &parameters, &batch)?);
        step = off(&change(&engine, &parameters, &given[0])?, &change(&cpu, &here, &given[0])?);
    }
    let same_bits = given.iter().all(|other| other.log_probs == given[0].log_probs && other.gradients == given[0].gradients);
    Ok(judged(case, &expected, &given[0], (kernels, same_bits, step)))
}

fn judged(case: &Case, expected: &Given, given: &Given, (kernels, same_bits, step): (bool, bool, f64)) -> Check {
    let (mut all, mut worst, mut worst_name) = ([0.0; 2], 0.0, String::new());
    for ((name, ours), (_, theirs)) in given.gradients.iter().zip(&expected.gradients) {
        let [difference, size] = apart(ours, theirs);
        all = [all[0] + difference, all[1] + size];
        let share = (difference / size.max(1e-30)).sqrt();
        if share > worst || share.is_nan() {
            (worst, worst_name) = (share, name.clone());
        }
    }
    let share = |ours: f64, theirs: f64| ((ours - theirs) / theirs).abs();
    let loss = share(given.loss, expected.loss);
    let base_loss = share(given.base_loss, expected.base_loss);
    let gradients = (all[0] / all[1]).sqrt();
    // Candle's operations round to bf16 after each.
    let limits = match (case.precision, case.kernels) {
        (Precision::Brain, true) => [2e-3, 4e-2, 1e-1],
        (Precision::Brain, false) => [2e-3, 6e-2, 1e-1],
        (Precision::Single, _) => [1e-5, 1e-4, 1e-3],
    };
    let close = loss < limits[0] && base_loss < limits[0] && gradients < limits[1] && worst < limits[2] && step < 1e-4;
    let what = format!("{} of {} in {}", case.what, case.shape.name, case.kind.name());
    // Candle's own sums on a GPU come in any order.
    let passed = close && kernels == case.kernels && (same_bits || !kernels);
    Check { what, kernels, loss, base_loss, gradients, worst, worst_name, step, same_bits, passed }
}

/// What an engine gave.
struct Given {
    log_probs: Vec<f32>,
    loss: f64,
    base_loss: f64,
    gradients: Vec<(String, Vec<f32>)>,
}

impl Given {
    /// With parameters, with none, and there and back; the last has to agree with the first.
    fn by(engine: &Engine, parameters: &Tensors, batch: &Batch) -> candle_core::Result<Self> {
        let mut gradients = Tensors::new();
        let log_probs = engine.accumulate(parameters, batch, Some(PASS), &mut gradients)?;
        let loss = |log_probs: &[f32]| {
            batch.labels.iter().zip(log_probs).map(|(label, log_prob)| -f64::from(label.weight) * f64::from(*log_prob)).sum()
        };
        let base = engine.log_probs(&Tensors::new(), batch)?;
        let numbers = |(name, tensor): (String, Tensor)| Ok((name, tensor.flatten_all()?.to_vec1()?));
        Ok(Self {
            loss: loss(&log_probs),
            base_loss: loss(&base),
            log_probs,
            gradients: gradients.into_iter().map(numbers).collect::<candle_core::Result<_>>()?,
        })
    }
}

/// How long these gradients are, and what two steps of the optimiser with them change.
fn change(engine: &Engine, parameters: &Tensors, given: &Given) -> Result<(f64, Vec<f32>), Error> {
    let options = Options { learning_rate: 0.01, weight_decay: 0.1, lora_plus_ratio: 4.0, ..Options::default() };
    // The optimiser may change them where they are.
    let copy = |(name, tensor): (&String, &Tensor)| Ok((name.clone(), tensor.copy()?));
    let mut moved = parameters.iter().map(copy).collect::<candle_core::Result<Tensors>>()?;
    let gradient = |(name, numbers): &(String, Vec<f32>)| {
        let like = &parameters[name];
        Ok((name.clone(), Tensor::from_slice(numbers, like.shape(), like.device())?))
    };
    let gradients = given.gradients.iter().map(gradient).collect::<candle_core::Result<Tensors>>()?;
    let norm = gradient::norm(engine, 0, parameters, &gradients)?;
    let mut optimizer = AdamW::new(&options, parameters)?;
    for clip in [0.5, 1.0] {
        optimizer.step(engine, &mut moved, &gradients, (1.0, clip))?;
    }
    let mut all = Vec::new();
    for (after, before) in moved.values().zip(parameters.values()) {
        all.extend((after - before)?.flatten_all()?.to_vec1::<f32>()?);
    }
    Ok((norm, all))
}

fn off((norm, ours): &(f64, Vec<f32>), (their_norm, theirs): &(f64, Vec<f32>)) -> f64 {
    let [difference, size] = apart(ours, theirs);
    (difference / size.max(1e-30)).sqrt().max((norm / their_norm - 1.0).abs())
}

/// The square of the distance, and of what it is a distance from.
fn apart(ours: &[f32], theirs: &[f32]) -> [f64; 2] {
    let square = |number: f64| number * number;
    let difference = ours.iter().zip(theirs).map(|(a, b)| square(f64::from(*a) - f64::from(*b))).sum();
    [difference, theirs.iter().map(|number| square(f64::from(*number))).sum()]
}

fn noise(which: u64, count: usize, scale: f32) -> Vec<f32> {
    let mut numbers = vec![0.0; count];
    Philox::new(5).stream(Purpose::Order, [which, 0, 0, 0]).fill_uniform(&mut numbers);
    numbers.iter().map(|number| (number * 2.0 - 1.0) * scale).collect()
}

/// Away from where training begins, so that no gradient is 0 for want of another.
fn perturbed(engine: &Engine) -> Result<Tensors, Error> {
    let moved = |(index, (name, tensor)): (u64, (String, Tensor))| {
        let scale = if name.ends_with("lora_b") { 0.08 } else { 0.01 };
        let noise = Tensor::from_vec(noise(1000 + index, tensor.elem_count(), scale), tensor.shape(), &Device::Cpu)?;
        Ok((name, (tensor + noise)?))
    };
    Ok((0..).zip(engine.init(3)?).map(moved).collect::<candle_core::Result<_>>()?)
}

/// Rows of several lengths, of which all tokens but a few are foretold.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::cast_precision_loss, reason = "tokens of a small vocabulary")]
fn batch(vocabulary: usize) -> Batch {
    let mut batch = Batch::default();
    for (index, length) in (0..).zip([70_usize, 1, 129, 33]) {
        let token = |number: &f32| (number.abs() * (vocabulary as f32 - 1.0)) as u32;
        let weight = |place: usize| if place.is_multiple_of(5) { 0.0 } else { 0.5 + (place % 3) as f32 * 0.25 };
        batch.push(&Row { tokens: noise(index, length, 1.0).iter().map(token).collect(), weights: (0..length).map(weight).collect() });
    }
    batch
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The models are sound in all families and formats, and a comparison that compares nothing would not pass.
    #[test]
    fn the_cpu_agrees_with_itself() {
        let folder = tempfile::tempdir().unwrap();
        let lora = || Method::Lora(Lora { rank: 2, ..Lora::default() });
        let mut shapes = FAMILIES.map(|shape| (shape, TensorKind::BF16)).to_vec();
        shapes.push((TINY, TensorKind::Q4_K));
        for (shape, kind) in shapes {
            let case = Case { what: "LoRA", shape, kind, method: lora(), precision: Precision::Single, kernels: false };
            let check = compare(&case, &Device::Cpu, folder.path()).unwrap();
            assert!(check.passed && check.same_bits && check.gradients == 0.0 && check.step == 0.0, "{check:?}");
        }
    }
}
