//! The search for a scale and a minimum of a group: `quant * scale - least`.
//!
//! A straight line is fitted by weighted least squares for each of several guesses of the quants, and the best is kept. ggml has
//! two versions of it, which differ only in what they make of numbers that are out of range.

use super::lanes::{Groups, LANES, Lane, Mask, ZERO, byte, clamp, float, nearest, nearest_small};

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
    /// Whether the group is all one number, so that its quants are zero.
    flat: Mask,
    /// Whether the first guess was the best.
    first: Mask,
}

/// Sums over a group.
struct Sums {
    quants: Lane,
    squares: Lane,
    products: Lane,
}

impl Search {
    /// The best line of each group, and the sums of the groups' weights.
    #[inline(always)]
    pub(super) fn run<const N: usize>(&self, x: &Groups<N>, weights: &Groups<N>) -> (Found, Lane) {
        let (low, high) = range(x);
        let (weight, sum) = moments(x, weights);
        let mut origin = ZERO;
        let mut inverse = ZERO;
        let mut scale = ZERO;
        let mut flat = [false; LANES];
        for k in 0..LANES {
            origin[k] = if low[k] > 0.0 { 0.0 } else { low[k] };
            flat[k] = if self.careful { high[k] <= origin[k] } else { high[k] == origin[k] };
            inverse[k] = float(self.most) / (high[k] - origin[k]);
            scale[k] = 1.0 / inverse[k];
        }
        let mut quants = [ZERO; N];
        self.first_quants(x, &inverse, &origin, &mut quants);
        let mut best = self.errors(x, weights, &quants, &scale, &origin);
        let mut found = Found { scale, least: origin, inverse, origin, flat, first: [true; LANES] };
        for step in 0..=self.steps {
            let guess = self.start + self.delta * float(step) + float(self.most);
            let mut inverse = ZERO;
            let mut small = true;
            for k in 0..LANES {
                let origin = found.least[k];
                inverse[k] = guess / (high[k] - origin);
                small &= in_range(inverse[k], high[k] - origin) & in_range(inverse[k], low[k] - origin);
            }
            let sums = if small {
                self.sums(x, weights, &inverse, &found.least, &mut quants)
            } else {
                self.sums_out_of_range(x, weights, &inverse, &found.least, &mut quants)
            };
            let (scale, least, sound) = line(&weight, &sum, &sums);
            let errors = self.errors(x, weights, &quants, &scale, &least);
            for k in 0..LANES {
                let better = sound[k] && errors[k] < best[k];
                best[k] = if better { errors[k] } else { best[k] };
                found.inverse[k] = if better { inverse[k] } else { found.inverse[k] };
                found.origin[k] = if better { found.least[k] } else { found.origin[k] };
                found.scale[k] = if better { scale[k] } else { found.scale[k] };
                found.least[k] = if better { least[k] } else { found.least[k] };
                found.first[k] &= !better;
            }
        }
        for k in 0..LANES {
            let least = if flat[k] { origin[k] } else { found.least[k] };
            found.least[k] = -least;
            found.scale[k] = if flat[k] { 0.0 } else { found.scale[k] };
        }
        (found, weight)
    }

    #[inline(always)]
    fn first_quants<const N: usize>(&self, x: &Groups<N>, inverse: &Lane, origin: &Lane, quants: &mut Groups<N>) {
        for i in 0..N {
            for k in 0..LANES {
                quants[i][k] = float(nearest(inverse[k] * (x[i][k] - origin[k])).min(self.most).max(0));
            }
        }
    }

    /// The quants of a guess, and their sums.
    #[inline(always)]
    fn sums<const N: usize>(&self, x: &Groups<N>, weights: &Groups<N>, inverse: &Lane, origin: &Lane, quants: &mut Groups<N>) -> Sums {
        let most = float(self.most);
        sums(x, weights, quants, |i, k| clamp(nearest_small(inverse[k] * (x[i][k] - origin[k])), 0.0, most))
    }

