//! Merged folders: from a GGUF file alone and from the folder it was made of.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use candle_core::{Device, Tensor};
use serde_json::Value;

use super::super::{FolderOptions, PeftOptions, Precision, merge_safetensors, write_peft};
use super::made::{FOLDERS, Made, adapters, bytes_of, converted, strengths, trained};
use crate::gguf::Header;
use crate::gguf::file_type::FileType;
use crate::jobs::convert::folder::Folder;
use crate::jobs::convert::rows::unpack;
use crate::jobs::convert::safetensors::Weights;
use crate::jobs::convert::{Options, Source, Target, convert};
use crate::jobs::finetune::learner::Tensors;

const MADE: Made = Made { rank: 4, change: 0.05, magnitudes: false };

fn options(place: &Path, name: &str, precision: Precision) -> FolderOptions {
    FolderOptions { precision, ..FolderOptions::new(place.join(name)) }
}

/// All numbers of a folder by their tensors' names.
fn weights(folder: &Path) -> BTreeMap<String, Vec<f32>> {
    numbers(&Weights::open(&Folder::open(folder).expect("opened")).expect("weights"))
}

/// The same of one file in it.
pub(super) fn weights_of(folder: &Path, file: &str) -> BTreeMap<String, Vec<f32>> {
    numbers(&Weights::open_files(&Folder::open(folder).expect("opened"), &[file.to_owned()]).expect("weights"))
}

fn numbers(weights: &Weights) -> BTreeMap<String, Vec<f32>> {
    let numbers = |(file, entry): &(usize, crate::jobs::convert::safetensors::Entry)| {
        let mut raw = vec![0; usize::try_from(entry.size_bytes).expect("small")];
        weights.read(*file, entry.start, &mut raw).expect("read");
        let mut numbers = vec![0.0; usize::try_from(entry.shape.iter().product::<u64>()).expect("small")];
        unpack(entry.dtype, &raw, &mut numbers).expect("unpacked");
        (entry.name.clone(), numbers)
    };
    weights.tensors().iter().map(numbers).collect()
}

fn tensors(path: &Path) -> (Header, Vec<u8>) {
    (Header::read_file(path).expect("sound"), fs::read(path).expect("read"))
}

/// From a GGUF file comes the folder that it was made from, and from that again the file.
#[test]
fn the_way_back_ends_where_the_way_there_began() {
    for name in FOLDERS {
        let place = tempfile::tempdir().expect("a folder");
        let (folder, base) = converted(place.path(), name, FileType::F32);
        let (nothing, strengths) = (Tensors::new(), strengths(4));
        let wanted = options(place.path(), "back", Precision::F32);
        let merged = merge_safetensors(&trained(&base, &nothing, &strengths), &wanted, &()).expect("merged");
        assert!(merged.notes[0].contains("no tokenizer"), "{name}");
        for (tensor, numbers) in weights(&folder) {
            let back = weights(&wanted.path).remove(&tensor).unwrap_or_else(|| panic!("{name} {tensor}"));
            // Embeddings of no token are not in the file.
            assert!(back.len() == numbers.len() || (tensor.contains("embed_tokens") && back.len() < numbers.len()), "{name} {tensor}");
            let norms = name.contains("gemma") && tensor.ends_with("norm.weight");
            for (back, number) in back.iter().zip(&numbers) {
                assert!(back.to_bits() == number.to_bits() || (norms && (back - number).abs() < 1e-3), "{name} {tensor}: {back} {number}");
            }
        }
        for entry in fs::read_dir(&folder).expect("listed").flatten().filter(|entry| entry.file_name().to_string_lossy().contains("token"))
        {
            fs::copy(entry.path(), wanted.path.join(entry.file_name())).expect("copied");
        }
        let again = place.path().join("again.gguf");
        convert(&Options::new(Source::Folder(wanted.path), FileType::F32, Target::File(again.clone())), &()).expect("converted");
        assert_same(&tensors(&base), &tensors(&again), name);
    }
}

