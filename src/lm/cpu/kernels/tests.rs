//! Every format with every instruction set against candle's own unpacking, and the rest against plain arithmetic.

#![expect(clippy::float_cmp, reason = "these results are exact")]

use std::borrow::Cow;

use candle_core::Device;
use candle_core::quantized::{GgmlDType, QStorage, QTensor};
use proptest::prelude::*;

use super::*;

const FORMATS: [(TensorKind, GgmlDType, &[usize]); 8] = [
    (TensorKind::Q4_0, GgmlDType::Q4_0, &[0]),
    (TensorKind::Q4_1, GgmlDType::Q4_1, &[0, 2]),
    (TensorKind::Q5_0, GgmlDType::Q5_0, &[0]),
    (TensorKind::Q5_1, GgmlDType::Q5_1, &[0, 2]),
    (TensorKind::Q8_0, GgmlDType::Q8_0, &[0]),
    (TensorKind::Q4_K, GgmlDType::Q4K, &[0, 2]),
    (TensorKind::Q5_K, GgmlDType::Q5K, &[0, 2]),
    (TensorKind::Q6_K, GgmlDType::Q6K, &[208]),
];

/// A stream of numbers that look random.
struct Noise(u64);

impl Noise {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        self.0 >> 33
    }

    #[expect(clippy::cast_precision_loss, reason = "random")]
    fn float(&mut self) -> f32 {
        self.next() as f32 / (1_u64 << 30) as f32 - 1.0
    }

    fn floats(&mut self, count: usize) -> Vec<f32> {
        (0..count).map(|_| self.float()).collect()
    }

    /// Random blocks with scales (at the given places of each block) that are ordinary numbers.
    fn blocks(&mut self, kind: TensorKind, scales: &[usize], count: usize) -> Vec<u8> {
        let bytes = usize::try_from(kind.block_bytes()).unwrap();
        let mut all: Vec<u8> = (0..count * bytes).map(|_| self.next().to_le_bytes()[0]).collect();
        for block in all.chunks_exact_mut(bytes) {
            for &at in scales {
                block[at..at + 2].copy_from_slice(&half::f16::from_f32(self.float() * 0.02).to_le_bytes());
            }
        }
        all
    }
}

fn unpacked_by_candle(bytes: &[u8], dtype: GgmlDType, rows: usize, columns: usize) -> Vec<f32> {
    let storage = QStorage::from_data(Cow::Borrowed(bytes), &Device::Cpu, dtype).unwrap();
    let tensor = QTensor::new(storage, (rows, columns)).unwrap().dequantize(&Device::Cpu).unwrap();
    tensor.flatten_all().unwrap().to_vec1().unwrap()
}

fn packed(isa: Isa, values: &[f32], rows: usize) -> Activations {
    let mut all = Activations::new(rows, values.len() / rows);
    quantize(isa, values, &mut all.quants, &mut all.scales, &mut all.halves, &mut all.sums);
    all
}

/// What packed activations stand for.
fn unpacked(packed: &Activations) -> Vec<f32> {
    let groups = packed.quants.chunks_exact(GROUP).zip(&packed.scales);
    groups.flat_map(|(quants, scale)| quants.iter().map(move |&quant| f32::from(quant) * scale)).collect()
}

fn product(a: &[f32], b: &[f32]) -> f64 {
    a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum()
}

fn near(found: f32, expected: f64, size: f64) {
    assert!((f64::from(found) - expected).abs() <= 2e-6 * size + 1e-6, "{found} instead of {expected}");
}

#[test]
fn every_format_unpacks_as_candle_unpacks_it() {
    for isa in Isa::available() {
        for (kind, dtype, scales) in FORMATS {
            let columns = 512;
            let bytes = Noise(3).blocks(kind, scales, columns / usize::try_from(kind.block_size()).unwrap());
            let mut found = vec![0.0; columns];
            unpack_row_of(isa, kind, &bytes, &mut found);
            let expected = unpacked_by_candle(&bytes, dtype, 1, columns);
            for (found, expected) in found.iter().zip(&expected) {
                assert!((found - expected).abs() <= 1e-6 * expected.abs() + 1e-7, "{kind} {}: {found} instead of {expected}", isa.name());
            }
        }
    }
}

