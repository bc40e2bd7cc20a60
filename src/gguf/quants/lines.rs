//! Straight lines through numbers over quants, by weighted least squares, for sixteen groups at once.

use super::lanes::Groups;
use super::vector::Machine;

/// Sums over each group of weights times quants, their squares, and quants times numbers.
pub(super) struct Sums<V> {
    pub(super) quants: V,
    pub(super) squares: V,
    pub(super) products: V,
}

/// The weights of a group, summed alone and times its numbers.
pub(super) struct Moments<V> {
    pub(super) weight: V,
    pub(super) sum: V,
}

/// A line through each group, and what must be above zero for there to be one.
pub(super) struct Line<V> {
    pub(super) scale: V,
    pub(super) least: V,
    pub(super) determinant: V,
}

impl<V: Copy> Sums<V> {
    #[inline(always)]
    pub(super) fn add<M: Machine<V = V>>(&mut self, m: M, x: V, weight: V, quant: V) {
        let weighted = m.mul(weight, quant);
        self.quants = m.add(self.quants, weighted);
        self.squares = m.add(self.squares, m.mul(weighted, quant));
        self.products = m.add(self.products, m.mul(weighted, x));
    }
}

/// Whether the numbers are so small that rounding them is safe; false for NaN.
#[inline(always)]
pub(super) fn in_range<M: Machine>(m: M, a: M::V, b: M::V) -> bool {
    let bound = m.splat(4.0e6);
    m.all(m.less(m.abs(a), bound)) && m.all(m.less(m.abs(b), bound))
}

#[inline(always)]
pub(super) fn range<M: Machine, const N: usize>(m: M, x: &Groups<N>) -> (M::V, M::V) {
    let (mut low, mut high) = (m.load(&x[0]), m.load(&x[0]));
    for x in &x[1..] {
        let x = m.load(x);
        low = m.min(x, low);
        high = m.max(x, high);
    }
    (low, high)
}

#[inline(always)]
pub(super) fn moments<M: Machine, const N: usize>(m: M, x: &Groups<N>, weights: &Groups<N>) -> Moments<M::V> {
    let mut weight = m.load(&weights[0]);
    let mut sum = m.mul(weight, m.load(&x[0]));
    for (x, w) in x.iter().zip(weights).skip(1) {
        let w = m.load(w);
        weight = m.add(weight, w);
        sum = m.add(sum, m.mul(w, m.load(x)));
    }
    Moments { weight, sum }
}

/// The line of least weighted squares through numbers over quants; it never starts above zero.
#[inline(always)]
pub(super) fn line<M: Machine>(m: M, moments: &Moments<M::V>, sums: &Sums<M::V>) -> Line<M::V> {
    let minus = |a: M::V, b: M::V, c: M::V, d: M::V| m.sub(m.mul(a, b), m.mul(c, d));
    let determinant = minus(moments.weight, sums.squares, sums.quants, sums.quants);
    let scale = m.div(minus(moments.weight, sums.products, moments.sum, sums.quants), determinant);
    let least = m.div(minus(sums.squares, moments.sum, sums.quants, sums.products), determinant);
    let above = m.less(m.splat(0.0), least);
    if !m.any(above) {
        return Line { scale, least, determinant };
    }
    let through_zero = m.div(sums.products, sums.squares);
    Line { scale: m.select(above, through_zero, scale), least: m.select(above, m.splat(0.0), least), determinant }
}
