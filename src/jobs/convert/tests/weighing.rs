//! Importance matrices, as llama-quantize uses them.

use std::fs;
use std::path::Path;

use serde_json::Value as Json;

use super::super::{Options, Source, Target, convert};
use super::weights::{golden, model, numbers};
use crate::gguf::file_type::FileType;

const NAME: &str = "Tiny-Llama-3-1M-Instruct";

/// `convert.py`'s matrix, in the older format.
fn importance(path: &Path) {
    let number = |number: usize| u32::try_from(number).expect("small").to_le_bytes();
    let mut bytes = number(6).to_vec();
    for layer in [0, 1] {
        for (part, columns) in [("attn_v", 256), ("ffn_down", 512), ("ffn_up", 256)] {
            let name = format!("blk.{layer}.{part}.weight");
            let values = numbers(&format!("importance of {name}"), columns);
            bytes.extend([&number(name.len())[..], name.as_bytes(), &number(1), &number(columns)].concat());
            bytes.extend(values.iter().flat_map(|value| (value.abs() * 2.0).to_le_bytes()));
        }
    }
    bytes.extend([&number(7)[..], &number(5), b"a.txt"].concat());
    fs::write(path, bytes).expect("written");
}

#[test]
fn files_made_with_a_matrix_are_llama_quantizes() {
    let place = tempfile::tempdir().expect("a folder");
    let golden: Json = serde_json::from_str(&fs::read_to_string(golden().join("golden.json")).expect("committed")).expect("JSON");
    let golden = golden[NAME]["weighed"].as_object().expect("files").clone();
    let matrix = place.path().join("importance.dat");
    importance(&matrix);
    let mut options = Options::new(Source::Folder(model(place.path(), NAME)), FileType::F32, Target::Folder(place.path().into()));
    options.types = golden.keys().map(|kind| kind.parse().expect("a type")).collect();
    options.importance = Some(matrix);
    for (outcome, (kind, sha256)) in convert(&options, &()).expect("converted").iter().zip(&golden) {
        assert_eq!(Some(outcome.sha256.as_str()), sha256.as_str(), "{kind}");
    }
}