#[test]
fn rows_and_tiles_of_every_format_multiply_as_the_unpacked_weights_do() {
    let (rows, columns, tokens) = (23, 512, 19);
    for isa in Isa::available() {
        for (kind, dtype, scales) in FORMATS {
            let mut noise = Noise(5);
            let bytes = noise.blocks(kind, scales, rows * columns / usize::try_from(kind.block_size()).unwrap());
            let weights = unpacked_by_candle(&bytes, dtype, rows, columns);
            let input = packed(isa, &noise.floats(tokens * columns), tokens);
            let values = unpacked(&input);
            let row_bytes = bytes.len() / rows;
            let mut tiled = vec![f32::NAN; tokens * rows];
            for first in (0..rows).step_by(LANES) {
                let width = LANES.min(rows - first);
                let out = Stripe { at: tiled[first..].as_mut_ptr(), stride: rows, width };
                // SAFETY: `tiled` has `rows` places for every token, of which this stripe has its own.
                #[expect(unsafe_code, reason = "the entrance that takes pointers is tested")]
                unsafe {
                    multiply_tile(isa, kind, &bytes[first * row_bytes..], &input, &mut Tile::default(), out);
                }
            }
            for token in 0..tokens {
                let mut found = vec![0.0; rows];
                dot_rows(isa, kind, &bytes, &input, token, &mut found);
                let x = &values[token * columns..(token + 1) * columns];
                for row in 0..rows {
                    let w = &weights[row * columns..(row + 1) * columns];
                    let size = w.iter().zip(x).map(|(w, x)| f64::from((w * x).abs())).sum();
                    near(found[row], product(w, x), size);
                    near(tiled[token * rows + row], product(w, x), size);
                }
            }
        }
    }
}

#[test]
fn weights_and_activations_at_their_limits_do_not_overflow() {
    for isa in Isa::available() {
        let mut row = vec![0x00, 0x3c];
        row.extend([0x80; 32]); // −128, 32 times, with scale 1
        let input = packed(isa, &[-1.0; 32], 1);
        let mut found = [0.0];
        dot_rows(isa, TensorKind::Q8_0, &row, &input, 0, &mut found);
        assert!((found[0] - 128.0 * 32.0).abs() < 0.01, "{}: {}", isa.name(), found[0]);
    }
}

#[test]
fn a_row_of_zeros_packs_to_zeros() {
    for isa in Isa::available() {
        let input = packed(isa, &[0.0; 64], 1);
        assert!(unpacked(&input).iter().all(|x| *x == 0.0));
    }
}

