//! How much the error of each number counts.

use super::lanes::{Groups, LANES, Lane, ZERO, float};

/// A row of an importance matrix: a weight for each column, the same for all rows.
#[derive(Debug, Clone, Copy)]
pub(super) struct Importance<'a>(pub(super) &'a [f32]);

impl Importance<'_> {
    /// The weights of `N` numbers from number `at`, counted over whole rows.
    #[inline(always)]
    pub(super) fn columns<const N: usize>(self, at: usize) -> [f32; N] {
        let mut columns = [0.0; N];
        let mut column = at % self.0.len();
        let mut done = 0;
        while done < N {
            let now = (self.0.len() - column).min(N - done);
            columns[done..done + now].copy_from_slice(&self.0[column..column + now]);
            done += now;
            column = 0;
        }
        columns
    }
}

/// The root of the mean square of the group, plus the number's magnitude.
#[inline(always)]
pub(super) fn by_magnitude<const N: usize>(x: &Groups<N>, weights: &mut Groups<N>) {
    let mut sum = ZERO;
    for x in x {
        for k in 0..LANES {
            sum[k] += x[k] * x[k];
        }
    }
    let mut mean = ZERO;
    for k in 0..LANES {
        mean[k] = (sum[k] / 32.0).sqrt();
    }
    for (x, w) in x.iter().zip(weights) {
        for k in 0..LANES {
            w[k] = mean[k] + x[k].abs();
        }
    }
}

/// The weights of the columns, which `weights` holds at first, times the root of what the numbers' squares and `spread` come to.
#[inline(always)]
pub(super) fn by_importance<const N: usize>(x: &Groups<N>, spread: &Lane, weights: &mut Groups<N>) {
    for (x, w) in x.iter().zip(weights) {
        for k in 0..LANES {
            w[k] *= (spread[k] + x[k] * x[k]).sqrt();
        }
    }
}

/// `factor` times the mean square of each block of `SIZE` numbers, for up to sixteen blocks.
#[inline(always)]
pub(super) fn spread_of_blocks<const SIZE: usize>(numbers: &[f32], factor: f32) -> Lane {
    let mut spread = ZERO;
    for (spread, block) in spread.iter_mut().zip(numbers.as_chunks::<SIZE>().0) {
        *spread = factor * sum_of_squares(block) / size(SIZE);
    }
    spread
}

#[inline(always)]
pub(super) fn sum_of_squares(numbers: &[f32]) -> f32 {
    numbers.iter().fold(0.0, |sum, x| sum + x * x)
}

#[expect(clippy::cast_possible_truncation, clippy::cast_possible_wrap, reason = "sizes of blocks are small")]
#[inline(always)]
fn size(count: usize) -> f32 {
    float(count as i32)
}

/// The number's magnitude.
#[inline(always)]
pub(super) fn by_size<const N: usize>(x: &Groups<N>, weights: &mut Groups<N>) {
    for (x, w) in x.iter().zip(weights) {
        for k in 0..LANES {
            w[k] = x[k].abs();
        }
    }
}

/// The number's square.
#[inline(always)]
pub(super) fn by_square<const N: usize>(x: &Groups<N>, weights: &mut Groups<N>) {
    for (x, w) in x.iter().zip(weights) {
        for k in 0..LANES {
            w[k] = x[k] * x[k];
        }
    }
}

/// The sum of each group's weights.
#[inline(always)]
pub(super) fn sums<const N: usize>(weights: &Groups<N>) -> Lane {
    let mut sums = ZERO;
    for w in weights {
        for k in 0..LANES {
            sums[k] += w[k];
        }
    }
    sums
}
