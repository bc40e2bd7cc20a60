//! The same metadata, the same tensors, the same files.

use std::fs;
use std::path::Path;

use serde_json::{Value as Json, json};
use sha2::{Digest as _, Sha256};

use super::super::model::Model;
use super::super::{Options, Source, Target, convert, plan};
use super::weights::{golden, model};
use crate::domain::digest::Digest;
use crate::gguf::file_type::FileType;
use crate::gguf::{Header, Metadata, Strings, TensorKind, Value};

fn expected(name: &str) -> Json {
    let text = fs::read_to_string(golden().join("golden.json")).expect("committed");
    serde_json::from_str::<Json>(&text).expect("JSON")[name].clone()
}

fn hex(bytes: &[u8]) -> String {
    Digest::new(Sha256::digest(bytes).into()).hex()
}

/// A value as `convert.py` describes it.
fn described(value: &Value) -> (&'static str, Json) {
    let hashed =
        |list: Json| if list.as_array().is_some_and(|list| list.len() > 8) { hex(list.to_string().as_bytes()).into() } else { list };
    let texts = |all: &Strings| all.iter().map(|text| String::from_utf8_lossy(text).into_owned()).collect::<Vec<_>>();
    match value {
        Value::U32(number) => ("UINT32", json!(number)),
        Value::I32(number) => ("INT32", json!(number)),
        Value::F32(number) => ("FLOAT32", json!(f64::from(*number))),
        Value::Bool(switch) => ("BOOL", json!(switch)),
        Value::String(text) => ("STRING", json!(text)),
        Value::Strings(all) => ("ARRAY+STRING", hashed(json!(texts(all)))),
        Value::I32s(all) => ("ARRAY+INT32", hashed(json!(all))),
        Value::F32s(all) => ("ARRAY+FLOAT32", hex(&all.iter().flat_map(|number| number.to_le_bytes()).collect::<Vec<_>>()).into()),
        other => panic!("{other:?}"),
    }
}

fn assert_same_metadata(metadata: &Metadata, expected: &Json, name: &str) {
    let ours: Vec<Json> = metadata
        .iter()
        .map(|(key, value)| {
            let (kind, value) = described(value);
            // The golden dump was made in BF16, the metadata here say what the weights are.
            json!([key, kind, if key == "general.file_type" { json!(32) } else { value }])
        })
        .collect();
    let theirs = expected.as_array().expect("a list");
    for (ours, theirs) in ours.iter().zip(theirs) {
        assert_eq!(ours, theirs, "{name}");
    }
    assert_eq!(ours.len(), theirs.len(), "{name}: {:?}", ours.last());
}

/// The SHA-256 of every tensor is the converter's.
fn assert_same_tensors(file: &Path, expected: &Json, what: &str) {
    let (header, bytes) = (Header::read_file(file).expect("sound"), fs::read(file).expect("read"));
    let expected = expected.as_object().expect("an object");
    for tensor in &header.tensors {
        let range = usize::try_from(tensor.offset).expect("small")..usize::try_from(tensor.offset + tensor.size_bytes).expect("small");
        assert_eq!(Some(hex(&bytes[range]).as_str()), expected[&tensor.name].as_str(), "{what}: {}", tensor.name);
    }
    assert_eq!(header.tensors.len(), expected.len(), "{what}");
}

fn check(name: &str) {
    let expected = expected(name);
    let place = tempfile::tempdir().expect("a folder");
    let mut options = Options::new(Source::Folder(model(place.path(), name)), FileType::F32, Target::Folder(place.path().into()));
    let opened = Model::open(&options).expect("opened");
    assert_same_metadata(opened.metadata(), &expected["metadata"], name);

    let files = expected["files"].as_object().expect("files");
    options.types = files.keys().map(|kind| kind.parse().expect("a type")).collect();
    let planned = plan(&options).expect("planned");
    let outcomes = convert(&options, &()).expect("converted");
    for ((outcome, planned), (kind, file)) in outcomes.iter().zip(&planned.files).zip(files) {
        let what = format!("{name} {kind}");
        // From F32 the converter's own Q8_0 is not what it and llama-quantize make between them, which goes through F16.
        let two_ways = kind == "Q8_0" && name == "tiny-qwen2";
        if let Some(tensors) = expected["tensors"].get(kind).filter(|_| !two_ways) {
            assert_same_tensors(&outcome.path, tensors, &what);
        }
        assert_eq!((outcome.size_bytes, planned.size_bytes), (file["size_bytes"].as_u64().expect("a size"), outcome.size_bytes), "{what}");
        assert_eq!(Some(outcome.sha256.as_str()), file["sha256"].as_str(), "{what}");
        assert_eq!(fs::metadata(&outcome.path).expect("there").len(), outcome.size_bytes, "{what}");
    }
    assert_eq!(outcomes.len(), files.len());
    assert!(opened.tensors(FileType::F32).iter().all(|tensor| tensor.stage == TensorKind::F32));
}

#[test]
fn llama_3_of_three_shards_with_scaled_rope_and_a_card() {
    check("Tiny-Llama-3-1M-Instruct");
}

#[test]
fn mistral_in_f16_with_a_configuration_of_transformers_4() {
    check("tiny-mistral-v0.1");
}

#[test]
fn phi_3_with_long_rope() {
    check("tiny-phi3");
}

#[test]
fn gemma_in_f16_whose_norms_are_added_in_f16() {
    check("tiny-gemma");
}

#[test]
fn gemma_2() {
    check("tiny-gemma2");
}

#[test]
fn gemma_3_whose_rows_are_no_whole_blocks() {
    check("tiny-gemma3");
}

#[test]
fn qwen_2_in_f32_with_biases_and_two_templates() {
    check("tiny-qwen2");
}

#[test]
fn qwen_3_with_a_configuration_of_transformers_4() {
    check("tiny-qwen3");
}
