//! Sound headers, and hostile ones.

use std::fs;

use proptest::prelude::*;

use super::header::{Dtype, read};
use super::*;

/// A file of this header and so many bytes of data.
fn file(json: &str, data_bytes: usize) -> Vec<u8> {
    [&(json.len() as u64).to_le_bytes()[..], json.as_bytes(), &vec![0; data_bytes]].concat()
}

fn parse(bytes: &[u8]) -> std::result::Result<Vec<Entry>, String> {
    read(bytes, bytes.len() as u64)
}

fn tensor(name: &str, dtype: &str, shape: &str, offsets: &str) -> String {
    format!(r#""{name}":{{"dtype":"{dtype}","shape":{shape},"data_offsets":{offsets}}}"#)
}

#[test]
fn a_sound_header_is_read_in_the_order_of_names() {
    let json = format!(
        r#"{{"__metadata__":{{"format":"pt"}},{},{},{}}} "#,
        tensor("b", "BF16", "[2,3]", "[4,16]"),
        tensor("a", "F32", "[1]", "[0,4]"),
        tensor("c", "F64", "[0,7]", "[16,16]"),
    );
    let entries = parse(&file(&json, 16)).expect("sound");
    assert_eq!(entries.iter().map(|entry| entry.name.as_str()).collect::<Vec<_>>(), ["a", "b", "c"]);
    let start = 8 + json.len() as u64;
    assert_eq!(entries[1], Entry { name: "b".into(), dtype: Dtype::Bf16, shape: vec![2, 3], start: start + 4, size_bytes: 12 });
}

#[test]
fn hostile_headers_are_refused() {
    let one = |shape: &str, offsets: &str| format!("{{{}}}", tensor("a", "F32", shape, offsets));
    for (json, what) in [
        ("[]".to_owned(), "broken"),
        ("{".to_owned(), "broken"),
        (one("[4]", "[0,12]"), "are no tensor of shape"),
        (one("[4]", "[16,0]"), "are no tensor of shape"),
        (one("[4294967296,4294967296,4]", "[0,0]"), "are no tensor of shape"),
        (one("[4]", "[0,16]"), "incomplete"),
        (one("[1]", "[18446744073709551612,18446744073709551615]"), "are no tensor of shape"),
        (one("[0]", "[18446744073709551615,18446744073709551615]"), "impossible offset"),
        (one("[1,1,1,1,1,1,1,1,1]", "[0,4]"), "9 dimensions"),
        (one("[-1]", "[0,4]"), "broken"),
        (format!("{{{}}}", tensor("a", "F33", "[1]", "[0,4]")), "not known"),
        (format!("{{{}}}", tensor("", "F32", "[1]", "[0,4]")), "empty"),
        (format!("{{{}}}", tensor(&"n".repeat(600), "F32", "[1]", "[0,4]")), "too long"),
        (format!("{{{},{}}}", tensor("a", "F32", "[1]", "[0,4]"), tensor("a", "F32", "[1]", "[4,8]")), "twice"),
        (format!("{{{},{}}}", tensor("a", "F32", "[2]", "[0,8]"), tensor("b", "F32", "[1]", "[4,8]")), "overlaps"),
    ] {
        let error = parse(&file(&json, 8)).expect_err(&json);
        assert!(error.contains(what), "{json}: {error}");
    }
}

#[test]
fn lengths_are_checked_before_anything_is_allocated() {
    for length in [9_u64, 1 << 40, u64::MAX] {
        let bytes = [&length.to_le_bytes()[..], b"{}"].concat();
        assert!(parse(&bytes).expect_err("too long").contains("would have"), "{length}");
    }
    assert!(parse(b"1234").is_err());
    assert!(read(&b"\x05\0\0\0\0\0\0\0{}"[..], 1000).expect_err("cut").contains("incomplete"));
}

#[test]
fn every_cut_of_a_file_is_refused_or_read() {
    let bytes = file(&format!("{{{}}}", tensor("a", "F16", "[3]", "[0,6]")), 6);
    for end in 0..bytes.len() {
        assert!(parse(&bytes[..end]).is_err(), "{end}");
    }
}

proptest! {
    #[test]
    fn no_bytes_are_believed_or_panicked_at(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let _ = parse(&bytes);
    }

    /// A sound header with some of its bytes changed: what is still read lies within the file, and apart.
    #[test]
    fn what_is_read_from_a_changed_header_lies_within_the_file(changes in proptest::collection::vec((8_usize..200, any::<u8>()), 1..4)) {
        let json = format!("{{{},{}}}", tensor("a", "F32", "[2]", "[0,8]"), tensor("b", "BF16", "[4]", "[8,16]"));
        let mut bytes = file(&json, 16);
        for (at, byte) in changes {
            let at = at % bytes.len();
            bytes[at] = byte;
        }
        for entry in parse(&bytes).unwrap_or_default() {
            prop_assert!(entry.start >= 8 && entry.start + entry.size_bytes <= bytes.len() as u64);
        }
    }
}

fn folder(files: &[(&str, &[u8])]) -> (tempfile::TempDir, Folder) {
    let place = tempfile::tempdir().expect("a folder");
    for (name, bytes) in files {
        fs::write(place.path().join(name), bytes).expect("written");
    }
    let folder = Folder::open(place.path()).expect("open");
    (place, folder)
}

#[test]
fn an_index_and_its_files_must_agree() {
    let one = file(&format!("{{{}}}", tensor("a", "F16", "[3]", "[0,6]")), 6);
    let two = file(&format!("{{{}}}", tensor("b", "F16", "[1]", "[0,2]")), 2);
    let open = |index: &str| {
        let (_place, folder) = folder(&[("x-1.safetensors", &one), ("x-2.safetensors", &two), (INDEX, index.as_bytes())]);
        Weights::open(&folder).map(|weights| weights.tensors().iter().map(|(file, entry)| (*file, entry.name.clone())).collect::<Vec<_>>())
    };
    let good = open(r#"{"weight_map":{"b":"x-2.safetensors","a":"x-1.safetensors"}}"#).expect("sound");
    assert_eq!(good, [(0, "a".to_owned()), (1, "b".to_owned())]);
    for (index, what) in [
        (r#"{"weight_map":{"a":"x-1.safetensors","c":"x-2.safetensors"}}"#, "c is in none of the files"),
        (r#"{"weight_map":{"a":"../x-1.safetensors"}}"#, "no plain name"),
        (r#"{"weight_map":{"a":"/etc/passwd"}}"#, "no plain name"),
        (r#"{"weight_map":{"a":1}}"#, "no file's name"),
        (r#"{"weight_map":[]}"#, "no `weight_map`"),
        (r#"{"weight_map":{"a":"gone.safetensors"}}"#, "cannot open"),
        ("nonsense", "expected"),
    ] {
        let error = open(index).expect_err(index).to_string();
        assert!(error.contains(what), "{index}: {error}");
    }
}

#[test]
fn files_without_an_index_are_found_by_name_and_may_not_repeat_a_tensor() {
    let one = file(&format!("{{{}}}", tensor("a", "F16", "[1]", "[0,2]")), 2);
    let (_place, single) = folder(&[("model.safetensors", &one), ("other.safetensors", b"junk")]);
    assert_eq!(Weights::open(&single).expect("sound").tensors().len(), 1);
    let (_place, double) = folder(&[("model-1.safetensors", &one), ("model-2.safetensors", &one)]);
    assert!(Weights::open(&double).expect_err("twice").to_string().contains("another file too"));
    let (_place, empty) = folder(&[]);
    assert!(Weights::open(&empty).expect_err("empty").to_string().contains("model*.safetensors"));
}
