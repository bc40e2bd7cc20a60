//! What must not happen: half a file, a lost file, a file in the wrong place.

use std::cell::Cell;
use std::fs;
use std::num::NonZeroUsize;
use std::path::Path;

use super::super::{Error, Options, Progress, Source, Target, convert, plan};
use super::weights::{model, write_file};
use crate::gguf::file_type::FileType;

const NAME: &str = "tiny-qwen3";

/// Stops after so many reports.
struct StopsAfter(Cell<u32>);

impl Progress for StopsAfter {
    fn advanced(&self, done_bytes: u64, total_bytes: u64) {
        assert!(done_bytes <= total_bytes);
        self.0.set(self.0.get().saturating_sub(1));
    }

    fn is_cancelled(&self) -> bool {
        self.0.get() == 0
    }
}

fn options(place: &Path) -> Options {
    let mut options = Options::new(Source::Folder(model(place, NAME)), FileType::Q4_K_M, Target::File(place.join("out.gguf")));
    options.threads = NonZeroUsize::new(3).expect("three");
    options
}

fn files(place: &Path) -> Vec<String> {
    let mut names: Vec<_> =
        fs::read_dir(place).expect("listed").map(|entry| entry.expect("listed").file_name().into_string().expect("text")).collect();
    names.sort_unstable();
    names
}

#[test]
fn a_cancelled_conversion_leaves_nothing() {
    let place = tempfile::tempdir().expect("a folder");
    let options = options(place.path());
    for reports in [0, 1, 5] {
        let error = convert(&options, &StopsAfter(Cell::new(reports))).expect_err("cancelled");
        assert!(matches!(error, Error::Cancelled), "{error}");
        assert_eq!(files(place.path()), [NAME], "{reports}");
    }
}

#[test]
fn a_file_that_is_there_stays_unless_told_otherwise() {
    let place = tempfile::tempdir().expect("a folder");
    let mut options = options(place.path());
    fs::write(place.path().join("out.gguf"), "precious").expect("written");
    assert!(matches!(convert(&options, &()), Err(Error::Exists { .. })));
    assert_eq!(fs::read(place.path().join("out.gguf")).expect("read"), b"precious");
    options.overwrite = true;
    let outcome = convert(&options, &()).expect("converted").remove(0);
    assert_eq!(fs::metadata(outcome.path).expect("there").len(), outcome.size_bytes);
    assert_eq!(files(place.path()), ["out.gguf", NAME]);
}

#[test]
fn the_number_of_threads_does_not_change_the_file() {
    let place = tempfile::tempdir().expect("a folder");
    let mut options = options(place.path());
    options.overwrite = true;
    let hashes: Vec<_> = [1, 2, 7]
        .map(|threads| {
            options.threads = NonZeroUsize::new(threads).expect("at least one");
            convert(&options, &()).expect("converted").remove(0).sha256
        })
        .into();
    assert!(hashes.windows(2).all(|pair| pair[0] == pair[1]), "{hashes:?}");
}

#[test]
fn what_cannot_be_meant_is_refused() {
    let place = tempfile::tempdir().expect("a folder");
    let refused = |change: &dyn Fn(&mut Options), what: &str| {
        let mut options = options(place.path());
        change(&mut options);
        let error = plan(&options).expect_err(what).to_string();
        assert!(error.contains(what), "{error}");
    };
    refused(&|options| options.types.clear(), "no type");
    refused(&|options| options.types = vec![FileType::Q8_0; 2], "twice");
    refused(&|options| options.types = vec![FileType::Q8_0, FileType::F16], "give a folder");
    refused(&|options| options.types = vec![FileType::Q2_K_S], "importance matrix");
    refused(&|options| options.source = Source::Folder("/does/not/exist".into()), "cannot open /does/not/exist");
    refused(&|options| options.importance = Some("/does/not/exist".into()), "/does/not/exist");
}

#[test]
fn a_reranker_is_not_taken_for_a_model_that_writes() {
    let place = tempfile::tempdir().expect("a folder");
    let mut options = options(place.path());
    let folder = place.path().join("Qwen3-Reranker-0.6B");
    fs::rename(place.path().join(NAME), &folder).expect("renamed");
    options.source = Source::Folder(folder);
    assert!(plan(&options).expect_err("refused").to_string().contains("a reranker"));
}

#[test]
fn weights_that_are_no_numbers_are_not_quantized() {
    let place = tempfile::tempdir().expect("a folder");
    let mut options = options(place.path());
    let weights = place.path().join(NAME).join("model.safetensors");
    let mut bytes = fs::read(&weights).expect("read");
    let start = 8 + usize::try_from(u64::from_le_bytes(*bytes.first_chunk().expect("a length"))).expect("small");
    bytes[start..start + 2].copy_from_slice(&0x7f80_u16.to_le_bytes());
    fs::write(&weights, bytes).expect("written");
    let error = convert(&options, &()).expect_err("infinite").to_string();
    assert!(error.contains("infinite"), "{error}");
    assert_eq!(files(place.path()), [NAME]);
    options.types = vec![FileType::BF16];
    convert(&options, &()).expect("kept as they are");
}

#[test]
fn weights_that_do_not_fit_the_configuration_are_refused() {
    let place = tempfile::tempdir().expect("a folder");
    let options = options(place.path());
    let weights = place.path().join(NAME).join("model.safetensors");
    let tensor = |name: &str, dtype: &str, shape: &[u64]| (name.to_owned(), dtype.to_owned(), shape.to_vec());
    let embedding = tensor("model.embed_tokens.weight", "BF16", &[272, 256]);
    for (more, what) in [
        (tensor("model.layers.2.mlp.up_proj.weight", "BF16", &[1, 1]), "no tensor of qwen3 has this name"),
        (tensor("model.layers.0.mystery.weight", "BF16", &[1, 1]), "no tensor of qwen3 has this name"),
        (tensor("model.norm.weight", "F32", &[1, 1, 1, 1, 1]), "shape"),
        (tensor("model.norm.weight", "F32", &[0]), "shape"),
        (tensor("model.norm.weight", "F32", &[]), "shape"),
    ] {
        write_file(&weights, &[embedding.clone(), more]);
        let error = plan(&options).expect_err(what).to_string();
        assert!(error.contains(what), "{error}");
    }
    write_file(&weights, &[tensor("model.embed_tokens.weight", "BF16", &[271, 256])]);
    let error = plan(&options).expect_err("too few rows").to_string();
    assert!(error.contains("271 rows for the 272 tokens"), "{error}");
    write_file(&weights, &[tensor("lm_head.weight", "BF16", &[272, 256])]);
    assert!(plan(&options).expect_err("no embedding").to_string().contains("embed_tokens"));
}
