use proptest::prelude::*;

use super::super::TensorKind;
use super::super::golden::{bell, digest, golden, importance, mix, power};
use super::floats::{from_half, half};
use super::isa::Isa;
use super::{Error, can_encode, decode, encode, encode_on};

const COUNT: usize = 6 * 1024 + 256 * 3;
const ROW: usize = 768;

/// The numbers of one input of the golden file.
fn input(name: &str) -> Vec<f32> {
    let number = |i: usize| {
        let (x, block) = (bell(1, i), i / 32);
        match name {
            "bell" => x,
            "small" => x * 0.02,
            "heavy" => x * power(100_000, i, -12, 24),
            "positive" => x.abs() + 1.0,
            "negative" => -x.abs() - 0.5,
            "zero" => x * 0.0,
            "constant" => 0.37,
            "sparse" => {
                if mix(200_000, i).is_multiple_of(32) {
                    x
                } else {
                    0.0
                }
            }
            // In two steps, because a power of two that small is no constant of Rust's.
            "denormal" => x * (2_f32.powi(-100) * 2_f32.powi(-40)),
            "tiny" => x * 2_f32.powi(-49),
            "huge" => x * 2_f32.powi(100),
            "grid" => (x * 8.0).floor() / 8.0,
            "blocks" => x * power(300_000, block, -40, 50),
            "holes" => {
                if mix(400_000, block).is_multiple_of(3) {
                    0.0
                } else {
                    x
                }
            }
            "offset" => 1000.0 + x,
            "signs" => {
                if x < 0.0 {
                    -1.0
                } else {
                    1.0
                }
            }
            other => panic!("{other} is no input"),
        }
    };
    (0..COUNT).map(number).collect()
}

fn kind_of(name: &str) -> TensorKind {
    TensorKind::ALL.iter().copied().find(|kind| kind.name() == name).expect("a kind")
}

fn packed_size(kind: TensorKind, count: usize) -> usize {
    usize::try_from(count as u64 / kind.block_size() * kind.block_bytes()).expect("small")
}

fn pack(kind: TensorKind, numbers: &[f32], row: usize, weights: Option<&[f32]>) -> Vec<u8> {
    let mut out = vec![0xaa; packed_size(kind, numbers.len())];
    encode(kind, numbers, row, weights, &mut out).expect("encodes");
    out
}

fn unpack(kind: TensorKind, bytes: &[u8], count: usize) -> Vec<f32> {
    let mut out = vec![f32::NAN; count];
    decode(kind, bytes, &mut out).expect("decodes");
    out
}

#[test]
fn every_format_has_ggmls_bytes_and_numbers() {
    let golden = golden();
    let cases = golden["packed"].as_array().expect("cases");
    let weights = importance(ROW, 7);
    assert_eq!(cases.len(), 14 * 16 * 2);
    for case in cases {
        let text = |index: usize| case[index].as_str().expect("text");
        let kind = kind_of(text(0));
        let weights = case[2].as_bool().expect("flag").then_some(&weights[..]);
        let bytes = pack(kind, &input(text(1)), ROW, weights);
        assert_eq!(digest(&bytes), text(3), "packed: {case}");
        let numbers: Vec<u8> = unpack(kind, &bytes, COUNT).into_iter().flat_map(f32::to_le_bytes).collect();
        assert_eq!(digest(&numbers), text(4), "unpacked: {case}");
    }
}

#[test]
fn every_instruction_set_gives_the_same_bytes() {
    let weights = importance(ROW, 7);
    let kinds = || TensorKind::ALL.iter().copied().filter(|kind| can_encode(*kind));
    for (input, weights) in ["heavy", "holes", "grid"].map(input).iter().zip([None, Some(&weights[..]), None]) {
        for kind in kinds() {
            let bytes = pack(kind, input, ROW, weights);
            for isa in Isa::available().into_iter().flatten() {
                let mut out = vec![0x55; bytes.len()];
                encode_on(isa, kind, input, weights, &mut out).expect("encodes");
                assert!(out == bytes, "{kind} on {isa:?}");
            }
        }
    }
}

#[test]
fn rows_may_be_packed_apart() {
    let (numbers, weights) = (input("heavy"), importance(ROW, 7));
    for kind in TensorKind::ALL.iter().copied().filter(|kind| can_encode(*kind)) {
        for weights in [None, Some(&weights[..])] {
            let rows: Vec<u8> = numbers.chunks(ROW).flat_map(|row| pack(kind, row, ROW, weights)).collect();
            assert_eq!(rows, pack(kind, &numbers, ROW, weights), "{kind}");
        }
    }
}

