//! GGUF files in, GGUF files out.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value as Json;

use super::super::{Error, Options, Outcome, Source, Target, convert};
use super::weights::{golden, model};
use crate::gguf::Header;
use crate::gguf::file_type::FileType;

const NAME: &str = "tiny-qwen3";

/// The model as a GGUF file of this type.
fn made(place: &Path, file_type: FileType) -> PathBuf {
    let path = place.join(format!("{file_type}.gguf"));
    convert(&Options::new(Source::Folder(model(place, NAME)), file_type, Target::File(path.clone())), &()).expect("converted");
    path
}

fn again(source: &Path, file_type: FileType, allow: bool) -> Result<Outcome, Error> {
    let target = source.with_file_name(format!("again-{file_type}.gguf"));
    let options = Options::new(Source::Gguf(source.to_owned()), file_type, Target::File(target));
    convert(&Options { allow_requantize: allow, ..options }, &()).map(|mut outcomes| outcomes.remove(0))
}

fn sha256(file_type: &str) -> String {
    let golden: Json = serde_json::from_str(&fs::read_to_string(golden().join("golden.json")).expect("committed")).expect("JSON");
    golden[NAME]["files"][file_type]["sha256"].as_str().expect("a hash").to_owned()
}

#[test]
fn from_what_the_converter_writes_come_the_files_of_llama_quantize() {
    let place = tempfile::tempdir().expect("a folder");
    let source = made(place.path(), FileType::BF16);
    for file_type in [FileType::Q4_K_M, FileType::Q8_0, FileType::F32, FileType::BF16] {
        assert_eq!(again(&source, file_type, false).expect("converted").sha256, sha256(file_type.name()), "{file_type}");
    }
}

#[test]
fn what_is_quantized_is_quantized_again_only_when_that_is_allowed() {
    let place = tempfile::tempdir().expect("a folder");
    let source = made(place.path(), FileType::Q8_0);
    let refused = again(&source, FileType::Q4_K_M, false).expect_err("refused").to_string();
    assert!(refused.contains("quantized already, as Q8_0"), "{refused}");
    let outcome = again(&source, FileType::Q4_K_M, true).expect("converted");
    assert_eq!(Header::read_file(&outcome.path).expect("sound").file_type(), Some("Q4_K_M"));
    // What keeps its format is copied.
    assert_eq!(again(&source, FileType::Q8_0, false).expect("copied").sha256, sha256("Q8_0"));
}

#[test]
fn broken_files_and_parts_of_files_are_refused() {
    let place = tempfile::tempdir().expect("a folder");
    let source = made(place.path(), FileType::BF16);
    let bytes = fs::read(&source).expect("read");
    fs::write(&source, &bytes[..bytes.len() / 2]).expect("cut");
    assert!(again(&source, FileType::Q8_0, false).expect_err("cut").to_string().contains("incomplete"));
    let adapter = crate::gguf::writer::Writer::default().str("general.type", "adapter").finish();
    fs::write(&source, adapter).expect("written");
    assert!(again(&source, FileType::Q8_0, false).expect_err("an adapter").to_string().contains("holds an adapter"));
}
