//! Gradients against finite differences, and the CPU's loops against candle's operations.

use super::models::{GEMMA, LLAMA, PHI, Place, QWEN, Shape, batch, noise, perturbed, rows, values};
use crate::jobs::finetune::batch::Batch;
use crate::jobs::finetune::engine::{Engine, Lora, Method, Settings};
use crate::jobs::finetune::learner::{Learner, Pass, Tensors};
use candle_core::{Device, Tensor};

pub const PASS: Pass = Pass { seed: 5, step: 2, micro_batch: 1 };

pub fn lora(rank: usize) -> Lora {
    Lora { rank, alpha: 6.0, ..Lora::default() }
}

pub fn adapters(rank: usize) -> Settings {
    Settings { method: Method::Lora(lora(rank)), ..Settings::default() }
}

pub fn everything() -> Settings {
    Settings { method: Method::Full(Vec::new()), ..Settings::default() }
}

pub fn all_kinds() -> Vec<(&'static str, Settings)> {
    let with = |lora| Settings { method: Method::Lora(lora), ..Settings::default() };
    vec![
        ("adapters", adapters(3)),
        ("everything", everything()),
        ("dropout", with(Lora { dropout: 0.3, ..lora(3) })),
        ("DoRA", with(Lora { dora: true, ..lora(3) })),
        ("DoRA with dropout", with(Lora { dora: true, dropout: 0.3, ..lora(3) })),
        ("embeddings besides", with(Lora { also: vec!["token_embd".to_owned()], ..lora(2) })),
    ]
}

pub fn gradients(engine: &Engine, parameters: &Tensors, batch: &Batch, pass: Option<Pass>) -> (Vec<f32>, Tensors) {
    let mut gradients = Tensors::new();
    let log_probs = engine.accumulate(parameters, batch, pass, &mut gradients).unwrap();
    (log_probs, gradients)
}

/// The loss of a pass, and its gradients.
fn passed(engine: &Engine, parameters: &Tensors, batch: &Batch, pass: Option<Pass>) -> (f64, Tensors) {
    let (log_probs, gradients) = gradients(engine, parameters, batch, pass);
    let loss = batch.labels.iter().zip(log_probs).map(|(label, log_prob)| -f64::from(label.weight) * f64::from(log_prob)).sum();
    (loss, gradients)
}

fn norm(values: &[f32]) -> f64 {
    values.iter().map(|value| f64::from(*value) * f64::from(*value)).sum::<f64>().sqrt()
}

/// How far one is from the other, as a share.
pub fn distance(a: &[f32], b: &[f32]) -> f64 {
    assert_eq!(a.len(), b.len());
    let difference: Vec<f32> = a.iter().zip(b).map(|(a, b)| a - b).collect();
    norm(&difference) / norm(b).max(1e-9)
}

fn check_by_differences(shape: Shape, what: &str, settings: &Settings) {
    check_slopes(&Place::new(shape).engine(settings), &format!("{what} of {}", shape.architecture), passed);
}

/// Moves each parameter along a direction of its own that its gradient likes, and compares the slope of the loss.
pub fn check_slopes(engine: &Engine, what: &str, passed: impl Fn(&Engine, &Tensors, &Batch, Option<Pass>) -> (f64, Tensors)) {
    let (parameters, batch) = (perturbed(engine), batch(&rows(96, &[9, 4])));
    // DoRA takes the norms for constants, which differences do not; its gradients are compared with PEFT's in the golden runs.
    let is_dora = matches!(&engine.settings().method, Method::Lora(lora) if lora.dora);
    let (_, gradients) = passed(engine, &parameters, &batch, Some(PASS));
    for (index, (name, gradient)) in (0..).zip(&gradients).filter(|(_, (name, _))| !is_dora || name.ends_with("magnitude")) {
        let gradient = values(gradient);
        let length = norm(&gradient);
        assert!(length > 1e-6, "{what}: `{name}` has no gradient");
        #[expect(clippy::cast_possible_truncation, reason = "a direction")]
        let mut direction: Vec<f32> = gradient.iter().map(|value| (f64::from(*value) / length) as f32).collect();
        #[expect(clippy::cast_precision_loss, reason = "small")]
        let spread = 0.3 / (gradient.len() as f32).sqrt();
        direction.iter_mut().zip(noise(77 + index, gradient.len(), spread)).for_each(|(a, b)| *a += b);
        let wanted: f64 = gradient.iter().zip(&direction).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum();
        let at = |step: f64| {
            let mut moved = parameters.clone();
            let shift = Tensor::from_vec(direction.clone(), parameters[name].shape(), &Device::Cpu).unwrap();
            moved.insert(name.clone(), (&parameters[name] + (shift * step).unwrap()).unwrap());
            passed(engine, &moved, &batch, Some(PASS)).0
        };
        let step = 4e-3;
        // Of the fourth order, so that steps can be large against rounding.
        let found = (8.0 * (at(step) - at(-step)) - (at(2.0 * step) - at(-2.0 * step))) / (12.0 * step);
        // The losses are of 32 bits, which the second part is for.
        assert!((found - wanted).abs() < 4e-3 * wanted.abs() + 2e-3, "{what}: `{name}`: {found} by differences, {wanted} by the engine");
    }
}

#[test]
fn gradients_are_the_slopes_of_the_loss() {
    for (what, settings) in all_kinds() {
        check_by_differences(GEMMA, what, &settings);
    }
    for shape in [QWEN, LLAMA, PHI] {
        check_by_differences(shape, "adapters", &adapters(2));
        check_by_differences(shape, "everything", &everything());
    }
}

#[test]
fn the_cpus_loops_give_what_candles_operations_give() {
    for shape in [QWEN, LLAMA, GEMMA, PHI] {
        for (what, settings) in all_kinds() {
            let place = Place::new(shape);
            let (fused, composed) = (place.engine(&settings), place.composed(&settings));
            let (parameters, batch) = (perturbed(&fused), batch(&rows(96, &[9, 1, 14])));
            let (ours, theirs) = [&fused, &composed].map(|engine| gradients(engine, &parameters, &batch, Some(PASS))).into();
            assert!(distance(&ours.0, &theirs.0) < 2e-6, "{what} of {}", shape.architecture);
            for (name, gradient) in &ours.1 {
                let distance = distance(&values(gradient), &values(&theirs.1[name]));
                assert!(distance < 2e-5, "{what} of {}: `{name}` differs by {distance}", shape.architecture);
            }
            let read = [&fused, &composed].map(|engine| engine.log_probs(&parameters, &batch).unwrap());
            assert!(distance(&read[0], &read[1]) < 2e-6, "{what} of {}", shape.architecture);
        }
    }
}
