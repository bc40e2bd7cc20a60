use std::io::Cursor;

use proptest::prelude::*;

use super::super::TensorKind;
use super::super::writer::Writer;
use super::{Error, Imatrix};

fn read(bytes: &[u8]) -> Result<Imatrix, Error> {
    Imatrix::read(Cursor::new(bytes))
}

fn int(n: i32) -> Vec<u8> {
    n.to_le_bytes().to_vec()
}

fn text(text: &str) -> Vec<u8> {
    [int(i32::try_from(text.len()).expect("small")), text.as_bytes().to_vec()].concat()
}

fn floats(numbers: &[f32]) -> Vec<u8> {
    numbers.iter().flat_map(|n| n.to_le_bytes()).collect()
}

/// One entry of the old format.
fn entry(name: &str, measurements: i32, values: &[f32]) -> Vec<u8> {
    [text(name), int(measurements), int(i32::try_from(values.len()).expect("small")), floats(values)].concat()
}

fn with_numbers(writer: Writer, name: &str, kind: TensorKind, numbers: &[f32], dimensions: &[u64]) -> Writer {
    let mut writer = writer.tensor(name, kind, dimensions);
    let start = writer.data.len() - 4 * numbers.len();
    writer.data[start..].copy_from_slice(&floats(numbers));
    writer
}

fn about() -> Writer {
    Writer::default().strings("imatrix.datasets", &["a.txt", "b.txt"]).u32("imatrix.chunk_count", 4).u32("imatrix.chunk_size", 512)
}

fn modern(counts: &[f32]) -> Vec<u8> {
    let writer = with_numbers(about(), "blk.0.ffn_up_exps.weight.in_sum2", TensorKind::F32, &[2.0, 4.0, 6.0, 8.0], &[2, 2]);
    with_numbers(writer, "blk.0.ffn_up_exps.weight.counts", TensorKind::F32, counts, &[1, counts.len() as u64]).finish()
}

#[test]
fn the_old_format_is_divided_by_its_measurements() {
    let body = [int(2), entry("a", 4, &[2.0, 4.0]), entry("b", 0, &[3.0])].concat();
    let plain = read(&body).expect("sound");
    assert_eq!((plain.get("a"), plain.get("b"), plain.get("c")), (Some(&[0.5, 1.0][..]), Some(&[3.0][..]), None));
    assert_eq!((plain.len(), plain.info("f").dataset, plain.info("f").chunks), (2, None, 0));
    let info = read(&[body, int(7), text("wiki.txt")].concat()).expect("sound").info("i.dat");
    assert_eq!((info.file.as_str(), info.dataset.as_deref(), info.entries, info.chunks), ("i.dat", Some("wiki.txt"), 2, 7));
}

#[test]
fn the_new_format_counts_each_expert() {
    let imatrix = read(&modern(&[2.0, 4.0])).expect("sound");
    assert_eq!(imatrix.get("blk.0.ffn_up_exps.weight"), Some(&[1.0, 2.0, 1.5, 2.0][..]));
    // An expert that was never asked: all columns alike.
    let imatrix = read(&modern(&[2.0, 0.0])).expect("sound");
    assert_eq!(imatrix.get("blk.0.ffn_up_exps.weight"), Some(&[1.0, 2.0, 1.0, 1.0][..]));
    let info = imatrix.info("i.gguf");
    assert_eq!((info.dataset.as_deref(), info.entries, info.chunks), (Some("a.txt"), 1, 4));
}

#[test]
fn values_must_fit_the_tensor() {
    let imatrix = read(&[int(2), entry("x.weight", 1, &[1.0; 8]), entry("token_embd.weight", 1, &[1.0])].concat()).expect("sound");
    assert_eq!(imatrix.for_tensor("y.weight", &[8, 3]).expect("none is fine"), None);
    assert_eq!(imatrix.for_tensor("x.weight", &[8, 3]).expect("fits").map(<[f32]>::len), Some(8));
    assert_eq!(imatrix.for_tensor("x.weight", &[4, 3, 2]).expect("two experts").map(<[f32]>::len), Some(8));
    assert_eq!(imatrix.for_tensor("token_embd.weight", &[8, 3]).expect("passes"), None);
    let error = imatrix.for_tensor("x.weight", &[16, 3]).expect_err("another model").to_string();
    assert_eq!(error, "the importance matrix has 8 values for `x.weight`, which needs 16: it was made for another model");
}

#[test]
fn what_is_broken_is_told() {
    let refused = |bytes: &[u8]| read(bytes).expect_err("broken").to_string();
    assert!(refused(&int(0)).contains("no entries"));
    assert!(refused(&int(-1)).contains("the number of entries is -1"));
    assert!(refused(&int(i32::MAX)).contains("incomplete"));
    assert!(refused(&[int(1), int(i32::MAX), vec![0; 20]].concat()).contains("a name has 2147483647 bytes"));
    assert!(refused(&[int(1), text("a"), int(1), int(i32::MAX), vec![0; 20]].concat()).contains("incomplete"));
    assert!(refused(&[int(1), entry("a", 1, &[f32::NAN])].concat()).contains("`a` is broken: it has values that are no numbers"));
    assert!(refused(&[int(1), entry("abcdefg\u{1b}", 1, &[]), vec![0; 9]].concat()).contains("\\u{1b}` is broken: it has no values"));
    assert!(refused(&Writer::default().finish()).contains("`imatrix.datasets` is missing"));
    assert!(refused(&about().finish()).contains("no entries"));
    assert!(refused(&modern(&[1.0, 1.0, 1.0])).contains("4 values are not the same number for each of 3 counts"));
    assert!(refused(&about().tensor("a.in_sum2", TensorKind::F32, &[4]).finish()).contains("its sums or its counts are missing"));
    let halves = about().tensor("a.in_sum2", TensorKind::F16, &[4]).tensor("a.counts", TensorKind::F32, &[1]).finish();
    assert!(refused(&halves).contains("F16 instead of F32"));
    let uneven = about().tensor("a.in_sum", TensorKind::F32, &[2]).tensor("a.in_sum2", TensorKind::F32, &[4]);
    assert!(refused(&uneven.tensor("a.counts", TensorKind::F32, &[1]).finish()).contains("not as many sums"));
    assert!(refused(&modern(&[1.0])[..100]).contains("incomplete"));
}

proptest! {
    #[test]
    fn any_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let _ = read(&bytes);
        let _ = read(&[int(1), bytes].concat());
    }

    #[test]
    fn mutated_files_never_panic(at in any::<proptest::sample::Index>(), value: u64, width in 1_usize..9, is_old: bool) {
        let mut file = if is_old { [int(2), entry("a", 4, &[2.0, 4.0]), entry("b", 0, &[3.0]), int(7), text("w")].concat() } else { modern(&[2.0, 4.0]) };
        let at = at.index(file.len());
        let width = width.min(file.len() - at).min(8);
        file[at..at + width].copy_from_slice(&value.to_le_bytes()[..width]);
        let _ = read(&file);
    }
}