    #[cold]
    #[inline(never)]
    fn sums_out_of_range<const N: usize>(
        &self,
        x: &Groups<N>,
        weights: &Groups<N>,
        inverse: &Lane,
        origin: &Lane,
        quants: &mut Groups<N>,
    ) -> Sums {
        sums(x, weights, quants, |i, k| float(self.quant(inverse[k] * (x[i][k] - origin[k]))))
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
    fn errors<const N: usize>(&self, x: &Groups<N>, weights: &Groups<N>, quants: &Groups<N>, scale: &Lane, least: &Lane) -> Lane {
        let mut sum = ZERO;
        for i in 0..N {
            for k in 0..LANES {
                let miss = scale[k] * quants[i][k] + least[k] - x[i][k];
                let miss = if self.absolute { miss.abs() } else { miss * miss };
                sum[k] += weights[i][k] * miss;
            }
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
        if found.flat[lane] {
            out.fill(0);
            return;
        }
        let (inverse, origin, first) = (found.inverse[lane], found.origin[lane], found.first[lane]);
        for (out, number) in out.iter_mut().zip(numbers) {
            let v = inverse * (number - origin);
            *out = byte(if first { nearest(v).min(self.most).max(0) } else { self.quant(v) });
        }
    }
}

/// Whether the product is so small that rounding it is safe; false for NaN.
#[inline(always)]
fn in_range(a: f32, b: f32) -> bool {
    (a * b).abs() < 4.0e6
}

#[inline(always)]
fn range<const N: usize>(x: &Groups<N>) -> (Lane, Lane) {
    let (mut low, mut high) = (x[0], x[0]);
    for x in &x[1..] {
        for k in 0..LANES {
            low[k] = if x[k] < low[k] { x[k] } else { low[k] };
            high[k] = if x[k] > high[k] { x[k] } else { high[k] };
        }
    }
    (low, high)
}

/// The sums of the weights, and of the weighted numbers.
#[inline(always)]
fn moments<const N: usize>(x: &Groups<N>, weights: &Groups<N>) -> (Lane, Lane) {
    let mut weight = weights[0];
    let mut sum = ZERO;
    for k in 0..LANES {
        sum[k] = weight[k] * x[0][k];
    }
    for (x, w) in x.iter().zip(weights).skip(1) {
        for k in 0..LANES {
            weight[k] += w[k];
            sum[k] += w[k] * x[k];
        }
    }
    (weight, sum)
}

#[inline(always)]
fn sums<const N: usize>(x: &Groups<N>, weights: &Groups<N>, quants: &mut Groups<N>, quant: impl Fn(usize, usize) -> f32) -> Sums {
    let mut sums = Sums { quants: ZERO, squares: ZERO, products: ZERO };
    for i in 0..N {
        for k in 0..LANES {
            let quant = quant(i, k);
            quants[i][k] = quant;
            let weighted = weights[i][k] * quant;
            sums.quants[k] += weighted;
            sums.squares[k] += weighted * quant;
            sums.products[k] += weighted * x[i][k];
        }
    }
    sums
}

/// The line of least weighted squares through numbers over quants: its slope, its start (never above zero), and whether there is one.
#[inline(always)]
fn line(weight: &Lane, sum: &Lane, sums: &Sums) -> (Lane, Lane, Mask) {
    let (mut scale, mut least, mut sound) = (ZERO, ZERO, [false; LANES]);
    for k in 0..LANES {
        let determinant = weight[k] * sums.squares[k] - sums.quants[k] * sums.quants[k];
        let slope = (weight[k] * sums.products[k] - sum[k] * sums.quants[k]) / determinant;
        let start = (sums.squares[k] * sum[k] - sums.quants[k] * sums.products[k]) / determinant;
        let through_zero = sums.products[k] / sums.squares[k];
        sound[k] = determinant > 0.0;
        scale[k] = if start > 0.0 { through_zero } else { slope };
        least[k] = if start > 0.0 { 0.0 } else { start };
    }
    (scale, least, sound)
}
