//! Against PEFT itself: what it saved is read, acts as it does there, and is written as it was (`tests/golden/peft_adapters.py`).

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use candle_core::Device as Memory;
use serde_json::Value;

use super::super::{FolderOptions, MergeOptions, PeftOptions, Precision, merge_gguf, merge_safetensors, read_peft, write_peft};
use super::folders::weights_of;
use super::made::{FOLDERS, Made, adapters, converted, golden, strengths, trained};
use crate::gguf::Header;
use crate::gguf::file_type::FileType;
use crate::jobs::finetune::learner::Tensors;
use crate::lm::{Device, Model};

fn golden_json(name: &str) -> Value {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name);
    serde_json::from_slice(&fs::read(path).expect("committed")).expect("JSON")
}

fn saved(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/peft").join(name)
}

fn names() -> Vec<String> {
    let golden = golden_json("peft.json");
    golden["adapters"].as_array().expect("a list").iter().map(|adapter| adapter["name"].as_str().expect("a name").to_owned()).collect()
}

/// The largest difference from the golden logits, over the largest of them.
fn difference(path: &Path, logits: &Value) -> f64 {
    let shown = golden_json("lm_families.json");
    let numbers = |value: &Value| value.as_array().expect("numbers").iter().map(|n| n.as_u64().expect("whole")).collect::<Vec<_>>();
    let tokens: Vec<u32> = numbers(&shown["tokens"]).iter().map(|token| u32::try_from(*token).expect("small")).collect();
    let model = Model::load(path, &Header::read_file(path).expect("sound"), &Device::candle_on_cpu()).expect("loaded");
    let mut found = Vec::new();
    model.logits(&tokens, |_, logits| found.push(logits.to_vec())).expect("logits");
    let (mut worst, mut most) = (0_f64, 0_f64);
    for (position, expected) in numbers(&shown["positions"]).iter().zip(logits.as_array().expect("rows")) {
        let found = &found[usize::try_from(*position).expect("small")];
        for (found, expected) in found.iter().zip(expected.as_array().expect("a row")) {
            let expected = expected.as_f64().expect("a number");
            (worst, most) = (worst.max((f64::from(*found) - expected).abs()), most.max(expected.abs()));
        }
    }
    worst / most
}

#[test]
fn merged_models_give_the_logits_of_peft() {
    for adapter in golden_json("peft.json")["adapters"].as_array().expect("a list") {
        let name = adapter["name"].as_str().expect("a name");
        let place = tempfile::tempdir().expect("a folder");
        let (parameters, strengths) = read_peft(&saved(name), &golden(name), &Memory::Cpu).expect("read");
        let options = MergeOptions::new(place.path().join("out.gguf"));
        merge_gguf(&trained(&golden(name), &parameters, &strengths), &options, &()).expect("merged");
        let difference = difference(&options.path, &adapter["logits"]);
        println!("{name}: {difference:.2e}");
        assert!(difference < 1e-5, "{name}: {difference}");
    }
}

#[test]
fn adapters_are_written_as_peft_saved_them() {
    for name in names() {
        let place = tempfile::tempdir().expect("a folder");
        let (parameters, strengths) = read_peft(&saved(&name), &golden(&name), &Memory::Cpu).expect("read");
        let options = PeftOptions { path: place.path().join("adapter"), ..PeftOptions::default() };
        write_peft(&trained(&golden(&name), &parameters, &strengths), &options).expect("written");
        let file = "adapter_model.safetensors";
        assert_eq!(weights_of(&options.path, file), weights_of(&saved(&name), file), "{name}");
        let config = |folder: &Path| -> Value {
            serde_json::from_slice(&fs::read(folder.join("adapter_config.json")).expect("read")).expect("JSON")
        };
        let (ours, theirs) = (config(&options.path), config(&saved(&name)));
        for (key, value) in ours.as_object().expect("an object") {
            let set = |value: &Value| value.as_array().expect("a list").iter().map(Value::to_string).collect::<BTreeSet<_>>();
            if key == "target_modules" {
                assert_eq!(set(value), set(&theirs[key]), "{name}");
            } else {
                assert_eq!(value.as_f64().map(f64::to_bits), theirs[key].as_f64().map(f64::to_bits), "{name} {key}");
                assert!(value.is_number() || *value == theirs[key], "{name} {key}: {value} {}", theirs[key]);
            }
        }
    }
}

/// Writes folders for `peft_adapters.py` to check: `python -P tests/golden/peft_adapters.py target/tmp/export/*`.
#[test]
#[ignore = "writes what tests/golden/peft_adapters.py checks"]
fn folders_for_peft() {
    let all = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/tmp/export");
    for (index, name) in FOLDERS.into_iter().enumerate() {
        let place = all.join(name);
        let _ = fs::remove_dir_all(&place);
        fs::create_dir_all(&place).expect("made");
        let (_, base) = converted(&place, name, FileType::F32);
        let parameters = adapters(&base, Made { rank: 4, change: 0.3, magnitudes: index % 2 == 1 });
        let (nothing, mut strengths) = (Tensors::new(), strengths(4));
        strengths.rank_stabilized = index % 4 == 2;
        let folder = |name: &str| FolderOptions { precision: Precision::F32, ..FolderOptions::new(place.join(name)) };
        merge_safetensors(&trained(&base, &nothing, &strengths), &folder("base"), &()).expect("written");
        let trained = trained(&base, &parameters, &strengths);
        merge_safetensors(&trained, &folder("merged"), &()).expect("written");
        write_peft(&trained, &PeftOptions { path: place.join("adapter"), ..PeftOptions::default() }).expect("written");
    }
}
