//! The search for a scale alone: `quant * scale`, with quants on both sides of zero.

use super::lanes::{Groups, LANES, Lane, Mask, ZERO, byte, clamp, float, nearest, nearest_small};

/// A group whose numbers are all below this is nothing.
pub(super) const NOTHING: f32 = 1e-15;

/// The best scale of each group, and what its quants follow from.
pub(super) struct Found {
    pub(super) scale: Lane,
    inverse: Lane,
    empty: Mask,
}

/// The number of largest magnitude of each group, the first of equals, and that magnitude.
#[inline(always)]
pub(super) fn extremes<const N: usize>(x: &Groups<N>) -> (Lane, Lane) {
    let (mut extreme, mut magnitude) = (ZERO, ZERO);
    for x in x {
        for k in 0..LANES {
            let larger = x[k].abs() > magnitude[k];
            extreme[k] = if larger { x[k] } else { extreme[k] };
            magnitude[k] = if larger { x[k].abs() } else { magnitude[k] };
        }
    }
    (extreme, magnitude)
}

/// Tries scales around that which takes the largest number to `-most`. `products` are the weights times the numbers.
#[inline(always)]
pub(super) fn search<const N: usize>(most: i32, x: &Groups<N>, weights: &Groups<N>, products: &Groups<N>) -> Found {
    let (extreme, magnitude) = extremes(x);
    let (mut inverse, mut empty) = (ZERO, [false; LANES]);
    for k in 0..LANES {
        empty[k] = magnitude[k] < NOTHING;
        inverse[k] = -float(most) / extreme[k];
    }
    let (product, square) = sums(most, x, weights, products, &inverse);
    let (mut scale, mut best) = (ZERO, ZERO);
    for k in 0..LANES {
        scale[k] = if square[k] == 0.0 { 0.0 } else { product[k] / square[k] };
        best[k] = scale[k] * product[k];
    }
    let mut found = Found { scale, inverse, empty };
    for step in (-9..=9).filter(|step| *step != 0) {
        let guess = -(float(most) + 0.1 * float(step));
        for k in 0..LANES {
            inverse[k] = guess / extreme[k];
        }
        let (product, square) = sums(most, x, weights, products, &inverse);
        for k in 0..LANES {
            let better = (square[k] > 0.0) && (product[k] * product[k] > best[k] * square[k]);
            let scale = product[k] / square[k];
            found.scale[k] = if better { scale } else { found.scale[k] };
            found.inverse[k] = if better { inverse[k] } else { found.inverse[k] };
            best[k] = if better { scale * product[k] } else { best[k] };
        }
    }
    for k in 0..LANES {
        found.scale[k] = if empty[k] { 0.0 } else { found.scale[k] };
    }
    found
}

/// Weighted sums of numbers times quants, and of the quants squared.
#[inline(always)]
fn sums<const N: usize>(most: i32, x: &Groups<N>, weights: &Groups<N>, products: &Groups<N>, inverse: &Lane) -> (Lane, Lane) {
    let (least, highest) = (-float(most), float(most) - 1.0);
    let (mut product, mut square) = (ZERO, ZERO);
    for i in 0..N {
        for k in 0..LANES {
            // No number is larger than the one that `inverse` takes to about `most`: rounding is safe.
            let quant = clamp(nearest_small(inverse[k] * x[i][k]), least, highest);
            product[k] += products[i][k] * quant;
            square[k] += weights[i][k] * quant * quant;
        }
    }
    (product, square)
}

impl Found {
    /// The quants of one group, from zero up; all zero where the group is nothing.
    #[inline(always)]
    pub(super) fn quants(&self, most: i32, lane: usize, numbers: &[f32], out: &mut [u8]) {
        for (out, number) in out.iter_mut().zip(numbers) {
            let quant = nearest(self.inverse[lane] * number).min(most - 1).max(-most) + most;
            *out = if self.empty[lane] { 0 } else { byte(quant) };
        }
    }
}

/// What [`descend`] finds.
pub(super) struct Descended {
    pub(super) scale: Lane,
    /// From zero up; all zero where the group is nothing.
    pub(super) quants: Vec16,
}

/// Quants of sixteen groups of sixteen.
type Vec16 = [[u8; LANES]; 16];

/// Starts from the scale that takes the largest number to `-most` and moves single quants while that makes the fit better.
#[inline(always)]
pub(super) fn descend(most: i32, x: &Groups<16>) -> Descended {
    let (extreme, magnitude) = extremes(x);
    let (mut product, mut square, mut quants) = (ZERO, ZERO, [ZERO; 16]);
    for i in 0..16 {
        for k in 0..LANES {
            let quant = clamp(nearest_small(-float(most) / extreme[k] * x[i][k]), -float(most), float(most) - 1.0);
            let weight = x[i][k] * x[i][k];
            quants[i][k] = quant;
            product[k] += weight * x[i][k] * quant;
            square[k] += weight * quant * quant;
        }
    }
    for _ in 0..5 {
        let mut moved = false;
        for (x, quants) in x.iter().zip(&mut quants) {
            moved |= improve(most, x, quants, &mut product, &mut square);
        }
        if !moved {
            break;
        }
    }
    let mut found = Descended { scale: ZERO, quants: [[0; LANES]; 16] };
    for k in 0..LANES {
        let empty = magnitude[k] < NOTHING;
        found.scale[k] = if empty || square[k] <= 0.0 { 0.0 } else { product[k] / square[k] };
        for i in 0..16 {
            #[expect(clippy::cast_possible_truncation, reason = "a quant")]
            let quant = quants[i][k] as i32;
            found.quants[i][k] = if empty { 0 } else { byte(quant + most) };
        }
    }
    found
}

/// Moves one quant of each group where that makes its fit better; tells whether any was moved.
#[inline(always)]
fn improve(most: i32, x: &Lane, quants: &mut Lane, product: &mut Lane, square: &mut Lane) -> bool {
    let mut moved = [0; LANES];
    for k in 0..LANES {
        let weight = x[k] * x[k];
        let others = product[k] - weight * x[k] * quants[k];
        let others_squared = square[k] - weight * quants[k] * quants[k];
        let new = float(nearest(x[k] * others_squared / others).min(most - 1).max(-most));
        let new_product = others + weight * x[k] * new;
        let new_square = others_squared + weight * new * new;
        let gains = new_product * new_product * square[k] > product[k] * product[k] * new_square;
        let better = others > 0.0 && new != quants[k] && new_square > 0.0 && gains;
        quants[k] = if better { new } else { quants[k] };
        product[k] = if better { new_product } else { product[k] };
        square[k] = if better { new_square } else { square[k] };
        moved[k] = i32::from(better);
    }
    moved.iter().any(|moved| *moved != 0)
}
