use proptest::prelude::*;

use super::writer::{Writer, string};
use super::*;

fn sample() -> Writer {
    Writer::default()
        .str("general.architecture", "gemma3")
        .u32("general.file_type", 15)
        .f32("rope", 0.5)
        .bool("flag", true)
        .raw("long", 10, &7_u64.to_le_bytes())
        .strings("tokens", &["a", "", "ünï"])
        .f32s("scores", &[-1.0, 2.5])
        .i32s("types", &[1, -6, 3])
        .tensor("embd", TensorKind::Q4_K, &[256, 3])
        .tensor("norm", TensorKind::F32, &[5])
}

fn refused(file: &[u8]) -> String {
    Header::parse(file).expect_err("must be refused").to_string()
}

#[test]
fn what_was_written_is_read() {
    for version in [2, 3] {
        let file = Writer { version, ..sample() }.finish();
        let header = Header::parse(&file).expect("sound");
        let meta = &header.metadata;
        assert_eq!((header.version, header.alignment, header.file_size_bytes), (version, 32, file.len() as u64));
        assert_eq!(meta.str("general.architecture"), Some("gemma3"));
        assert_eq!((meta.u32("long"), meta.u64("long"), meta.f32("rope"), meta.bool("flag")), (Some(7), Some(7), Some(0.5), Some(true)));
        let tokens: Vec<_> = meta.strings("tokens").expect("strings").iter().collect();
        assert_eq!(tokens, [b"a", &b""[..], "ünï".as_bytes()]);
        assert_eq!((meta.f32s("scores"), meta.i32s("types")), (Some(&[-1.0, 2.5][..]), Some(&[1, -6, 3][..])));
        assert_eq!((meta.u32("absent"), meta.u32("flag"), meta.u32s("types")), (None, None, None));
        assert_eq!(header.file_type(), Some("Q4_K_M"));
        assert_eq!(header.parameters(), 256 * 3 + 5);
        let norm = header.tensor("norm").expect("there");
        assert_eq!((norm.size_bytes, norm.offset), (20, header.data_offset + 448));
        assert_eq!(header.data_offset % 32, 0);
    }
}

#[test]
fn each_kind_has_a_code_of_its_own() {
    for kind in TensorKind::ALL {
        assert_eq!(TensorKind::from_code(kind.code()), Some(*kind));
        assert_eq!(kind.size_bytes(&[kind.block_size() * 2, 3]), Some(kind.block_bytes() * 6));
    }
    assert_eq!(TensorKind::Q4_K.size_bytes(&[100]), None);
    assert_eq!(TensorKind::F32.size_bytes(&[u64::MAX / 4, 8]), None);
}

#[test]
fn another_alignment_moves_the_data() {
    let header = Header::parse(
        &Writer { alignment: 128, ..Writer::default() }.u32("general.alignment", 128).tensor("t", TensorKind::F32, &[1]).finish(),
    );
    assert_eq!(header.expect("sound").data_offset % 128, 0);
    for wrong in [0, 24] {
        assert!(refused(&Writer::default().u32("general.alignment", wrong).finish()).contains("power of two"));
    }
    assert!(refused(&Writer::default().str("general.alignment", "32").finish()).contains("power of two"));
}

#[test]
fn other_files_are_told_apart() {
    assert!(matches!(Header::parse(b""), Err(Error::Truncated { .. })));
    assert!(matches!(Header::parse(b"PK\x03\x04 and so on"), Err(Error::NotGguf { .. })));
    let with_version = |version: u32| Writer { version, ..Writer::default() }.finish();
    assert!(matches!(Header::parse(&with_version(1)), Err(Error::Version { version: 1 })));
    assert!(matches!(Header::parse(&with_version(4)), Err(Error::Version { version: 4 })));
    assert!(matches!(Header::parse(&with_version(3_u32.swap_bytes())), Err(Error::BigEndian)));
}

#[test]
fn counts_that_lie_are_refused_before_anything_is_allocated() {
    let empty = Writer::default();
    for (tensors, pairs) in [(u64::MAX, 0), (0, u64::MAX), (1 << 19, 0), (0, 60_000), (1 << 40, 1 << 40)] {
        assert!(Header::parse(&empty.finish_claiming(tensors, pairs)).is_err());
    }
    let huge = u64::MAX.to_le_bytes();
    for code in 0..=12 {
        for count in [u64::MAX, 1 << 61, 1 << 40, 1000] {
            assert!(Header::parse(&Writer::default().array("a", code, count, &[0; 16]).finish()).is_err(), "type {code} count {count}");
        }
    }
    assert!(refused(&Writer::default().raw("s", 8, &huge).finish()).contains("more than"));
    assert!(refused(&Writer::default().raw("s", 8, &1000_u64.to_le_bytes()).finish()).contains("incomplete"));
}

