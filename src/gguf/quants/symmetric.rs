//! The search for a scale alone: `quant * scale`, with quants on both sides of zero.

use super::lanes::{Groups, LANES, Lane, Mask, ZERO, byte, clamp, float, nearest, nearest_small};
use super::vector::{self, Machine};

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
pub(super) fn search<M: Machine, const N: usize>(m: M, most: i32, x: &Groups<N>, weights: &Groups<N>, products: &Groups<N>) -> Found {
    let (extreme, magnitude) = extremes(x);
    let zero = m.splat(0.0);
    let loaded = m.load(&extreme);
    let mut inverse = m.div(m.splat(-float(most)), loaded);
    let (product, square) = sums(m, most, x, weights, products, inverse);
    // A sum of squares that is below the least number is zero; one that is NaN goes on as such, as in ggml.
    let is_zero = m.less(square, m.splat(f32::from_bits(1)));
    let mut scale = m.select(is_zero, zero, m.div(product, square));
    let mut best = m.mul(scale, product);
    for step in (-9..=9).filter(|step| *step != 0) {
        let guess = m.div(m.splat(-(float(most) + 0.1 * float(step))), loaded);
        let (product, square) = sums(m, most, x, weights, products, guess);
        let gain = m.select(m.less(zero, square), m.mul(product, product), m.splat(f32::NEG_INFINITY));
        let better = m.less(m.mul(best, square), gain);
        scale = m.select(better, m.div(product, square), scale);
        best = m.select(better, m.mul(scale, product), best);
        inverse = m.select(better, guess, inverse);
    }
    let mut found = Found { scale: ZERO, inverse: ZERO, empty: magnitude.map(|magnitude| magnitude < NOTHING) };
    m.store(scale, &mut found.scale);
    m.store(inverse, &mut found.inverse);
    for k in 0..LANES {
        found.scale[k] = if found.empty[k] { 0.0 } else { found.scale[k] };
    }
    found
}

/// Weighted sums of numbers times quants, and of the quants squared.
#[inline(always)]
fn sums<M: Machine, const N: usize>(
    m: M,
    most: i32,
    x: &Groups<N>,
    weights: &Groups<N>,
    products: &Groups<N>,
    inverse: M::V,
) -> (M::V, M::V) {
    let (least, highest) = (m.splat(-float(most)), m.splat(float(most) - 1.0));
    let (mut product, mut square) = (m.splat(0.0), m.splat(0.0));
    for i in 0..N {
        // No number is larger than the one that `inverse` takes to about `most`: rounding is safe.
        let quant = m.max(m.min(vector::nearest_small(m, m.mul(inverse, m.load(&x[i]))), highest), least);
        product = m.add(product, m.mul(m.load(&products[i]), quant));
        square = m.add(square, m.mul(m.mul(m.load(&weights[i]), quant), quant));
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
