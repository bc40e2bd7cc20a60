//! What is converted runs in the embedded engine, and gives the logits that transformers gives for the folder
//! (`tests/golden/convert_logits.py`).

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::super::{Options, Source, Target, convert};
use super::weights::{golden, model};
use crate::gguf::Header;
use crate::gguf::file_type::FileType;
use crate::lm::{Device, Model};

fn converted(place: &Path, name: &str, types: &[FileType]) -> Vec<PathBuf> {
    let mut options = Options::new(Source::Folder(model(place, name)), FileType::F32, Target::Folder(place.into()));
    options.types = types.to_vec();
    convert(&options, &()).expect("converted").into_iter().map(|outcome| outcome.path).collect()
}

fn logits(path: &Path, device: &Device, tokens: &[u32]) -> Vec<f32> {
    let header = Header::read_file(path).expect("sound");
    let model = Model::load(path, &header, device).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    model.forward(tokens, &mut model.new_cache(tokens.len()).expect("a cache")).expect("logits")
}

/// The largest difference relative to the largest logit, of those that both have: a vocabulary may be cut to its tokens.
fn difference(found: &[f32], expected: &[f32]) -> f32 {
    let scale = expected.iter().fold(0_f32, |most, x| most.max(x.abs()));
    found.iter().zip(expected).fold(0_f32, |most, (a, b)| most.max((a - b).abs())) / scale
}

#[expect(clippy::cast_possible_truncation, reason = "golden values have the digits of single precision")]
fn check(name: &str, bound: f32) {
    let text = fs::read_to_string(golden().join("logits.json")).expect("committed");
    let golden: Value = serde_json::from_str(&text).expect("JSON");
    let list = |value: &Value| value.as_array().expect("a list").iter().map(|n| n.as_f64().expect("a number")).collect::<Vec<_>>();
    let expected: Vec<f32> = list(&golden["logits"][name]).into_iter().map(|n| n as f32).collect();
    #[expect(clippy::cast_sign_loss, reason = "tokens")]
    let tokens: Vec<u32> = list(&golden["tokens"]).into_iter().map(|n| n as u32).collect();
    let place = tempfile::tempdir().expect("a folder");
    let files = converted(place.path(), name, &[FileType::F32, FileType::Q8_0, FileType::Q4_K_M]);
    let exact = Device::each_exact_cpu(1).pop().expect("at least the plain one");
    for (file, device, bound) in
        [(0, &exact, bound), (0, &Device::candle_on_cpu(), bound), (1, &Device::cpu(Some(1)), 0.03), (2, &Device::cpu(Some(1)), 0.2)]
    {
        let difference = difference(&logits(&files[file], device, &tokens), &expected);
        println!("{name}, {}: {difference:.2e}", files[file].display());
        assert!(difference < bound, "{}: relative difference {difference}", files[file].display());
    }
}

#[test]
fn llama_and_mistral() {
    check("Tiny-Llama-3-1M-Instruct", 2e-5);
    check("tiny-mistral-v0.1", 2e-5);
}

#[test]
fn phi_3_with_fused_matrices_and_long_rope() {
    check("tiny-phi3", 2e-5);
}

#[test]
fn gemma_1_whose_norms_lose_digits_in_f16() {
    check("tiny-gemma", 1e-3);
}

#[test]
fn gemma_2_and_3() {
    check("tiny-gemma2", 2e-5);
    check("tiny-gemma3", 2e-5);
}

#[test]
fn qwen_2_and_3() {
    check("tiny-qwen2", 2e-5);
    check("tiny-qwen3", 2e-5);
}
