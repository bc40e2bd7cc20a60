//! The numbers that the golden files are about, as `tests/golden/quants.py` makes them, and what those files hold.

use sha2::{Digest, Sha256};

/// Number `i` of splitmix64 from `seed`.
pub(super) fn mix(seed: u64, i: usize) -> u64 {
    let mut z = (seed + i as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

/// About normal.
#[expect(clippy::cast_precision_loss, reason = "18 bits")]
pub(super) fn bell(seed: u64, i: usize) -> f32 {
    let z = mix(seed, i);
    let sum: u64 = (0..4).map(|k| (z >> (16 * k)) & 0xffff).sum();
    (sum.cast_signed() - 131_070) as f32 / 65_536.0
}

/// A power of two from `2^least` up.
pub(super) fn power(seed: u64, i: usize, least: i32, span: u64) -> f32 {
    2_f32.powi(least + i32::try_from(mix(seed, i) % span).expect("small"))
}

/// A row of importance: between zero and one, a quarter of it zero.
#[expect(clippy::cast_precision_loss, reason = "24 bits")]
pub(super) fn importance(row: usize, seed: u64) -> Vec<f32> {
    let value = |z: u64| if z.is_multiple_of(4) { 0.0 } else { (z >> 40) as f32 / 16_777_216.0 };
    (0..row).map(|i| value(mix(seed, i))).collect()
}

pub(super) fn digest(bytes: &[u8]) -> String {
    let hash = format!("{:x}", Sha256::digest(bytes));
    hash[..20].to_owned()
}

/// What `tests/golden/quants.py` wrote.
pub(super) fn golden() -> serde_json::Value {
    serde_json::from_str(include_str!("../../tests/golden/quants.json")).expect("JSON")
}