#[test]
fn all_numbers_of_half_precision_come_back() {
    for bits in 0..=u16::MAX {
        let number = from_half(bits);
        if number.is_nan() {
            assert_eq!(half(number), bits & 0x8000 | 0x7e00);
        } else {
            assert_eq!(half(number), bits, "{number}");
        }
    }
    assert_eq!((half(65_519.0), half(65_520.0), half(-1e9), half(1e-9)), (0x7bff, 0x7c00, 0xfc00, 0));
    // Ties go to the even neighbour, among the least numbers too.
    assert_eq!((half(1.000_488_3), half(1.001_464_8), half(2_f32.powi(-25)), half(3.0 * 2_f32.powi(-25))), (0x3c00, 0x3c02, 0, 2));
}

#[test]
fn wrong_lengths_are_told_apart() {
    let mut out = [0; 36];
    let numbers = [0.0; 64];
    let q8 = TensorKind::Q8_0;
    assert_eq!(encode(q8, &numbers, 0, None, &mut out), Err(Error::RowLength { kind: q8, row_len: 0 }));
    assert_eq!(encode(q8, &numbers, 33, None, &mut out), Err(Error::RowLength { kind: q8, row_len: 33 }));
    assert_eq!(encode(q8, &numbers, 96, None, &mut out), Err(Error::NotWholeRows { count: 64, row_len: 96 }));
    assert_eq!(encode(q8, &numbers, 32, None, &mut out), Err(Error::Size { kind: q8, numbers: 64, bytes: 36 }));
    assert_eq!(encode(q8, &numbers, 32, Some(&[1.0]), &mut out), Err(Error::ImportanceLength { found: 1, row_len: 32 }));
    let no = TensorKind::IQ2_XS;
    assert_eq!(encode(no, &[], 256, None, &mut []), Err(Error::CannotEncode { kind: no }));
    assert_eq!(decode(no, &[0; 74], &mut [0.0; 256]), Err(Error::CannotDecode { kind: no }));
    assert_eq!(decode(q8, &[0; 33], &mut [0.0; 32]), Err(Error::Size { kind: q8, numbers: 32, bytes: 33 }));
    assert!(Error::CannotEncode { kind: no }.to_string().contains("Q4_K, Q5_K, Q6_K"));
    assert_eq!(encode(q8, &[], 32, None, &mut []), Ok(()));
}

fn any_kind() -> impl Strategy<Value = TensorKind> {
    let kinds: Vec<_> = TensorKind::ALL.iter().copied().filter(|kind| can_encode(*kind)).collect();
    proptest::sample::select(kinds)
}

/// Any bits, the special numbers among them more often than chance has it.
fn any_number() -> impl Strategy<Value = f32> {
    prop_oneof![
        any::<u32>().prop_map(f32::from_bits),
        -2.0..2.0_f32,
        proptest::sample::select(vec![0.0, -0.0, f32::INFINITY, f32::NEG_INFINITY, f32::NAN, f32::MAX, f32::MIN, f32::MIN_POSITIVE, 1e-42]),
    ]
}

proptest! {
    #[test]
    fn no_numbers_make_it_panic(
        kind in any_kind(),
        numbers in proptest::collection::vec(any_number(), 512),
        weights in proptest::collection::vec(any_number(), 256),
    ) {
        pack(kind, &numbers, 256, None);
        let bytes = pack(kind, &numbers, 256, Some(&weights));
        unpack(kind, &bytes, 512);
    }

    #[test]
    fn no_bytes_make_it_panic(kind in any_kind(), bytes in proptest::collection::vec(any::<u8>(), 292 * 2)) {
        let size = usize::try_from(kind.block_bytes()).expect("small") * 2;
        let count = usize::try_from(kind.block_size()).expect("small") * 2;
        unpack(kind, &bytes[..size], count);
    }

    #[test]
    fn what_comes_back_is_near(kind in any_kind(), seed in 0_u64..1_000_000) {
        let numbers: Vec<f32> = (0..512).map(|i| bell(seed, i)).collect();
        let back = unpack(kind, &pack(kind, &numbers, 256, None), 512);
        let error: f32 = numbers.iter().zip(&back).map(|(a, b)| (a - b).powi(2)).sum();
        let energy: f32 = numbers.iter().map(|a| a * a).sum();
        prop_assert!((error / energy).sqrt() < 0.4, "{kind}: {}", (error / energy).sqrt());
    }
}
