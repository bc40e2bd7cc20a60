//! The real Gemma 3 270M with an adapter merged into it: what is stored acts as the adapter does.

use std::fs;
use std::path::Path;

use arriero::gguf::file_type::FileType;
use arriero::gguf::{Header, TensorInfo, TensorKind};
use arriero::jobs::convert::{Options, Source, Target, convert};
use arriero::jobs::finetune::export::{LEAST_GAIN, MergeOptions, MergePlan, Merged, Storage, Strengths, Trained, merge_gguf};
use arriero::jobs::finetune::learner::Tensors;
use arriero::lm::{Device, Model};
use candle_core::{Device as Memory, Tensor};

use crate::support::demo_model;

const RANK: usize = 8;

/// Numbers around zero that depend on the seed alone.
#[expect(clippy::cast_precision_loss, reason = "16 bits")]
fn noise(seed: u64, count: usize) -> Vec<f32> {
    let number = |at: u64| {
        let mut z = (seed << 32 | at).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        ((z >> 48).cast_signed() - 32_768) as f32 / 32_768.0
    };
    (0..count as u64).map(number).collect()
}

fn is_trained(tensor: &TensorInfo) -> bool {
    tensor.name.starts_with("blk.") && tensor.dimensions.len() == 2
}

/// Numbers of B: one whose changes are lost among four bits, and one that says something.
const WEAK: f32 = 0.012;
const STRONG: f32 = 0.035;

/// An adapter for every matrix of every layer.
fn adapter(header: &Header, b: f32) -> Tensors {
    let mut parameters = Tensors::new();
    for (index, tensor) in header.tensors.iter().enumerate().filter(|(_, tensor)| is_trained(tensor)) {
        let name = tensor.name.strip_suffix(".weight").expect("a weight");
        let [width, rows] = [0, 1].map(|at| usize::try_from(tensor.dimensions[at]).expect("small"));
        let half = |seed, shape: (usize, usize), factor: f32| {
            let numbers = noise(seed, shape.0 * shape.1).into_iter().map(|number| factor * number).collect();
            Tensor::from_vec(numbers, shape, &Memory::Cpu).expect("made")
        };
        parameters.insert(format!("{name}.lora_a"), half(2 * index as u64, (RANK, width), 0.03));
        parameters.insert(format!("{name}.lora_b"), half(2 * index as u64 + 1, (rows, RANK), b));
    }
    parameters
}

fn logits(path: &Path) -> Vec<Vec<f32>> {
    let device = Device::each_exact_cpu(2).pop().expect("at least the plain one");
    let model = Model::load(path, &Header::read_file(path).expect("sound"), &device).expect("loaded");
    let mut all = Vec::new();
    model.logits(&[2, 818, 5279, 529, 7001, 563, 496, 3207], |_, logits| all.push(logits.to_vec())).expect("logits");
    all
}

/// Nats that a distribution has lost when another stands in its place, at most of all positions.
fn divergence(from: &[Vec<f32>], to: &[Vec<f32>]) -> f64 {
    let logs = |logits: &[f32]| {
        let most = logits.iter().copied().fold(f32::MIN, f32::max);
        let sum: f64 = logits.iter().map(|logit| f64::from(logit - most).exp()).sum();
        logits.iter().map(|logit| f64::from(logit - most) - sum.ln()).collect::<Vec<_>>()
    };
    let one = |(from, to): (&Vec<f32>, &Vec<f32>)| logs(from).iter().zip(logs(to)).map(|(from, to)| from.exp() * (from - to)).sum::<f64>();
    from.iter().zip(to).map(one).fold(0.0, f64::max)
}

/// Merges the adapter into the model, and into the same in F32: what the model with the adapter beside it is.
pub fn merged(place: &Path) -> (Merged, Merged) {
    let base = demo_model();
    let (parameters, strengths) = (adapter(&Header::read_file(&base).expect("sound"), STRONG), Strengths::new(16.0, false));
    let options = MergeOptions::new(place.join("merged.gguf"));
    let plan = MergePlan::new(&Trained { base: &base, parameters: &parameters, strengths: &strengths }, &options).expect("planned");
    let ours = plan.write(&()).expect("merged");
    assert_eq!((plan.size_bytes(), fs::metadata(&ours.path).expect("there").len()), (ours.size_bytes, ours.size_bytes));

    let wide = place.join("wide.gguf");
    let mut options = Options::new(Source::Gguf(base), FileType::F32, Target::File(wide.clone()));
    options.allow_requantize = true;
    convert(&options, &()).expect("converted");
    let trained = Trained { base: &wide, parameters: &parameters, strengths: &strengths };
    let exact = merge_gguf(&trained, &MergeOptions::new(place.join("exact.gguf")), &()).expect("merged");
    fs::remove_file(wide).expect("removed");
    (ours, exact)
}

#[test]
fn an_adapter_in_a_model_of_four_bits_acts_as_beside_it() {
    let place = tempfile::tempdir().expect("a folder");
    let (ours, exact) = merged(place.path());
    let worst = ours.survival.worst().expect("trained");
    println!("{} bytes, {}; mean {:?}, worst {worst:?}", ours.size_bytes, ours.file_type, ours.survival.mean_gain());
    assert!(ours.survival.passes() && ours.warnings.is_empty() && worst.change < 0.1, "{worst:?}");
    let finest = Header::read_file(&ours.path)
        .expect("sound")
        .tensors
        .iter()
        .filter(|tensor| is_trained(tensor))
        .map(|tensor| tensor.kind)
        .collect::<Vec<_>>();
    assert!(finest.iter().all(|kind| matches!(kind, TensorKind::Q8_0 | TensorKind::Q6_K | TensorKind::F16)), "{finest:?}");

    let (base, merged, exact) = (logits(&demo_model()), logits(&ours.path), logits(&exact.path));
    let (lost, learned) = (divergence(&exact, &merged), divergence(&exact, &base));
    println!("of {learned:.4} nats that the adapter changes, {lost:.6} are lost");
    // The exact file's weights are plain: what they are multiplied with is not rounded as it is for packed ones, and that is counted in.
    assert!(learned > 0.1 && lost < learned / 20.0, "{lost} of {learned}");
}

#[test]
fn four_bits_that_stay_four_bits_forget_what_was_learned() {
    let place = tempfile::tempdir().expect("a folder");
    let base = demo_model();
    let (parameters, strengths) = (adapter(&Header::read_file(&base).expect("sound"), WEAK), Strengths::new(16.0, false));
    let options = MergeOptions { storage: Storage::AsBase, ..MergeOptions::new(place.path().join("merged.gguf")) };
    let merged = merge_gguf(&Trained { base: &base, parameters: &parameters, strengths: &strengths }, &options, &()).expect("merged");
    println!("mean {:?}, worst {:?}", merged.survival.mean_gain(), merged.survival.worst());
    assert!(merged.survival.worst().is_some_and(|worst| worst.gain < LEAST_GAIN / 2.0) && !merged.warnings.is_empty());
}
