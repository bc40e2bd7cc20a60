//! The formats whose scale follows from the largest number of a block of 32, without a search.

use super::floats::half;
use super::isa::for_each_isa;
use super::lanes::{MAGIC, each, nearest_small};

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

/// The integer part of a number between zero and four million.
#[inline(always)]
fn floor_small(number: f32) -> f32 {
    let near = nearest_small(number);
    if near > number { near - 1.0 } else { near }
}

/// The lowest byte of an integer of less than four million.
#[inline(always)]
fn byte_small(number: f32) -> u8 {
    byte((number + MAGIC).to_bits().cast_signed())
}

/// How the numbers of a block are divided by its scale.
#[derive(Clone, Copy)]
struct Scale {
    inverse: f32,
    /// Whether the quotients are sure to be as small as they should be. They are not where the scale is next to nothing or infinite.
    is_plain: bool,
}

impl Scale {
    #[inline(always)]
    fn new(scale: f32) -> Self {
        let inverse = inverse(scale);
        Self { inverse, is_plain: scale.is_finite() && inverse.is_finite() }
    }

    /// The quants, of which `quotient` gives what is above them and below the next.
    #[inline(always)]
    fn quants(self, block: &Block, most: i8, quotient: impl Fn(f32, f32) -> f32) -> [u8; SIZE] {
        let inverse = self.inverse;
        if !self.is_plain {
            return each(block, |number| capped(quotient(number, inverse), most));
        }
        let most = f32::from(most);
        each(block, |number| {
            let quant = floor_small(quotient(number, inverse));
            byte_small(if quant < most { quant } else { most })
        })
    }

    /// The nearest quants, ties away from zero.
    #[inline(always)]
    fn nearest(self, block: &Block) -> [u8; SIZE] {
        // The largest number below one half: adding one half itself would round 0.49999997 up.
        const ALMOST_HALF: f32 = f32::from_bits(0x3eff_ffff);
        let inverse = self.inverse;
        if !self.is_plain {
            return each(block, |number| byte(truncate(number * inverse + ALMOST_HALF.copysign(number * inverse))));
        }
        each(block, |number| {
            let quotient = number * inverse;
            byte_small(floor_small(quotient.abs() + ALMOST_HALF).copysign(quotient))
        })
    }
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
    // The bits of eight bytes are multiplied to where they form one byte.
    const GATHER: u64 = 0x0102_0408_1020_4080;
    let mut bits = [0; 4];
    for (byte, quants) in bits.iter_mut().zip(quants.as_chunks::<8>().0) {
        let fifths = (u64::from_le_bytes(*quants) >> 4) & 0x0101_0101_0101_0101;
        *byte = fifths.wrapping_mul(GATHER).to_le_bytes()[7];
    }
    bits
}

#[inline(always)]
pub(super) fn put_half(number: f32, out: &mut [u8]) {
    out[..2].copy_from_slice(&half(number).to_le_bytes());
}

for_each_isa! {
    pub(super) fn encode_q8_0(numbers: &[f32], out: &mut [u8]) {
        for (block, out) in blocks::<34>(numbers, out) {
            let scale = largest(block) / 127.0;
            put_half(scale, out);
            out[2..].copy_from_slice(&Scale::new(scale).nearest(block));
        }
    }

    pub(super) fn encode_q4_0(numbers: &[f32], out: &mut [u8]) {
        for (block, out) in blocks::<18>(numbers, out) {
            let scale = extreme(block) / -8.0;
            put_half(scale, out);
            let quants = Scale::new(scale).quants(block, 15, |number, inverse| number * inverse + 8.5);
            pack_nibbles(&quants, &mut out[2..]);
        }
    }

    pub(super) fn encode_q5_0(numbers: &[f32], out: &mut [u8]) {
        for (block, out) in blocks::<22>(numbers, out) {
            let scale = extreme(block) / -16.0;
            put_half(scale, out);
            let quants = Scale::new(scale).quants(block, 31, |number, inverse| number * inverse + 16.5);
            out[2..6].copy_from_slice(&fifth_bits(&quants));
            pack_nibbles(&quants, &mut out[6..]);
        }
    }

    pub(super) fn encode_q4_1(numbers: &[f32], out: &mut [u8]) {
        for (block, out) in blocks::<20>(numbers, out) {
            let (least, most) = range(block, f32::MAX, -f32::MAX);
            let scale = (most - least) / 15.0;
            put_half(scale, out);
            put_half(least, &mut out[2..]);
            let quants = Scale::new(scale).quants(block, 15, |number, inverse| (number - least) * inverse + 0.5);
            pack_nibbles(&quants, &mut out[4..]);
        }
    }

    pub(super) fn encode_q5_1(numbers: &[f32], out: &mut [u8]) {
        for (block, out) in blocks::<24>(numbers, out) {
            let (least, most) = range(block, f32::MAX, -f32::MAX);
            let scale = (most - least) / 31.0;
            put_half(scale, out);
            put_half(least, &mut out[2..]);
            // Here ggml caps nothing, and has no need to.
            let quants = Scale::new(scale).quants(block, i8::MAX, |number, inverse| (number - least) * inverse + 0.5);
            out[4..8].copy_from_slice(&fifth_bits(&quants));
            pack_nibbles(&quants, &mut out[8..]);
        }
    }
}
