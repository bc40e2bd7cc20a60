//! From blocks to numbers, in ggml's order of operations.

use super::floats::from_half;
use super::{Error, TensorKind};

/// What a four-bit quant of the non-linear formats means.
pub(super) const CURVE: [i8; 16] = [-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113];

pub(super) fn decode(kind: TensorKind, bytes: &[u8], out: &mut [f32]) -> Result<(), Error> {
    use TensorKind as K;
    match kind {
        K::Q4_0 => each::<18, 32>(bytes, out, q4_0),
        K::Q4_1 => each::<20, 32>(bytes, out, q4_1),
        K::Q5_0 => each::<22, 32>(bytes, out, q5_0),
        K::Q5_1 => each::<24, 32>(bytes, out, q5_1),
        K::Q8_0 => each::<34, 32>(bytes, out, q8_0),
        K::Q2_K => each::<84, 256>(bytes, out, q2_k),
        K::Q3_K => each::<110, 256>(bytes, out, q3_k),
        K::Q4_K => each::<144, 256>(bytes, out, q4_k),
        K::Q5_K => each::<176, 256>(bytes, out, q5_k),
        K::Q6_K => each::<210, 256>(bytes, out, q6_k),
        K::IQ4_NL => each::<18, 32>(bytes, out, iq4_nl),
        K::IQ4_XS => each::<136, 256>(bytes, out, iq4_xs),
        _ => return Err(Error::CannotDecode { kind }),
    }
    Ok(())
}

#[inline(always)]
fn each<const BYTES: usize, const SIZE: usize>(bytes: &[u8], out: &mut [f32], unpack: impl Fn(&[u8; BYTES], &mut [f32; SIZE])) {
    for (block, out) in bytes.as_chunks::<BYTES>().0.iter().zip(out.as_chunks_mut::<SIZE>().0) {
        unpack(block, out);
    }
}

/// The number of half precision at `at`.
fn half_at(block: &[u8], at: usize) -> f32 {
    from_half(u16::from_le_bytes([block[at], block[at + 1]]))
}

/// Quant `j` of 32 that lie as nibbles: the first half in the low ones.
fn nibble(nibbles: &[u8], j: usize) -> u8 {
    if j < 16 { nibbles[j] & 15 } else { nibbles[j - 16] >> 4 }
}

/// Bit `j` of the 32 at `at`, as the fifth bit of a quant.
fn sixteen(block: &[u8], at: usize, j: usize) -> u8 {
    (block[at + j / 8] >> (j % 8) & 1) << 4
}

fn q4_0(block: &[u8; 18], out: &mut [f32; 32]) {
    let scale = half_at(block, 0);
    for (j, out) in out.iter_mut().enumerate() {
        *out = (f32::from(nibble(&block[2..], j)) - 8.0) * scale;
    }
}

fn q4_1(block: &[u8; 20], out: &mut [f32; 32]) {
    let (scale, least) = (half_at(block, 0), half_at(block, 2));
    for (j, out) in out.iter_mut().enumerate() {
        *out = f32::from(nibble(&block[4..], j)) * scale + least;
    }
}

fn q5_0(block: &[u8; 22], out: &mut [f32; 32]) {
    let scale = half_at(block, 0);
    for (j, out) in out.iter_mut().enumerate() {
        *out = (f32::from(nibble(&block[6..], j) | sixteen(block, 2, j)) - 16.0) * scale;
    }
}

fn q5_1(block: &[u8; 24], out: &mut [f32; 32]) {
    let (scale, least) = (half_at(block, 0), half_at(block, 2));
    for (j, out) in out.iter_mut().enumerate() {
        *out = f32::from(nibble(&block[8..], j) | sixteen(block, 4, j)) * scale + least;
    }
}

fn q8_0(block: &[u8; 34], out: &mut [f32; 32]) {
    let scale = half_at(block, 0);
    for (out, quant) in out.iter_mut().zip(&block[2..]) {
        *out = f32::from(quant.cast_signed()) * scale;
    }
}

/// Two bits a quant: of each 128 numbers, byte `l` of 32 holds those at `l`, `l + 32`, `l + 64` and `l + 96`.
fn pair_of_bits(bytes: &[u8], j: usize) -> u8 {
    bytes[j / 128 * 32 + j % 32] >> (j % 128 / 32 * 2) & 3
}

