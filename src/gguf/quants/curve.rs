//! IQ4_NL and IQ4_XS: quants of four bits that stand for the sixteen points of a curve rather than for equal steps.

use super::floats::half;
use super::isa::for_each_isa;
use super::k_symmetric::extreme;
use super::lanes::{Groups, LANES, Lane, ZERO, byte, each, float, nearest, side_by_side};
use super::simple::{SIZE, pack_nibbles, put_half};
use super::symmetric::{NOTHING, extremes};
use super::unpack::CURVE;
use super::weights::{self, Importance, sum_of_squares};

/// Numbers taken at once: sixteen blocks, or two super-blocks of eight.
const PASS: usize = LANES * SIZE;
/// Numbers in a super-block of IQ4_XS.
const SUPER: usize = 256;
/// Scales that are tried on each side of that which takes the largest number to the curve's end.
const TRIES: i32 = 7;

/// Halfway from each point of the curve to the next: from there on the next is nearer.
const TURNS: [f32; 15] = [-115.5, -93.5, -74.0, -57.0, -42.0, -28.5, -16.0, -4.5, 7.0, 19.0, 31.5, 45.5, 61.0, 79.0, 101.0];
/// How far it is from each point to the next.
const STEPS: [f32; 15] = [23.0, 21.0, 18.0, 16.0, 14.0, 13.0, 12.0, 11.0, 12.0, 12.0, 13.0, 15.0, 16.0, 20.0, 24.0];
const LEAST: f32 = -127.0;

for_each_isa! {
    pub(super) fn encode_iq4_nl(numbers: &[f32], out: &mut [u8]) {
        each_pass::<18>(numbers, out, LANES, None, nl);
    }

    pub(super) fn encode_iq4_nl_weighted(numbers: &[f32], importance: Importance<'_>, out: &mut [u8]) {
        each_pass::<18>(numbers, out, LANES, Some((importance, SIZE)), nl);
    }

    pub(super) fn encode_iq4_xs(numbers: &[f32], out: &mut [u8]) {
        each_pass::<136>(numbers, out, PASS / SUPER, None, xs);
    }

    pub(super) fn encode_iq4_xs_weighted(numbers: &[f32], importance: Importance<'_>, out: &mut [u8]) {
        each_pass::<136>(numbers, out, PASS / SUPER, Some((importance, SUPER)), xs);
    }
}

