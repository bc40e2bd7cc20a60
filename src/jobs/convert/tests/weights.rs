//! Folders of models with weights that are made from their names, here as in `convert.py`.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};

use crate::gguf::TensorKind;
use crate::gguf::quants::encode;

pub(in crate::jobs) fn golden() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/convert")
}

/// One step of splitmix64 for a counter.
fn splitmix(state: u64) -> u64 {
    let z = state.wrapping_mul(0x9E37_79B9_7F4A_7C15);
    let z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

/// Numbers in ±0.125 that depend on the name alone.
#[expect(clippy::cast_precision_loss, reason = "16 bits fit")]
pub(in crate::jobs) fn numbers(name: &str, count: usize) -> Vec<f32> {
    let digest: [u8; 32] = Sha256::digest(name.as_bytes()).into();
    let seed = u64::from_le_bytes(*digest.first_chunk().expect("32 bytes"));
    let number = |at: u64| (splitmix(seed.wrapping_add(at)) >> 48).cast_signed() - 32_768;
    (0..count as u64).map(|at| number(at) as f32 / 262_144.0).collect()
}

fn bytes(name: &str, dtype: &str, count: usize) -> Vec<u8> {
    let kind = match dtype {
        "F32" => TensorKind::F32,
        "F16" => TensorKind::F16,
        "BF16" => TensorKind::BF16,
        other => panic!("{other}"),
    };
    let mut bytes = vec![0; count * usize::try_from(kind.block_bytes()).expect("small")];
    encode(kind, &numbers(name, count), count.max(1), None, &mut bytes).expect("encoded");
    bytes
}

/// Writes one safetensors file of tensors given as name, type and shape.
pub(in crate::jobs) fn write_file(path: &Path, tensors: &[(String, String, Vec<u64>)]) {
    let (mut header, mut data) = (Map::new(), Vec::new());
    for (name, dtype, shape) in tensors {
        let count = usize::try_from(shape.iter().product::<u64>()).expect("small");
        let start = data.len();
        data.extend(bytes(name, dtype, count));
        header.insert(name.clone(), json!({"dtype": dtype, "shape": shape, "data_offsets": [start, data.len()]}));
    }
    let header = Value::Object(header).to_string();
    fs::write(path, [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), &data].concat()).expect("written");
}

/// A copy of a committed model, with its weights, under its own name in `place`.
pub(in crate::jobs) fn model(place: &Path, name: &str) -> PathBuf {
    let folder = place.join(name);
    fs::create_dir_all(&folder).expect("made");
    for entry in fs::read_dir(golden().join(name)).expect("the committed model") {
        let entry = entry.expect("listed");
        if entry.file_name() != "tensors.json" {
            fs::copy(entry.path(), folder.join(entry.file_name())).expect("copied");
        }
    }
    let list = fs::read_to_string(golden().join(name).join("tensors.json")).expect("the list of weights");
    let list: Vec<(String, String, String, Vec<u64>)> = serde_json::from_str(&list).expect("a list");
    let mut files: BTreeMap<String, Vec<_>> = BTreeMap::new();
    for (file, name, dtype, shape) in list {
        files.entry(file).or_default().push((name, dtype, shape));
    }
    for (file, tensors) in files {
        write_file(&folder.join(file), &tensors);
    }
    folder
}