fn q2_k(block: &[u8; 84], out: &mut [f32; 256]) {
    let (scale, least) = (half_at(block, 80), half_at(block, 82));
    for (j, out) in out.iter_mut().enumerate() {
        let packed = block[j / 16];
        *out = scale * f32::from(packed & 15) * f32::from(pair_of_bits(&block[16..80], j)) - least * f32::from(packed >> 4);
    }
}

/// The six-bit scale of group `j` of sixteen, of which the low four bits and the high two lie apart.
fn q3_scale(packed: &[u8], j: usize) -> f32 {
    let low = packed[j % 8] >> (j / 8 * 4) & 15;
    let high = packed[8 + j % 4] >> (j / 4 * 2) & 3;
    f32::from(low | high << 4) - 32.0
}

fn q3_k(block: &[u8; 110], out: &mut [f32; 256]) {
    let scale = half_at(block, 108);
    for (j, out) in out.iter_mut().enumerate() {
        let high = block[j % 32] >> (j / 32) & 1;
        let quant = f32::from(pair_of_bits(&block[32..96], j) | high << 2) - 4.0;
        *out = scale * q3_scale(&block[96..108], j / 16) * quant;
    }
}

/// The six-bit scale and minimum of group `j` of eight.
pub(super) fn scale_and_least(packed: &[u8], j: usize) -> (u8, u8) {
    if j < 4 {
        return (packed[j] & 63, packed[j + 4] & 63);
    }
    (packed[j + 4] & 15 | packed[j - 4] >> 6 << 4, packed[j + 4] >> 4 | packed[j] >> 6 << 4)
}

/// Each 64 numbers lie in 32 bytes: the first half in the low nibbles.
fn nibble_of_64(bytes: &[u8], j: usize) -> u8 {
    bytes[j / 64 * 32 + j % 32] >> (j % 64 / 32 * 4) & 15
}

fn q4_k(block: &[u8; 144], out: &mut [f32; 256]) {
    affine(block, out, |j| nibble_of_64(&block[16..], j));
}

fn q5_k(block: &[u8; 176], out: &mut [f32; 256]) {
    affine(block, out, |j| nibble_of_64(&block[48..], j) | (block[16 + j % 32] >> (j / 32) & 1) << 4);
}

fn affine(block: &[u8], out: &mut [f32; 256], quant: impl Fn(usize) -> u8) {
    let (scale, least) = (half_at(block, 0), half_at(block, 2));
    for (group, out) in out.as_chunks_mut::<32>().0.iter_mut().enumerate() {
        let (scale_6, least_6) = scale_and_least(&block[4..16], group);
        let (scale, least) = (scale * f32::from(scale_6), least * f32::from(least_6));
        for (j, out) in out.iter_mut().enumerate() {
            *out = scale * f32::from(quant(group * 32 + j)) - least;
        }
    }
}

fn q6_k(block: &[u8; 210], out: &mut [f32; 256]) {
    let scale = half_at(block, 208);
    for (j, out) in out.iter_mut().enumerate() {
        let low = block[j / 128 * 64 + j % 64] >> (j % 128 / 64 * 4) & 15;
        let quant = f32::from(low | pair_of_bits(&block[128..192], j) << 4) - 32.0;
        *out = scale * f32::from(block[192 + j / 16].cast_signed()) * quant;
    }
}

fn iq4_nl(block: &[u8; 18], out: &mut [f32; 32]) {
    let scale = half_at(block, 0);
    for (j, out) in out.iter_mut().enumerate() {
        *out = scale * f32::from(CURVE[usize::from(nibble(&block[2..], j))]);
    }
}

fn iq4_xs(block: &[u8; 136], out: &mut [f32; 256]) {
    let scale = half_at(block, 0);
    let high = u16::from_le_bytes([block[2], block[3]]);
    for (group, out) in out.as_chunks_mut::<32>().0.iter_mut().enumerate() {
        let low = block[4 + group / 2] >> (group % 2 * 4) & 15;
        let [high, _] = (high >> (2 * group) & 3).to_le_bytes();
        let scale = scale * (f32::from(low | high << 4) - 32.0);
        for (j, out) in out.iter_mut().enumerate() {
            *out = scale * f32::from(CURVE[usize::from(nibble(&block[8 + 16 * group..], j))]);
        }
    }
}