#[test]
fn impossible_tensors_are_refused() {
    let one =
        |name: &[u8], code, dimensions: &[u64], offset| refused(&Writer::default().tensor_raw(name, code, dimensions, offset).finish());
    assert!(one(&[b'n'; 64], 0, &[1], 0).contains("64 bytes"));
    assert!(one(b"\xff", 0, &[1], 0).contains("UTF-8"));
    assert!(one(b"t", 0, &[1; 5], 0).contains("5 dimensions"));
    assert!(one(b"t", 0, &[1 << 32, 1 << 32], 0).contains("impossible"));
    assert!(one(b"t", 0, &[u64::MAX], 0).contains("impossible"));
    assert!(one(b"t", 0, &[0], 0).contains("impossible"));
    assert!(one(b"t", 5, &[1], 0).contains("type 5"));
    assert!(one(b"t", 12, &[255], 0).contains("Q4_K"));
    assert!(one(b"t", 0, &[1], 31).contains("multiple"));
    assert!(one(b"t", 0, &[1], u64::MAX - 31).contains("impossible"));
    assert!(one(b"t", 0, &[1], 32).contains("incomplete"));
}

#[test]
fn doubles_and_nested_arrays_are_refused() {
    assert!(refused(&Writer::default().u32("k", 1).u32("k", 1).finish()).contains("`k` appears twice"));
    let twice = Writer::default().tensor("t", TensorKind::F32, &[1]).tensor("t", TensorKind::F32, &[1]);
    assert!(refused(&twice.finish()).contains("`t` appears twice"));
    assert!(refused(&Writer::default().array("a", 9, 1, &[0; 64]).finish()).contains("arrays of arrays"));
    assert!(refused(&Writer::default().raw("a", 13, &[0; 8]).finish()).contains("13 is no type"));
}

#[test]
fn a_half_file_says_which_tensor_is_missing() {
    let file = sample().finish();
    let error = Header::parse(&file[..file.len() - 1]).expect_err("half");
    assert!(error.is_incomplete());
    assert_eq!(
        error.to_string(),
        format!("the file ends at byte {}, but tensor `norm` needs it to reach byte {}: it is incomplete", file.len() - 1, file.len())
    );
}

#[test]
fn every_cut_is_incomplete_and_nothing_else() {
    let file = sample().finish();
    for length in 0..file.len() {
        let error = Header::parse(&file[..length]).expect_err("cut");
        assert!(error.is_incomplete(), "{length}: {error}");
        assert!(error.offset() <= length as u64);
    }
}

#[test]
fn an_error_does_not_carry_control_characters_of_the_file() {
    let message = refused(&Writer::default().u32("\u{1b}[2J", 1).u32("\u{1b}[2J", 1).finish());
    assert!(!message.contains('\u{1b}'), "{message:?}");
}

/// A small generator with a fixed seed: the same million bytes each run.
fn noise(seed: u64) -> impl FnMut() -> u64 {
    let mut state = seed;
    move || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) ^ state
    }
}

/// Fuzzing without a fuzzer: sound files with interesting values written over random places.
#[test]
fn mutated_files_never_panic() {
    let original = sample().finish();
    let mut next = noise(7);
    for _ in 0..20_000 {
        let mut file = original.clone();
        for _ in 0..=next() % 4 {
            let at = usize::try_from(next()).unwrap() % file.len();
            let value = match next() % 6 {
                0 => u64::MAX,
                1 => 1 << 63,
                2 => next() % 16,
                3 => u64::from(u32::MAX),
                4 => next(),
                _ => 1 << (next() % 64),
            };
            let width = [1, 4, 8][usize::try_from(next() % 3).unwrap()].min(file.len() - at);
            file[at..at + width].copy_from_slice(&value.to_le_bytes()[..width]);
        }
        if let Ok(header) = Header::parse(&file) {
            assert!(header.tensors.iter().all(|t| t.offset + t.size_bytes <= file.len() as u64));
        }
    }
}

proptest! {
    #[test]
    fn any_bytes_never_panic(body in proptest::collection::vec(any::<u8>(), 0..300)) {
        let _ = Header::parse(&body);
        let _ = Header::parse(&[b"GGUF\x03\0\0\0", &body[..]].concat());
        let one_pair = [b"GGUF\x03\0\0\0", &0_u64.to_le_bytes()[..], &1_u64.to_le_bytes()[..], &string(b"k")[..], &body[..]].concat();
        let _ = Header::parse(&one_pair);
    }

    #[test]
    fn any_strings_come_back(strings in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..20), 0..20)) {
        let header = Header::parse(&Writer::default().strings("s", &strings).finish()).expect("sound");
        let read: Vec<Vec<u8>> = header.metadata.strings("s").expect("there").iter().map(<[u8]>::to_vec).collect();
        prop_assert_eq!(read, strings);
    }
}
