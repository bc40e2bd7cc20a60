//! The search for a scale and a minimum of a group: `quant * scale - least`.
//!
//! A straight line is fitted by weighted least squares for each of several guesses of the quants, and the best is kept. ggml has
//! two versions of it, which differ only in what they make of numbers that are out of range.

use super::lanes::{Groups, LANES, Lane, ZERO, byte, float, lanes, nearest};
use super::lines::{Sums, in_range, line, moments, range};
use super::vector::{Machine, nearest_small, stored};

/// How wide the search is.
#[derive(Debug, Clone, Copy)]
pub(super) struct Search {
    /// The largest quant.
    pub(super) most: i32,
    /// The first guess is so much beyond `most`, and each further one by `delta` more.
    pub(super) start: f32,
    pub(super) delta: f32,
    pub(super) steps: i32,
    /// Whether errors count as they are, or squared.
    pub(super) absolute: bool,
    /// Whether out-of-range guesses are capped before they are rounded, as ggml does where there is an importance matrix.
    pub(super) careful: bool,
}

/// The best line of each group.
pub(super) struct Found {
    pub(super) scale: Lane,
    /// What is subtracted; never negative.
    pub(super) least: Lane,
    /// Quants follow from these: `(number - origin) * inverse`.
    inverse: Lane,
    origin: Lane,
    /// Above zero where the group is all one number, so that its quants are zero.
    flat: Lane,
    /// Above zero where the first guess was the best.
    first: Lane,
}

impl Search {
    /// The best line of each group, and the sums of the groups' weights.
    #[inline(always)]
    pub(super) fn run<M: Machine, const N: usize>(&self, m: M, x: &Groups<N>, weights: &Groups<N>) -> (Found, Lane) {
        let (low, high) = range(m, x);
        let moments = moments(m, x, weights);
        let first_origin = m.select(m.less(m.splat(0.0), low), m.splat(0.0), low);
        let first_inverse = m.div(m.splat(float(self.most)), m.sub(high, first_origin));
        let mut quants = [ZERO; N];
        self.first_quants(m, x, first_inverse, first_origin, &mut quants);
        let (mut inverse, mut origin) = (first_inverse, first_origin);
        let (mut scale, mut least) = (m.div(m.splat(1.0), first_inverse), first_origin);
        let mut first = m.splat(1.0);
        let mut best = self.errors(m, x, weights, &quants, scale, least);
        for step in 0..=self.steps {
            let guess = m.splat(self.start + self.delta * float(step) + float(self.most));
            let (top, bottom) = (m.sub(high, least), m.sub(low, least));
            let new_inverse = m.div(guess, top);
            let sums = if in_range(m, m.mul(new_inverse, top), m.mul(new_inverse, bottom)) {
                self.sums(m, x, weights, new_inverse, least, &mut quants)
            } else {
                self.sums_out_of_range(m, x, weights, new_inverse, least, &mut quants)
            };
            let line = line(m, &moments, &sums);
            let errors = self.errors(m, x, weights, &quants, line.scale, line.least);
            // Without a line there is no error that is better.
            let errors = m.select(m.less(m.splat(0.0), line.determinant), errors, m.splat(f32::INFINITY));
            let better = m.less(errors, best);
            best = m.select(better, errors, best);
            inverse = m.select(better, new_inverse, inverse);
            origin = m.select(better, least, origin);
            scale = m.select(better, line.scale, scale);
            least = m.select(better, line.least, least);
            first = m.select(better, m.splat(0.0), first);
        }
        let flat = self.flat(m, high, first_origin);
        scale = m.select(flat, m.splat(0.0), scale);
        least = m.select(flat, first_origin, least);
        let stored = |v: M::V| stored(m, v);
        let flat = m.select(flat, m.splat(1.0), m.splat(0.0));
        let least = stored(least).map(|least| -least);
        let found = Found {
            scale: stored(scale),
            least,
            inverse: stored(inverse),
            origin: stored(origin),
            flat: stored(flat),
            first: stored(first),
        };
        (found, stored(moments.weight))
    }

