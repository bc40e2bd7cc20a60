//! Packing the scales of a super-block's groups, which are numbers themselves.

use super::lanes::{byte, float, nearest};
use super::symmetric::NOTHING;

/// Fits non-negative `x` by `scale * quant` with quants up to `most`, minding `weights`; returns the scale.
#[inline(always)]
pub(super) fn fit_positive(most: i32, x: &[f32], weights: &[f32], quants: &mut [u8]) -> f32 {
    let largest = x.iter().fold(0.0, |largest: f32, v| if largest > *v { largest } else { *v });
    if largest < NOTHING {
        quants.fill(0);
        return 0.0;
    }
    let inverse = best_inverse(most, largest, x, weights);
    let (mut product, mut square) = (0.0, 0.0);
    for ((x, w), quant) in x.iter().zip(weights).zip(quants.iter_mut()) {
        let q = nearest(inverse * x).min(most);
        *quant = byte(q);
        product += w * x * float(q);
        square += w * float(q) * float(q);
    }
    for _ in 0..5 {
        if !improve(most, x, weights, quants, &mut product, &mut square) {
            break;
        }
    }
    if square > 0.0 { product / square } else { 0.0 }
}

/// The inverse scale, of nine, whose quants miss the numbers least.
#[inline(always)]
fn best_inverse(most: i32, largest: f32, x: &[f32], weights: &[f32]) -> f32 {
    let mut best_inverse = float(most) / largest;
    let misses = |inverse: f32, quant: &dyn Fn(f32) -> f32| {
        let scale = 1.0 / inverse;
        x.iter().zip(weights).fold(0.0, |sum, (x, w)| {
            let miss = x - scale * quant(inverse * x);
            sum + w * miss * miss
        })
    };
    let mut best = misses(best_inverse, &|v| f32::from(byte(nearest(v))));
    for step in (-4..=4).filter(|step| *step != 0) {
        let inverse = (0.1 * float(step) + float(most)) / largest;
        let error = misses(inverse, &|v| float(nearest(v).min(most)));
        if error < best {
            best = error;
            best_inverse = inverse;
        }
    }
    best_inverse
}

/// Moves single quants where that makes the fit better; tells whether one was moved.
#[inline(always)]
fn improve(most: i32, x: &[f32], weights: &[f32], quants: &mut [u8], product: &mut f32, square: &mut f32) -> bool {
    let mut moved = false;
    for ((x, w), quant) in x.iter().zip(weights).zip(quants) {
        let old = f32::from(*quant);
        let mut others = *product - w * x * old;
        let mut others_squared = *square - w * old * old;
        if others > 0.0 && others_squared > 0.0 {
            let new = nearest(x * others_squared / others).min(most);
            if new != i32::from(*quant) {
                others += w * x * float(new);
                others_squared += w * float(new) * float(new);
                if others * others * *square > *product * *product * others_squared {
                    (*quant, *product, *square) = (byte(new), others, others_squared);
                    moved = true;
                }
            }
        }
    }
    moved
}

/// Eight scales and eight minima of six bits each, in twelve bytes: the last four of each have their high bits with the first four.
#[inline(always)]
pub(super) fn pack_six_bits(scales: &[u8; 8], leasts: &[u8; 8], out: &mut [u8]) {
    for j in 0..4 {
        out[j] = scales[j] | scales[j + 4] >> 4 << 6;
        out[j + 4] = leasts[j] | leasts[j + 4] >> 4 << 6;
        out[j + 8] = scales[j + 4] & 15 | (leasts[j + 4] & 15) << 4;
    }
}

/// Fits `x` of either sign by `scale * quant`, minding `weights`, with quants from `-most` up, which are stored from zero up;
/// returns the scale.
#[inline(always)]
pub(super) fn fit_signed(most: i32, x: &[f32], weights: &[f32], quants: &mut [u8]) -> f32 {
    let extreme = x.iter().fold(0.0, |extreme: f32, v| if v.abs() > extreme.abs() { *v } else { extreme });
    if extreme.abs() < NOTHING {
        quants.fill(0);
        return 0.0;
    }
    let quant = |inverse: f32, v: f32| nearest(inverse * v).min(most - 1).max(-most);
    let sums = |inverse: f32| {
        x.iter().zip(weights).fold((0.0, 0.0), |(product, square), (x, w)| {
            let quant = float(quant(inverse, *x));
            (product + w * x * quant, square + w * quant * quant)
        })
    };
    let mut inverse = -float(most) / extreme;
    let (product, square) = sums(inverse);
    let mut scale = if square == 0.0 { 0.0 } else { product / square };
    let mut best = scale * product;
    for step in (-9..=9).filter(|step| *step != 0) {
        let guess = -(float(most) + 0.1 * float(step)) / extreme;
        let (product, square) = sums(guess);
        if square > 0.0 && product * product > best * square {
            scale = product / square;
            best = scale * product;
            inverse = guess;
        }
    }
    for (stored, x) in quants.iter_mut().zip(x) {
        *stored = byte(quant(inverse, *x) + most);
    }
    scale
}
