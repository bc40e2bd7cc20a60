//! Adapters merged on the way, against the same sum done plainly.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Value as Json, json};

use super::super::{Error, Options, Outcome, Source, Target, convert};
use super::weights::{golden, model, numbers, write_file};
use crate::gguf::file_type::FileType;
use crate::gguf::quants::decode;
use crate::gguf::{Header, TensorKind};

const Q: &str = "base_model.model.model.layers.0.self_attn.q_proj";
const DOWN: &str = "base_model.model.model.layers.1.mlp.down_proj";

/// An adapter of rank 4 for two matrices of the tiny models.
fn adapter(place: &Path, settings: &Json) -> PathBuf {
    let folder = place.join("adapter");
    fs::create_dir_all(&folder).expect("made");
    fs::write(folder.join("adapter_config.json"), settings.to_string()).expect("written");
    let half = |module: &str, part: &str, shape: [u64; 2]| (format!("{module}.{part}.weight"), "F32".to_owned(), shape.to_vec());
    let tensors =
        [half(Q, "lora_A", [4, 256]), half(Q, "lora_B", [256, 4]), half(DOWN, "lora_A", [4, 512]), half(DOWN, "lora_B", [256, 4])];
    write_file(&folder.join("adapter_model.safetensors"), &tensors);
    folder
}

fn tensor(path: &Path, name: &str) -> Vec<f32> {
    let (header, bytes) = (Header::read_file(path).expect("sound"), fs::read(path).expect("read"));
    let tensor = header.tensor(name).expect("there");
    assert_eq!(tensor.kind, TensorKind::F32);
    let range = usize::try_from(tensor.offset).expect("small")..usize::try_from(tensor.offset + tensor.size_bytes).expect("small");
    let mut numbers = vec![0.0; range.len() / 4];
    decode(TensorKind::F32, &bytes[range], &mut numbers).expect("decoded");
    numbers
}

fn merged(place: &Path, name: &str, settings: &Json) -> Result<PathBuf, Error> {
    let mut options = Options::new(Source::Folder(model(place, name)), FileType::F32, Target::File(place.join("out.gguf")));
    options.adapter = Some(adapter(place, settings));
    options.overwrite = true;
    convert(&options, &()).map(|mut outcomes| outcomes.remove(0).path)
}

/// What the adapter adds to one number, in 64 bits.
fn added(module: &str, [row, column]: [usize; 2], width: usize, scale: f64) -> f64 {
    let (a, b) = (numbers(&format!("{module}.lora_A.weight"), 4 * width), numbers(&format!("{module}.lora_B.weight"), 1024));
    scale * (0..4).map(|at| f64::from(b[row * 4 + at]) * f64::from(a[at * width + column])).sum::<f64>()
}

#[test]
fn matrices_are_changed_by_what_the_adapter_says_and_nothing_else_is() {
    let place = tempfile::tempdir().expect("a folder");
    let plain = place.path().join("plain.gguf");
    let name = "Tiny-Llama-3-1M-Instruct";
    convert(&Options::new(Source::Folder(model(place.path(), name)), FileType::F32, Target::File(plain.clone())), &()).expect("converted");
    let settings = json!({"peft_type": "LORA", "lora_alpha": 16, "use_rslora": true, "alpha_pattern": {"down_proj": 4}});
    let merged = merged(place.path(), name, &settings).expect("merged");

    let (before, after) = (tensor(&plain, "blk.1.ffn_down.weight"), tensor(&merged, "blk.1.ffn_down.weight"));
    for (row, column) in [(0, 0), (3, 511), (255, 17)] {
        let at = row * 512 + column;
        let wanted = f64::from(before[at]) + added(DOWN, [row, column], 512, 4.0 / 2.0);
        assert!((f64::from(after[at]) - wanted).abs() < 1e-7, "{row} {column}: {} {wanted}", after[at]);
    }
    // Rows of queries change places: row 1 of a head of 32 is its row 16 in the folder.
    let (before, after) = (tensor(&plain, "blk.0.attn_q.weight"), tensor(&merged, "blk.0.attn_q.weight"));
    for (row, source) in [(0, 0), (1, 16), (33, 48)] {
        let at = row * 256 + 5;
        let wanted = f64::from(before[at]) + added(Q, [source, 5], 256, 16.0 / 2.0);
        assert!((f64::from(after[at]) - wanted).abs() < 1e-7, "{row}: {} {wanted}", after[at]);
    }
    assert_eq!(tensor(&plain, "blk.0.ffn_down.weight"), tensor(&merged, "blk.0.ffn_down.weight"));
}

#[test]
fn an_adapter_for_another_model_is_refused() {
    let place = tempfile::tempdir().expect("a folder");
    let settings = json!({"lora_alpha": 16});
    let narrow = merged(place.path(), "tiny-gemma3", &settings).expect_err("another width").to_string();
    assert!(narrow.contains("is for a matrix of"), "{narrow}");
    let fused = merged(place.path(), "tiny-phi3", &settings).expect_err("no such matrix").to_string();
    assert!(fused.contains("for another model"), "{fused}");
}

/// Like `convert.py`'s.
const PLAIN: &str = r#"{"peft_type": "LORA", "r": 4, "lora_alpha": 16, "use_rslora": false}"#;

fn exported(place: &Path, settings: &Json, file_type: FileType) -> Result<Outcome, Error> {
    let base = model(place, "Tiny-Llama-3-1M-Instruct");
    let named = place.join("tiny-adapter-lora");
    fs::rename(adapter(place, settings), &named).expect("renamed");
    let options = Options::new(Source::Adapter { adapter: named, base }, file_type, Target::File(place.join("adapter.gguf")));
    convert(&options, &()).map(|mut outcomes| outcomes.remove(0))
}

#[test]
fn an_adapter_alone_becomes_the_file_of_llama_cpps_converter() {
    let place = tempfile::tempdir().expect("a folder");
    let golden: Json = serde_json::from_str(&fs::read_to_string(golden().join("golden.json")).expect("committed")).expect("JSON");
    let outcome = exported(place.path(), &serde_json::from_str(PLAIN).expect("JSON"), FileType::F32).expect("exported");
    assert_eq!(Some(outcome.sha256.as_str()), golden["Tiny-Llama-3-1M-Instruct"]["adapter"].as_str());
}

#[test]
fn an_adapter_alone_is_as_strong_as_its_settings_say() {
    let place = tempfile::tempdir().expect("a folder");
    let settings = json!({"lora_alpha": 16, "use_rslora": true, "alpha_pattern": {"down_proj": 4}});
    let path = exported(place.path(), &settings, FileType::F32).expect("exported").path;
    let alpha = f64::from(Header::read_file(&path).expect("sound").metadata.f32("adapter.lora.alpha").expect("alpha"));
    for (name, module, wanted) in [("blk.0.attn_q", Q, 16.0 / 2.0), ("blk.1.ffn_down", DOWN, 4.0 / 2.0)] {
        let b = tensor(&path, &format!("{name}.weight.lora_b"));
        let strength = f64::from(b[0]) / f64::from(numbers(&format!("{module}.lora_B.weight"), 1)[0]) * alpha / 4.0;
        assert!((strength - wanted).abs() < 1e-6, "{name}: {strength}");
    }
}

#[test]
fn an_adapter_alone_is_not_quantized() {
    let place = tempfile::tempdir().expect("a folder");
    let error = exported(place.path(), &json!({"lora_alpha": 16}), FileType::Q8_0).expect_err("refused").to_string();
    assert!(error.contains("an adapter as Q8_0"), "{error}");
}
