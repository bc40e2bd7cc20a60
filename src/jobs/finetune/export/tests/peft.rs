//! Adapters in PEFT's format: written, read back, and merged by `convert` into the folder that the base was made from.

use std::fs;
use std::path::Path;

use candle_core::{Device, Tensor};
use serde_json::{Value, json};

use super::super::{AdapterGguf, Error, MergeOptions, PeftOptions, Strengths, merge_gguf, read_peft, write_adapter_gguf, write_peft};
use super::made::{FOLDERS, GOLDEN, Made, adapters, bytes_of, converted, golden, parameter, read, strengths, trained};
use crate::gguf::Header;
use crate::gguf::file_type::FileType;
use crate::jobs::convert::{Options, Source, Target, convert};
use crate::jobs::finetune::learner::Tensors;

const PLAIN: Made = Made { rank: 4, change: 0.05, magnitudes: false };

fn written(place: &Path, base: &Path, parameters: &Tensors, strengths: &Strengths) -> Result<std::path::PathBuf, Error> {
    let options = PeftOptions { path: place.join("adapter"), base: Some("somebody/model".into()), dropout: 0.05 };
    write_peft(&trained(base, parameters, strengths), &options).map(|adapter| adapter.path)
}

fn config(folder: &Path) -> Value {
    serde_json::from_slice(&fs::read(folder.join("adapter_config.json")).expect("read")).expect("JSON")
}

fn assert_same(a: &Tensors, b: &Tensors) {
    assert_eq!(a.keys().collect::<Vec<_>>(), b.keys().collect::<Vec<_>>());
    for name in a.keys() {
        assert_eq!((a[name].dims(), parameter(a, name)), (b[name].dims(), parameter(b, name)), "{name}");
    }
}

#[test]
fn what_is_written_is_read_back_to_the_bit() {
    for (name, magnitudes) in GOLDEN.into_iter().zip([false, true, false, true, true, false]) {
        let (place, base) = (tempfile::tempdir().expect("a folder"), golden(name));
        let mut parameters = adapters(&base, Made { magnitudes, ..PLAIN });
        // A head that is trained whole.
        if Header::read_file(&base).expect("sound").tensor("output.weight").is_some() {
            parameters.insert("output.weight".into(), Tensor::ones((72, 32), candle_core::DType::F32, &Device::Cpu).expect("made"));
        }
        let mut strengths = strengths(4);
        strengths.rank_stabilized = true;
        strengths.alphas.insert("blk.1.attn_k".into(), 2.5);
        let folder = written(place.path(), &base, &parameters, &strengths).expect("written");
        let (read, read_strengths) = read_peft(&folder, &base, &Device::Cpu).expect("read");
        assert_same(&parameters, &read);
        assert_eq!(strengths, read_strengths, "{name}");
        let found = config(&folder);
        assert_eq!((&found["r"], &found["lora_alpha"], &found["use_rslora"]), (&json!(4), &json!(8), &json!(true)));
        assert_eq!((&found["alpha_pattern"], &found["use_dora"]), (&json!({"model.layers.1.self_attn.k_proj": 2.5}), &json!(magnitudes)));
        let whole = if parameters.contains_key("output.weight") { json!(["lm_head"]) } else { Value::Null };
        assert_eq!(found["modules_to_save"], whole);
    }
}

/// `convert` merges into the folder with Hugging Face's names and rows, we into the GGUF file that was made from it.
#[test]
fn both_ways_of_merging_give_the_same_numbers_for_every_family() {
    for name in FOLDERS {
        let place = tempfile::tempdir().expect("a folder");
        let (folder, base) = converted(place.path(), name, FileType::F32);
        let (parameters, strengths) = (adapters(&base, PLAIN), strengths(4));
        let adapter = written(place.path(), &base, &parameters, &strengths).expect("written");
        let mut options = Options::new(Source::Folder(folder), FileType::F32, Target::File(place.path().join("theirs.gguf")));
        options.adapter = Some(adapter);
        let theirs = convert(&options, &()).expect("converted").remove(0).path;
        let ours = MergeOptions::new(place.path().join("ours.gguf"));
        let merged = merge_gguf(&trained(&base, &parameters, &strengths), &ours, &()).expect("merged");
        let files = [&theirs, &merged.path].map(|path| (Header::read_file(path).expect("sound"), fs::read(path).expect("read")));
        assert_eq!(files[0].0.tensors.len(), files[1].0.tensors.len());
        for tensor in &files[0].0.tensors {
            let own = files[1].0.tensor(&tensor.name).expect("there");
            assert_eq!(bytes_of(&files[0].1, tensor), bytes_of(&files[1].1, own), "{name} {}", tensor.name);
        }
    }
}