/// Finds the scales of sixteen blocks at a time and has them packed. With `importance` comes over how many numbers the spread is taken.
#[inline(always)]
fn each_pass<const BYTES: usize>(
    numbers: &[f32],
    out: &mut [u8],
    blocks: usize,
    importance: Option<(Importance<'_>, usize)>,
    pack: impl Fn(&Lane, &[f32], &mut [[u8; BYTES]]),
) {
    let mut groups: Groups<SIZE> = [ZERO; SIZE];
    let mut weights = groups;
    for (pass, (numbers, out)) in numbers.chunks(PASS).zip(out.as_chunks_mut::<BYTES>().0.chunks_mut(blocks)).enumerate() {
        side_by_side(numbers, &mut groups);
        if let Some((importance, size)) = importance {
            side_by_side(&importance.columns::<PASS>(pass * PASS), &mut weights);
            weights::by_importance(&groups, &spread(numbers, size), &mut weights);
        } else {
            weights::by_square(&groups, &mut weights);
        }
        pack(&search(&groups, &weights), numbers, out);
    }
}

/// Twice the mean square over each `size` numbers, for each block of 32.
#[inline(always)]
fn spread(numbers: &[f32], size: usize) -> Lane {
    let mut spread = ZERO;
    #[expect(clippy::cast_precision_loss, reason = "32 or 256")]
    let factor = 2.0 / size as f32;
    for (numbers, spread) in numbers.chunks(size).zip(spread.chunks_mut(size / SIZE)) {
        spread.fill(sum_of_squares(numbers) * factor);
    }
    spread
}

/// The point of the curve that is nearest; of NaN the last.
#[inline(always)]
fn point(number: f32) -> f32 {
    let mut point = LEAST;
    for (turn, step) in TURNS.iter().zip(STEPS) {
        // Not `number >= turn`: ggml lets NaN pass.
        point += if number < *turn { 0.0 } else { step };
    }
    point
}

/// The number of that point.
#[inline(always)]
fn index(number: f32) -> u8 {
    TURNS.iter().fold(0, |index, turn| index + u8::from(!matches!(number.partial_cmp(turn), Some(std::cmp::Ordering::Less))))
}

/// The best scale of each block.
#[inline(always)]
fn search(x: &Groups<SIZE>, weights: &Groups<SIZE>) -> Lane {
    let (extreme, magnitude) = extremes(x);
    let (mut scale, mut best) = (ZERO, ZERO);
    let mut inverse = ZERO;
    for k in 0..LANES {
        inverse[k] = 1.0 / (-extreme[k] / LEAST);
    }
    let (product, square) = sums(x, weights, &inverse);
    for k in 0..LANES {
        scale[k] = if square[k] > 0.0 { product[k] / square[k] } else { 0.0 };
        best[k] = scale[k] * product[k];
    }
    for step in -TRIES..=TRIES {
        for k in 0..LANES {
            inverse[k] = (float(step) + LEAST) / extreme[k];
        }
        let (product, square) = sums(x, weights, &inverse);
        for k in 0..LANES {
            let better = square[k] > 0.0 && product[k] * product[k] > best[k] * square[k];
            scale[k] = if better { product[k] / square[k] } else { scale[k] };
            best[k] = if better { scale[k] * product[k] } else { best[k] };
        }
    }
    for k in 0..LANES {
        scale[k] = if magnitude[k] < NOTHING { 0.0 } else { scale[k] };
    }
    scale
}

#[inline(always)]
fn sums(x: &Groups<SIZE>, weights: &Groups<SIZE>, inverse: &Lane) -> (Lane, Lane) {
    let (mut product, mut square) = (ZERO, ZERO);
    for i in 0..SIZE {
        for k in 0..LANES {
            let point = point(inverse[k] * x[i][k]);
            let weighted = weights[i][k] * point;
            product[k] += weighted * x[i][k];
            square[k] += weighted * point;
        }
    }
    (product, square)
}

#[inline(always)]
fn invert(scale: f32) -> f32 {
    if scale == 0.0 { 0.0 } else { 1.0 / scale }
}

#[inline(always)]
fn nl(scales: &Lane, numbers: &[f32], out: &mut [[u8; 18]]) {
    for ((scale, block), out) in scales.iter().zip(numbers.as_chunks::<SIZE>().0).zip(out) {
        let inverse = invert(*scale);
        put_half(*scale, out);
        pack_nibbles(&each(block, |number| index(inverse * number)), &mut out[2..]);
    }
}

#[inline(always)]
fn xs(scales: &Lane, numbers: &[f32], out: &mut [[u8; 136]]) {
    for ((scales, numbers), out) in scales.as_chunks::<{ SUPER / SIZE }>().0.iter().zip(numbers.as_chunks::<SUPER>().0).zip(out) {
        let scale = -extreme(scales) / 32.0;
        let inverse = invert(scale);
        let mut high = 0;
        out[..2].copy_from_slice(&half(scale).to_le_bytes());
        out[4..8].fill(0);
        for (j, block) in numbers.as_chunks::<SIZE>().0.iter().enumerate() {
            let quant = nearest(inverse * scales[j]).clamp(-32, 31);
            let inverse = invert(scale * float(quant));
            pack_nibbles(&each(block, |number| index(inverse * number)), &mut out[8 + 16 * j..][..16]);
            let quant = byte(quant + 32);
            out[4 + j / 2] |= (quant & 15) << (j % 2 * 4);
            high |= u16::from(quant >> 4) << (2 * j);
        }
        out[2..4].copy_from_slice(&high.to_le_bytes());
    }
}

const _: () = {
    // The tables above are the curve's.
    let mut k = 0;
    while k < 15 {
        let (low, high) = (CURVE[k] as f32, CURVE[k + 1] as f32);
        assert!(low + STEPS[k] == high && TURNS[k] == low + (high - low) / 2.0);
        k += 1;
    }
};