proptest! {
    #[test]
    fn activations_are_packed_to_within_half_a_step(values in prop::collection::vec(-1e4_f32..1e4, 32)) {
        for isa in Isa::available() {
            let packed = packed(isa, &values, 1);
            let step = values.iter().fold(0_f32, |most, x| most.max(x.abs())) / 127.0;
            for (found, value) in unpacked(&packed).iter().zip(&values) {
                prop_assert!((found - value).abs() <= 0.5001 * step);
            }
            let sum: i32 = packed.quants.iter().map(|&quant| i32::from(quant)).sum();
            prop_assert_eq!(packed.halves[0][0] + packed.halves[0][1], -32 * sum);
        }
    }

    #[test]
    fn gates_and_exponentials_are_as_their_formulas(x in -30_f32..30.0, y in -3_f32..3.0) {
        for isa in Isa::available() {
            let wide = f64::from(x);
            let mut gate = [x; 3];
            silu_gate(isa, &mut gate, &[y; 3]);
            near(gate[1], wide / (1.0 + (-wide).exp()) * f64::from(y), wide.abs());
            let mut gate = [x; 3];
            gelu_gate(isa, &mut gate, &[y; 3]);
            let inner = (2.0 / std::f64::consts::PI).sqrt() * (wide + 0.044_715 * wide.powi(3));
            near(gate[2], 0.5 * wide * (1.0 + inner.tanh()) * f64::from(y), 3.0 * wide.abs());
            let mut scores = [x, 0.0, y];
            let (most, sum) = exponentials(isa, &mut scores, f32::NEG_INFINITY);
            prop_assert_eq!(most, x.max(0.0).max(y));
            near(sum, [x, 0.0, y].iter().map(|s| f64::from(s - most).exp()).sum(), 3.0);
            let mut capped = [x];
            soft_cap(isa, &mut capped, 5.0);
            near(capped[0], 5.0 * (wide / 5.0).tanh(), 5.0);
        }
    }

    #[test]
    fn halves_widen_and_narrow_as_the_half_crate_does(bits in any::<u16>(), x in -1e5_f32..1e5) {
        let number = half::f16::from_bits(bits);
        for isa in Isa::available() {
            if number.is_finite() {
                let mut wide = [0.0; 9];
                widen_all(isa, &[bits; 9], &mut wide);
                prop_assert_eq!(wide, [number.to_f32(); 9]);
            }
            let mut narrow = [0; 9];
            narrow_all(isa, &[x; 9], &mut narrow);
            let expected = half::f16::from_f32(x.clamp(-65504.0, 65504.0)).to_bits();
            prop_assert_eq!(narrow, [expected; 9]);
        }
    }

    #[test]
    fn keys_and_values_of_any_width_are_weighed_right(width in 1_usize..100, count in 1_usize..9, seed in any::<u64>()) {
        let mut noise = Noise(seed);
        let query = noise.floats(width);
        let cached: Vec<u16> = noise.floats(width * count).iter().map(|&x| half::f16::from_f32(x).to_bits()).collect();
        let plain: Vec<f32> = cached.iter().map(|&bits| half::f16::from_bits(bits).to_f32()).collect();
        for isa in Isa::available() {
            let mut found = vec![0.0; count];
            scores(isa, &query, &cached, 0.5, &mut found);
            for (found, key) in found.iter().zip(plain.chunks_exact(width)) {
                near(*found, 0.5 * product(&query, key), 100.0);
            }
            let mut out = vec![1.0; width];
            weighted(isa, &query[..1].repeat(count), &cached, &mut out);
            for (column, out) in out.iter().enumerate() {
                let sum: f64 = (0..count).map(|row| f64::from(plain[row * width + column])).sum();
                near(*out, 1.0 + f64::from(query[0]) * sum, 100.0);
            }
        }
    }
}

#[test]
fn plain_numbers_multiply_and_unpack() {
    let mut noise = Noise(11);
    let (w, x) = (noise.floats(77), noise.floats(77));
    let f32s: Vec<u8> = w.iter().flat_map(|w| w.to_le_bytes()).collect();
    let f16s: Vec<u8> = w.iter().flat_map(|&w| half::f16::from_f32(w).to_le_bytes()).collect();
    let bf16s: Vec<u8> = w.iter().flat_map(|&w| half::bf16::from_f32(w).to_le_bytes()).collect();
    for isa in Isa::available() {
        for (kind, bytes) in [(TensorKind::F32, &f32s), (TensorKind::F16, &f16s), (TensorKind::BF16, &bf16s)] {
            let mut unpacked = vec![0.0; 77];
            unpack_row_of(isa, kind, bytes, &mut unpacked);
            assert!(unpacked.iter().zip(&w).all(|(a, b)| (a - b).abs() < 0.01));
            near(dense_dot(isa, kind, bytes, &x), product(&unpacked, &x), 77.0);
        }
    }
}

#[test]
fn norms_and_rotations_are_as_their_formulas() {
    for isa in Isa::available() {
        let x = Noise(13).floats(50);
        let mut out = vec![0.0; 50];
        rms_norm(isa, &x, &[2.0; 50], 1e-6, &mut out);
        let root = (product(&x, &x) / 50.0 + 1e-6).sqrt();
        for (out, x) in out.iter().zip(&x) {
            near(*out, 2.0 * f64::from(*x) / root, 4.0);
        }
        let mut neighbours = [1.0, 2.0, 3.0, 4.0, 9.0];
        rotate(isa, &mut neighbours, &[[0.0, 1.0], [1.0, 0.0]], true);
        assert_eq!(neighbours, [-2.0, 1.0, 3.0, 4.0, 9.0]);
        let mut halves = [1.0, 2.0, 3.0, 4.0, 9.0];
        rotate(isa, &mut halves, &[[0.0, 1.0], [1.0, 0.0]], false);
        assert_eq!(halves, [-3.0, 2.0, 1.0, 4.0, 9.0]);
    }
}
