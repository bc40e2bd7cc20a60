//! The formats whose scale follows from the largest number of a block of 32, without a search.

use super::floats::half;
use super::isa::for_each_isa;

/// Numbers in a block.
pub(super) const SIZE: usize = 32;

type Block = [f32; SIZE];

/// The integer part of `number` as x86's conversion gives it: what does not fit is the least integer.
#[expect(clippy::cast_possible_truncation, reason = "the range is checked")]
#[inline(always)]
fn truncate(number: f32) -> i32 {
    let fits = number.abs() < 2_147_483_648.0;
    if fits { number as i32 } else { i32::MIN }
}

/// To the nearest integer, ties away from zero.
#[inline(always)]
fn round(number: f32) -> i32 {
    // The largest number below one half: adding one half itself would round 0.49999997 up.
    const ALMOST_HALF: f32 = f32::from_bits(0x3eff_ffff);
    truncate(number + ALMOST_HALF.copysign(number))
}

/// The lowest byte.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "C's conversion to a byte")]
#[inline(always)]
fn byte(number: i32) -> u8 {
    number as u8
}

/// As ggml caps a quant: as signed byte against `most`, then as unsigned byte.
#[inline(always)]
fn capped(number: f32, most: i8) -> u8 {
    byte(truncate(number)).cast_signed().min(most).cast_unsigned()
}

#[inline(always)]
fn inverse(scale: f32) -> f32 {
    if scale == 0.0 { 0.0 } else { 1.0 / scale }
}

/// The number of largest magnitude, with its sign; the first of equals.
#[inline(always)]
fn extreme(block: &Block) -> f32 {
    let (least, most) = range(block, 0.0, 0.0);
    if most == -least {
        // Both signs reach it: the first decides. A zero of either sign is no number of any magnitude.
        return block.iter().copied().find(|v| v.abs() == most && *v != 0.0).unwrap_or(0.0);
    }
    if most > -least { most } else { least }
}

/// The smallest and the largest number, not above `least` and not below `most`; NaN is passed over.
#[inline(always)]
fn range(block: &Block, least: f32, most: f32) -> (f32, f32) {
    let mut lows = [least; 8];
    let mut highs = [most; 8];
    for part in block.as_chunks::<8>().0 {
        for k in 0..8 {
            lows[k] = if part[k] < lows[k] { part[k] } else { lows[k] };
            highs[k] = if part[k] > highs[k] { part[k] } else { highs[k] };
        }
    }
    let least = lows.into_iter().fold(least, |a, b| if b < a { b } else { a });
    (least, highs.into_iter().fold(most, |a, b| if b > a { b } else { a }))
}

/// The largest magnitude; NaN is passed over.
#[inline(always)]
fn largest(block: &Block) -> f32 {
    let mut highs = [0.0_f32; 8];
    for part in block.as_chunks::<8>().0 {
        for k in 0..8 {
            highs[k] = if part[k].abs() > highs[k] { part[k].abs() } else { highs[k] };
        }
    }
    highs.into_iter().fold(0.0, |a, b| if b > a { b } else { a })
}

#[inline(always)]
fn blocks<'a, const BYTES: usize>(numbers: &'a [f32], out: &'a mut [u8]) -> impl Iterator<Item = (&'a Block, &'a mut [u8; BYTES])> {
    numbers.as_chunks::<SIZE>().0.iter().zip(out.as_chunks_mut::<BYTES>().0)
}

/// Two quants of four bits a byte: the first half of a block in the low halves.
#[inline(always)]
pub(super) fn pack_nibbles(quants: &[u8; SIZE], out: &mut [u8]) {
    for (j, byte) in out.iter_mut().enumerate() {
        *byte = (quants[j] & 15) | (quants[j + SIZE / 2] << 4);
    }
}

/// The fifth bits of 32 quants.
#[inline(always)]
pub(super) fn fifth_bits(quants: &[u8; SIZE]) -> [u8; 4] {
    let bits = quants.iter().enumerate().fold(0, |bits, (j, quant)| bits | ((u32::from(*quant) >> 4) & 1) << j);
    bits.to_le_bytes()
}

#[inline(always)]
pub(super) fn put_half(number: f32, out: &mut [u8]) {
    out[..2].copy_from_slice(&half(number).to_le_bytes());
}

for_each_isa! {
    pub(super) fn encode_q8_0(numbers: &[f32], out: &mut [u8]) {
        for (block, out) in blocks::<34>(numbers, out) {
            let scale = largest(block) / 127.0;
            let inverse = inverse(scale);
            put_half(scale, out);
            for (out, number) in out[2..].iter_mut().zip(block) {
                *out = byte(round(number * inverse));
            }
        }
    }

    pub(super) fn encode_q4_0(numbers: &[f32], out: &mut [u8]) {
        for (block, out) in blocks::<18>(numbers, out) {
            let scale = extreme(block) / -8.0;
            let inverse = inverse(scale);
            put_half(scale, out);
            let quants = block.map(|number| capped(number * inverse + 8.5, 15));
            pack_nibbles(&quants, &mut out[2..]);
        }
    }

    pub(super) fn encode_q5_0(numbers: &[f32], out: &mut [u8]) {
        for (block, out) in blocks::<22>(numbers, out) {
            let scale = extreme(block) / -16.0;
            let inverse = inverse(scale);
            put_half(scale, out);
            let quants = block.map(|number| capped(number * inverse + 16.5, 31));
            out[2..6].copy_from_slice(&fifth_bits(&quants));
            pack_nibbles(&quants, &mut out[6..]);
        }
    }

    pub(super) fn encode_q4_1(numbers: &[f32], out: &mut [u8]) {
        for (block, out) in blocks::<20>(numbers, out) {
            let (least, most) = range(block, f32::MAX, -f32::MAX);
            let scale = (most - least) / 15.0;
            let inverse = inverse(scale);
            put_half(scale, out);
            put_half(least, &mut out[2..]);
            let quants = block.map(|number| capped((number - least) * inverse + 0.5, 15));
            pack_nibbles(&quants, &mut out[4..]);
        }
    }

    pub(super) fn encode_q5_1(numbers: &[f32], out: &mut [u8]) {
        for (block, out) in blocks::<24>(numbers, out) {
            let (least, most) = range(block, f32::MAX, -f32::MAX);
            let scale = (most - least) / 31.0;
            let inverse = inverse(scale);
            put_half(scale, out);
            put_half(least, &mut out[2..]);
            // Here ggml caps nothing.
            let quants = block.map(|number| byte(truncate((number - least) * inverse + 0.5)));
            out[4..8].copy_from_slice(&fifth_bits(&quants));
            pack_nibbles(&quants, &mut out[8..]);
        }
    }
}
