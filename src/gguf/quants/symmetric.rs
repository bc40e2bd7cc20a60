//! The search for a scale alone: `quant * scale`, with quants on both sides of zero.

use super::lanes::{Groups, LANES, Lane, Mask, ZERO, byte, float, lanes, nearest};
use super::vector::{self, Machine, stored};

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
pub(super) fn descend<M: Machine>(m: M, most: i32, x: &Groups<16>) -> Descended {
    let (extreme, magnitude) = extremes(x);
    let inverse = m.div(m.splat(-float(most)), m.load(&extreme));
    let mut quants = [ZERO; 16];
    let mut fit = Fit { most, product: m.splat(0.0), square: m.splat(0.0) };
    for (x, quants) in x.iter().zip(&mut quants) {
        let quant = fit.clamp(m, vector::nearest_small(m, m.mul(inverse, m.load(x))));
        m.store(quant, quants);
        (fit.product, fit.square) = with(m, m.load(x), quant, fit.product, fit.square);
    }
    for _ in 0..5 {
        let mut moved = false;
        for (x, quants) in x.iter().zip(&mut quants) {
            moved |= fit.improve(m, m.load(x), quants);
        }
        if !moved {
            break;
        }
    }
    let (product, square) = (stored(m, fit.product), stored(m, fit.square));
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

/// The sums of numbers times quants and of squared quants, each weighted by the number's square, with one more number.
#[inline(always)]
fn with<M: Machine>(m: M, x: M::V, quant: M::V, product: M::V, square: M::V) -> (M::V, M::V) {
    let weight = m.mul(x, x);
    (m.add(product, m.mul(m.mul(weight, x), quant)), m.add(square, m.mul(m.mul(weight, quant), quant)))
}

/// Those sums over all numbers of each group.
struct Fit<V> {
    most: i32,
    product: V,
    square: V,
}

impl<V: Copy> Fit<V> {
    #[inline(always)]
    fn clamp<M: Machine<V = V>>(&self, m: M, quant: V) -> V {
        m.max(m.min(quant, m.splat(float(self.most) - 1.0)), m.splat(-float(self.most)))
    }

    /// The quant that would be best for the number if all others stay: `v` rounded.
    #[inline(always)]
    fn best<M: Machine<V = V>>(&self, m: M, v: V) -> V {
        if m.all(m.less(m.abs(v), m.splat(4.0e6))) {
            return self.clamp(m, vector::nearest_small(m, v));
        }
        let v = stored(m, v);
        m.load(&lanes(|k| float(nearest(v[k]).min(self.most - 1).max(-self.most))))
    }

    /// Moves one quant of each group where that makes its fit better; tells whether any was moved.
    #[inline(always)]
    fn improve<M: Machine<V = V>>(&mut self, m: M, x: V, quants: &mut Lane) -> bool {
        let zero = m.splat(0.0);
        let old = m.load(quants);
        let weight = m.mul(x, x);
        let others = m.sub(self.product, m.mul(m.mul(weight, x), old));
        let others_square = m.sub(self.square, m.mul(m.mul(weight, old), old));
        let positive = m.less(zero, others);
        let new = self.best(m, m.select(positive, m.div(m.mul(x, others_square), others), zero));
        let (product, square) = with(m, x, new, others, others_square);
        let gain = m.mul(m.mul(product, product), self.square);
        let price = m.mul(m.mul(self.product, self.product), square);
        let kept = m.select(m.less(price, gain), new, old);
        let kept = m.select(m.less(zero, square), kept, old);
        let kept = m.select(positive, kept, old);
        let moved = m.less(zero, m.abs(m.sub(kept, old)));
        self.product = m.select(moved, product, self.product);
        self.square = m.select(moved, square, self.square);
        m.store(kept, quants);
        m.any(moved)
    }
}
