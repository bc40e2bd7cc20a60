//! One query against cached keys and values, which are numbers of half or single precision.

#![expect(unsafe_code, reason = "vector loads through pointers; the entrances check the lengths")]

use super::dense::{narrow, widen};
use super::simd::Simd;

/// A number as a cache keeps it.
pub trait Cell: Copy + Default + Send + Sync + std::fmt::Debug + 'static {
    /// Eight of them.
    ///
    /// # Safety
    /// The machine has the features of `S`, and there are eight.
    unsafe fn load<S: Simd>(at: *const Self) -> S::Floats;
    /// # Safety
    /// As [`Cell::load`].
    unsafe fn store<S: Simd>(floats: S::Floats, at: *mut Self);
    fn widen(self) -> f32;
    fn narrow(x: f32) -> Self;
}

/// Half precision.
impl Cell for u16 {
    #[inline(always)]
    unsafe fn load<S: Simd>(at: *const Self) -> S::Floats {
        unsafe { S::load_halves(at) }
    }

    #[inline(always)]
    unsafe fn store<S: Simd>(floats: S::Floats, at: *mut Self) {
        unsafe { S::store_halves(floats, at) };
    }

    #[inline(always)]
    fn widen(self) -> f32 {
        widen(self)
    }

    #[inline(always)]
    fn narrow(x: f32) -> Self {
        narrow(x)
    }
}

impl Cell for f32 {
    #[inline(always)]
    unsafe fn load<S: Simd>(at: *const Self) -> S::Floats {
        unsafe { S::load_floats(at) }
    }

    #[inline(always)]
    unsafe fn store<S: Simd>(floats: S::Floats, at: *mut Self) {
        unsafe { S::store_floats(floats, at) };
    }

    #[inline(always)]
    fn widen(self) -> f32 {
        self
    }

    #[inline(always)]
    fn narrow(x: f32) -> Self {
        x
    }
}

/// Numbers in a vector of [`Simd::Floats`].
const WIDTH: usize = 8;

/// `out[i]` is `scale` times the product of `query` and the `i`-th key; keys lie one behind the other.
///
/// # Safety
/// The machine has the features of `S`.
#[inline(always)]
pub unsafe fn scores<S: Simd, C: Cell>(query: &[f32], keys: &[C], scale: f32, out: &mut [f32]) {
    let width = query.len();
    assert!(keys.len() >= width * out.len(), "fewer keys than scores");
    for (key, out) in keys.chunks_exact(width).zip(out) {
        // SAFETY: all vectors lie within the `width` numbers of `query` and `key`.
        *out = scale * unsafe { product::<S, C>(query, key) };
    }
}

#[inline(always)]
unsafe fn product<S: Simd, C: Cell>(query: &[f32], key: &[C]) -> f32 {
    const SUMS: usize = 4;
    let vectors = query.len() / WIDTH;
    unsafe {
        let mut sums = [S::zero(); SUMS];
        let mut vector = 0;
        while vector + SUMS <= vectors {
            for (i, sum) in sums.iter_mut().enumerate() {
                let at = (vector + i) * WIDTH;
                *sum = S::fma(S::load_floats(query.as_ptr().add(at)), C::load::<S>(key.as_ptr().add(at)), *sum);
            }
            vector += SUMS;
        }
        while vector < vectors {
            let at = vector * WIDTH;
            sums[0] = S::fma(S::load_floats(query.as_ptr().add(at)), C::load::<S>(key.as_ptr().add(at)), sums[0]);
            vector += 1;
        }
        let mut total = (S::sum(sums[0]) + S::sum(sums[1])) + (S::sum(sums[2]) + S::sum(sums[3]));
        for i in vectors * WIDTH..query.len() {
            total += query[i] * key[i].widen();
        }
        total
    }
}

/// Adds to `out` the values, each times its weight; values lie one behind the other.
///
/// # Safety
/// The machine has the features of `S`.
#[inline(always)]
pub unsafe fn weighted<S: Simd, C: Cell>(weights: &[f32], values: &[C], out: &mut [f32]) {
    let width = out.len();
    assert!(values.len() >= width * weights.len(), "fewer values than weights");
    let mut at = 0;
    // SAFETY: `columns` stays within the `width` numbers of `out` and of each value.
    unsafe {
        while at + 8 * WIDTH <= width {
            columns::<S, C, 8>(weights, values, out, at);
            at += 8 * WIDTH;
        }
        while at + WIDTH <= width {
            columns::<S, C, 1>(weights, values, out, at);
            at += WIDTH;
        }
    }
    for column in at..width {
        for (weight, value) in weights.iter().zip(values.chunks_exact(width)) {
            out[column] += weight * value[column].widen();
        }
    }
}

#[inline(always)]
unsafe fn columns<S: Simd, C: Cell, const N: usize>(weights: &[f32], values: &[C], out: &mut [f32], at: usize) {
    unsafe {
        let mut sums = [S::zero(); N];
        for (i, sum) in sums.iter_mut().enumerate() {
            *sum = S::load_floats(out.as_ptr().add(at + i * WIDTH));
        }
        for (row, &weight) in weights.iter().enumerate() {
            let value = values.as_ptr().add(row * out.len() + at);
            let weight = S::pair(weight, weight);
            for (i, sum) in sums.iter_mut().enumerate() {
                *sum = S::fma(weight, C::load::<S>(value.add(i * WIDTH)), *sum);
            }
        }
        for (i, sum) in sums.iter().enumerate() {
            S::store_floats(*sum, out.as_mut_ptr().add(at + i * WIDTH));
        }
    }
}

/// From single precision. The slices have one length.
///
/// # Safety
/// The machine has the features of `S`.
#[inline(always)]
pub unsafe fn narrow_all<S: Simd, C: Cell>(from: &[f32], to: &mut [C]) {
    let (from_vectors, from_rest) = from.as_chunks::<WIDTH>();
    let (to_vectors, to_rest) = to.as_chunks_mut::<WIDTH>();
    for (from, to) in from_vectors.iter().zip(to_vectors) {
        // SAFETY: both have eight numbers.
        unsafe { C::store::<S>(S::load_floats(from.as_ptr()), to.as_mut_ptr()) };
    }
    for (from, to) in from_rest.iter().zip(to_rest) {
        *to = C::narrow(*from);
    }
}

/// To single precision. The slices have one length.
///
/// # Safety
/// The machine has the features of `S`.
#[inline(always)]
pub unsafe fn widen_all<S: Simd, C: Cell>(from: &[C], to: &mut [f32]) {
    let (from_vectors, from_rest) = from.as_chunks::<WIDTH>();
    let (to_vectors, to_rest) = to.as_chunks_mut::<WIDTH>();
    for (from, to) in from_vectors.iter().zip(to_vectors) {
        // SAFETY: both have eight numbers.
        unsafe { S::store_floats(C::load::<S>(from.as_ptr()), to.as_mut_ptr()) };
    }
    for (from, to) in from_rest.iter().zip(to_rest) {
        *to = from.widen();
    }
}