#[test]
fn an_adapter_of_some_layers_names_them() {
    let (place, base) = (tempfile::tempdir().expect("a folder"), golden("llama-untied-gqa"));
    let mut parameters = adapters(&base, PLAIN);
    parameters.retain(|name, _| name.starts_with("blk.0.attn_q.") || name.contains(".ffn_down."));
    let folder = written(place.path(), &base, &parameters, &strengths(4)).expect("written");
    assert_eq!(config(&folder)["target_modules"], json!(["down_proj", "model.layers.0.self_attn.q_proj"]));
}

#[test]
fn what_peft_has_no_words_for_is_refused_and_nothing_is_left() {
    let (place, base) = (tempfile::tempdir().expect("a folder"), golden("llama-untied-gqa"));
    let refused = |change: &dyn Fn(&mut Tensors), what: &str| {
        let mut parameters = adapters(&base, Made { magnitudes: true, ..PLAIN });
        change(&mut parameters);
        let error = written(place.path(), &base, &parameters, &strengths(4)).expect_err(what).to_string();
        assert!(error.contains(what), "{error}");
        assert_eq!(fs::read_dir(place.path()).expect("listed").count(), 0);
    };
    refused(&|all| drop(all.remove("blk.0.attn_q.magnitude")), "only some matrices have magnitudes");
    refused(&|all| all.retain(|name, _| name.ends_with("nothing")), "without adapters");
    let rename = |all: &mut Tensors, shape: (usize, usize), part: &str| {
        all.insert(format!("token_embd.{part}"), Tensor::ones(shape, candle_core::DType::F32, &Device::Cpu).expect("made"));
    };
    let embedding = |all: &mut Tensors| {
        rename(all, (4, 32), "lora_a");
        rename(all, (72, 4), "lora_b");
    };
    refused(&embedding, "adapter of the embedding");
}

#[test]
fn an_adapter_for_another_model_is_not_read() {
    let (place, base) = (tempfile::tempdir().expect("a folder"), golden("llama-untied-gqa"));
    let folder = written(place.path(), &base, &adapters(&base, PLAIN), &strengths(4)).expect("written");
    let error = read_peft(&folder, &golden("mistral-window"), &Device::Cpu).expect_err("wider heads").to_string();
    assert!(error.contains("is for a matrix of"), "{error}");
    assert!(read_peft(place.path(), &base, &Device::Cpu).expect_err("no adapter").to_string().contains("adapter_config.json"));
}

#[test]
fn as_gguf_an_adapter_acts_as_strongly_as_it_was_trained_to() {
    let (place, base) = (tempfile::tempdir().expect("a folder"), golden("llama3-scaling-tied"));
    let parameters = adapters(&base, PLAIN);
    let mut strengths = strengths(4);
    strengths.rank_stabilized = true;
    strengths.alphas.insert("blk.1.ffn_up".into(), 2.0);
    let wanted = AdapterGguf { path: place.path().join("adapter.gguf"), file_type: FileType::F32, name: None, overwrite: false };
    let made = write_adapter_gguf(&trained(&base, &parameters, &strengths), &wanted, &()).expect("written");
    let header = Header::read_file(&made.path).expect("sound");
    assert_eq!((header.metadata.str("general.type"), header.metadata.str("general.name")), (Some("adapter"), Some("adapter")));
    let alpha = f64::from(header.metadata.f32("adapter.lora.alpha").expect("alpha"));
    for (name, module) in [("blk.0.attn_q", "blk.0.attn_q"), ("blk.1.ffn_up", "blk.1.ffn_up"), ("blk.1.attn_k", "blk.1.attn_k")] {
        let (a, b) = (read(&made.path, &format!("{name}.weight.lora_a")), read(&made.path, &format!("{name}.weight.lora_b")));
        assert_eq!(a, parameter(&parameters, &format!("{module}.lora_a")));
        for (found, trained) in b.iter().zip(parameter(&parameters, &format!("{module}.lora_b"))) {
            let strength = f64::from(*found) / f64::from(trained) * alpha / 4.0;
            assert!((strength - strengths.scale(module, 4)).abs() < 1e-5, "{name}: {strength}");
        }
    }
    assert_eq!(fs::read_dir(place.path()).expect("listed").count(), 1);
    let with_lengths = adapters(&base, Made { magnitudes: true, ..PLAIN });
    let error = write_adapter_gguf(&trained(&base, &with_lengths, &strengths), &AdapterGguf { overwrite: true, ..wanted }, &());
    assert!(error.expect_err("refused").to_string().contains("magnitudes (DoRA)"));
}