    /// Where a group is all one number.
    #[inline(always)]
    fn flat<M: Machine>(&self, m: M, high: M::V, low: M::V) -> M::Mask {
        let (high, low) = (stored(m, high), stored(m, low));
        let is_flat = |k: usize| if self.careful { high[k] <= low[k] } else { high[k] == low[k] };
        m.less(m.splat(0.0), m.load(&lanes(|k| if is_flat(k) { 1.0 } else { 0.0 })))
    }

    #[inline(always)]
    fn first_quants<M: Machine, const N: usize>(&self, m: M, x: &Groups<N>, inverse: M::V, origin: M::V, quants: &mut Groups<N>) {
        let (inverse, origin) = (stored(m, inverse), stored(m, origin));
        for i in 0..N {
            for k in 0..LANES {
                quants[i][k] = float(nearest(inverse[k] * (x[i][k] - origin[k])).min(self.most).max(0));
            }
        }
    }

    /// The quants of a guess, and their sums.
    #[inline(always)]
    fn sums<M: Machine, const N: usize>(
        &self,
        m: M,
        x: &Groups<N>,
        weights: &Groups<N>,
        inverse: M::V,
        origin: M::V,
        quants: &mut Groups<N>,
    ) -> Sums<M::V> {
        let (zero, most) = (m.splat(0.0), m.splat(float(self.most)));
        let mut sums = Sums { quants: zero, squares: zero, products: zero };
        for i in 0..N {
            let x = m.load(&x[i]);
            let quant = m.max(m.min(nearest_small(m, m.mul(inverse, m.sub(x, origin))), most), zero);
            m.store(quant, &mut quants[i]);
            sums.add(m, x, m.load(&weights[i]), quant);
        }
        sums
    }

    #[cold]
    #[inline(never)]
    fn sums_out_of_range<M: Machine, const N: usize>(
        &self,
        m: M,
        x: &Groups<N>,
        weights: &Groups<N>,
        inverse: M::V,
        origin: M::V,
        quants: &mut Groups<N>,
    ) -> Sums<M::V> {
        let (inverse, origin) = (stored(m, inverse), stored(m, origin));
        let zero = m.splat(0.0);
        let mut sums = Sums { quants: zero, squares: zero, products: zero };
        for i in 0..N {
            quants[i] = lanes(|k| float(self.quant(inverse[k] * (x[i][k] - origin[k]))));
            sums.add(m, m.load(&x[i]), m.load(&weights[i]), m.load(&quants[i]));
        }
        sums
    }

    /// One quant of a later guess.
    #[inline(always)]
    fn quant(&self, v: f32) -> i32 {
        if !self.careful {
            return nearest(v).min(self.most).max(0);
        }
        let most = float(self.most);
        if v > 0.0 { nearest(if v < most { v } else { most }) } else { 0 }
    }

    #[inline(always)]
    fn errors<M: Machine, const N: usize>(
        &self,
        m: M,
        x: &Groups<N>,
        weights: &Groups<N>,
        quants: &Groups<N>,
        scale: M::V,
        least: M::V,
    ) -> M::V {
        let mut sum = m.splat(0.0);
        for i in 0..N {
            let miss = m.sub(m.add(m.mul(scale, m.load(&quants[i])), least), m.load(&x[i]));
            let miss = if self.absolute { m.abs(miss) } else { m.mul(miss, miss) };
            sum = m.add(sum, m.mul(m.load(&weights[i]), miss));
        }
        sum
    }

    /// As [`Search::quants_of`], where it is rarely needed: only where a scale is rounded to nothing.
    #[cold]
    #[inline(never)]
    pub(super) fn quants(&self, found: &Found, lane: usize, numbers: &[f32], out: &mut [u8]) {
        self.quants_of(found, lane, numbers, out);
    }

    /// The quants of the best guess of one group.
    #[inline(always)]
    pub(super) fn quants_of(&self, found: &Found, lane: usize, numbers: &[f32], out: &mut [u8]) {
        if found.flat[lane] > 0.0 {
            out.fill(0);
            return;
        }
        let (inverse, origin, first) = (found.inverse[lane], found.origin[lane], found.first[lane] > 0.0);
        for (out, number) in out.iter_mut().zip(numbers) {
            let v = inverse * (number - origin);
            *out = byte(if first { nearest(v).min(self.most).max(0) } else { self.quant(v) });
        }
    }
}