/// The same tensors, and the same settings of the model.
fn assert_same(before: &(Header, Vec<u8>), after: &(Header, Vec<u8>), name: &str) {
    for tensor in &before.0.tensors {
        let own = after.0.tensor(&tensor.name).unwrap_or_else(|| panic!("{name} {}", tensor.name));
        let is_norm = name.contains("gemma") && tensor.name.ends_with("norm.weight");
        assert!(is_norm || bytes_of(&before.1, tensor) == bytes_of(&after.1, own), "{name} {}", tensor.name);
    }
    let architecture = before.0.metadata.str("general.architecture").expect("said");
    for (key, value) in before.0.metadata.iter().filter(|(key, _)| key.starts_with(architecture)) {
        let is_unsaid = key.ends_with("vocab_size");
        assert!(is_unsaid || after.0.metadata.get(key) == Some(value), "{name} {key}: {value:?} {:?}", after.0.metadata.get(key));
    }
}

#[test]
fn with_the_folder_its_weights_are_changed_and_its_tokenizer_is_copied() {
    for name in FOLDERS {
        let place = tempfile::tempdir().expect("a folder");
        let (folder, base) = converted(place.path(), name, FileType::Q8_0);
        let (mut parameters, strengths) = (adapters(&base, MADE), strengths(4));
        parameters.insert("output_norm.weight".into(), Tensor::ones(256, candle_core::DType::F32, &Device::Cpu).expect("made"));
        if name == "tiny-gemma3" {
            parameters.remove("output_norm.weight");
        }
        let trained = trained(&base, &parameters, &strengths);
        let mut wanted = options(place.path(), "merged", Precision::F32);
        (wanted.original, wanted.shard_bytes) = (Some(folder.clone()), 1 << 20);
        let merged = merge_safetensors(&trained, &wanted, &()).expect("merged");
        assert!(merged.notes.is_empty() && merged.shards.len() > 1, "{name}");
        assert!(
            fs::read_dir(&wanted.path).expect("listed").flatten().any(|entry| entry.file_name().to_string_lossy().starts_with("token"))
        );
        let config: Value = serde_json::from_slice(&fs::read(wanted.path.join("config.json")).expect("read")).expect("JSON");
        assert_eq!(config["torch_dtype"], "float32");

        // What `convert` makes of the folder and the adapter is what it makes of the merged folder.
        parameters.remove("output_norm.weight");
        let adapter = PeftOptions { path: place.path().join("adapter"), ..PeftOptions::default() };
        write_peft(&super::made::trained(&base, &parameters, &strengths), &adapter).expect("written");
        let mut both = [(folder, Some(adapter.path)), (wanted.path, None)].map(|(source, adapter)| {
            let path = place.path().join(if adapter.is_some() { "a.gguf" } else { "b.gguf" });
            let mut options = Options::new(Source::Folder(source), FileType::F32, Target::File(path.clone()));
            options.adapter = adapter;
            convert(&options, &()).expect("converted");
            tensors(&path)
        });
        let changed = both[1].0.tensors.iter().find(|tensor| tensor.name == "output_norm.weight").expect("there");
        if name != "tiny-gemma3" {
            assert!(bytes_of(&both[1].1, changed).chunks(4).all(|number| number == 1_f32.to_le_bytes()), "{name}");
        }
        both[0].0.tensors.retain(|tensor| tensor.name != "output_norm.weight");
        assert_same(&both[0], &both[1], name);
    }
}

#[test]
fn what_was_cancelled_or_is_there_already_leaves_all_as_it_was() {
    struct Stopped;
    impl crate::jobs::convert::Progress for Stopped {
        fn advanced(&self, _: u64, _: u64) {}

        fn is_cancelled(&self) -> bool {
            true
        }
    }
    let place = tempfile::tempdir().expect("a folder");
    let (_, base) = converted(place.path(), "tiny-qwen3", FileType::F32);
    let (parameters, strengths) = (adapters(&base, MADE), strengths(4));
    let (trained, wanted) = (trained(&base, &parameters, &strengths), options(place.path(), "out", Precision::Bf16));
    let names = || fs::read_dir(place.path()).expect("listed").count();
    let before = names();
    assert!(merge_safetensors(&trained, &wanted, &Stopped).expect_err("stopped").to_string().contains("cancelled"));
    assert_eq!(names(), before);
    merge_safetensors(&trained, &wanted, &()).expect("merged");
    assert!(merge_safetensors(&trained, &wanted, &()).expect_err("there").to_string().contains("is there already"));
}
