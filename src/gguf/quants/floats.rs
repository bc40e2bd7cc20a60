//! The formats of one number a block, and the half-precision numbers that all blocks begin with.

use super::isa::for_each_isa;

/// The nearest number of half precision, ties to even; beyond its range infinity, and one NaN for all.
#[inline(always)]
pub(super) fn half(number: f32) -> u16 {
    // The exponent of half precision's least normal number, and the distance of the two formats' exponents, as bits of an f32.
    const LEAST_NORMAL: u32 = 0x3880_0000;
    const REBIAS: u32 = 0x3800_0000;
    let bits = number.to_bits();
    let magnitude = bits & 0x7fff_ffff;
    let rounded = magnitude.wrapping_add(0xfff + ((magnitude >> 13) & 1)).wrapping_sub(REBIAS) >> 13;
    let normal = if magnitude >= 0x4780_0000 { 0x7c00 } else { rounded };
    // Next to 0.5 the neighbours of an f32 are as far apart as the least numbers of half precision: adding rounds.
    let small = (f32::from_bits(magnitude) + 0.5).to_bits().wrapping_sub(0.5_f32.to_bits());
    let finite = if magnitude < LEAST_NORMAL { small } else { normal };
    let result = if magnitude > 0x7f80_0000 { 0x7e00 } else { finite };
    low16((bits >> 16) & 0x8000 | result)
}

/// The number that half precision's `bits` mean.
#[inline(always)]
pub(super) fn from_half(bits: u16) -> f32 {
    let magnitude = u32::from(bits & 0x7fff);
    let sign = u32::from(bits & 0x8000) << 16;
    let normal = (magnitude << 13) + 0x3800_0000;
    let special = 0x7f80_0000 | (magnitude << 13) | if magnitude > 0x7c00 { 0x40_0000 } else { 0 };
    // Below the normal range a number is `magnitude` times the least one, which is exact in an f32.
    #[expect(clippy::cast_precision_loss, reason = "at most 15 bits")]
    let small = (magnitude as f32 * f32::from_bits(0x3380_0000)).to_bits();
    let finite = if magnitude < 0x400 { small } else { normal };
    f32::from_bits(sign | if magnitude >= 0x7c00 { special } else { finite })
}

#[inline(always)]
fn bf16(number: f32) -> u16 {
    let bits = number.to_bits();
    let rounded = bits.wrapping_add(0x7fff + ((bits >> 16) & 1)) >> 16;
    low16(if bits & 0x7fff_ffff > 0x7f80_0000 { (bits >> 16) | 64 } else { rounded })
}

#[expect(clippy::cast_possible_truncation, reason = "the low half is what is asked for")]
#[inline(always)]
fn low16(bits: u32) -> u16 {
    bits as u16
}

for_each_isa! {
    pub(super) fn encode_f32(numbers: &[f32], out: &mut [u8]) {
        for (bytes, number) in out.as_chunks_mut::<4>().0.iter_mut().zip(numbers) {
            *bytes = number.to_le_bytes();
        }
    }

    pub(super) fn encode_f16(numbers: &[f32], out: &mut [u8]) {
        for (bytes, number) in out.as_chunks_mut::<2>().0.iter_mut().zip(numbers) {
            *bytes = half(*number).to_le_bytes();
        }
    }

    pub(super) fn encode_bf16(numbers: &[f32], out: &mut [u8]) {
        for (bytes, number) in out.as_chunks_mut::<2>().0.iter_mut().zip(numbers) {
            *bytes = bf16(*number).to_le_bytes();
        }
    }

    pub(super) fn decode_f32(bytes: &[u8], out: &mut [f32]) {
        for (bytes, number) in bytes.as_chunks::<4>().0.iter().zip(out) {
            *number = f32::from_le_bytes(*bytes);
        }
    }

    pub(super) fn decode_f16(bytes: &[u8], out: &mut [f32]) {
        for (bytes, number) in bytes.as_chunks::<2>().0.iter().zip(out) {
            *number = from_half(u16::from_le_bytes(*bytes));
        }
    }

    pub(super) fn decode_bf16(bytes: &[u8], out: &mut [f32]) {
        for (bytes, number) in bytes.as_chunks::<2>().0.iter().zip(out) {
            *number = f32::from_bits(u32::from(u16::from_le_bytes(*bytes)) << 16);
        }
    }
}
