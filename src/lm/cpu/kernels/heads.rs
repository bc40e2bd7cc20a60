//! One query against cached keys and values of half precision.

#![expect(unsafe_code, reason = "vector loads through pointers; the entrances check the lengths")]

use super::dense::{narrow, widen};
use super::simd::Simd;

/// Numbers in a vector of [`Simd::Floats`].
const WIDTH: usize = 8;

/// `out[i]` is `scale` times the product of `query` and the `i`-th key; keys lie one behind the other.
///
/// # Safety
/// The machine has the features of `S`.
#[inline(always)]
pub unsafe fn scores<S: Simd>(query: &[f32], keys: &[u16], scale: f32, out: &mut [f32]) {
    let width = query.len();
    assert!(keys.len() >= width * out.len(), "fewer keys than scores");
    for (key, out) in keys.chunks_exact(width).zip(out) {
        // SAFETY: all vectors lie within the `width` numbers of `query` and `key`.
        *out = scale * unsafe { product::<S>(query, key) };
    }
}

#[inline(always)]
unsafe fn product<S: Simd>(query: &[f32], key: &[u16]) -> f32 {
    const SUMS: usize = 4;
    let vectors = query.len() / WIDTH;
    unsafe {
        let mut sums = [S::zero(); SUMS];
        let mut vector = 0;
        while vector + SUMS <= vectors {
            for (i, sum) in sums.iter_mut().enumerate() {
                let at = (vector + i) * WIDTH;
                *sum = S::fma(S::load_floats(query.as_ptr().add(at)), S::load_halves(key.as_ptr().add(at)), *sum);
            }
            vector += SUMS;
        }
        while vector < vectors {
            let at = vector * WIDTH;
            sums[0] = S::fma(S::load_floats(query.as_ptr().add(at)), S::load_halves(key.as_ptr().add(at)), sums[0]);
            vector += 1;
        }
        let mut total = (S::sum(sums[0]) + S::sum(sums[1])) + (S::sum(sums[2]) + S::sum(sums[3]));
        for i in vectors * WIDTH..query.len() {
            total += query[i] * widen(key[i]);
        }
        total
    }
}

/// Adds to `out` the values, each times its weight; values lie one behind the other.
///
/// # Safety
/// The machine has the features of `S`.
#[inline(always)]
pub unsafe fn weighted<S: Simd>(weights: &[f32], values: &[u16], out: &mut [f32]) {
    let width = out.len();
    assert!(values.len() >= width * weights.len(), "fewer values than weights");
    let mut at = 0;
    // SAFETY: `columns` stays within the `width` numbers of `out` and of each value.
    unsafe {
        while at + 8 * WIDTH <= width {
            columns::<S, 8>(weights, values, out, at);
            at += 8 * WIDTH;
        }
        while at + WIDTH <= width {
            columns::<S, 1>(weights, values, out, at);
            at += WIDTH;
        }
    }
    for column in at..width {
        for (weight, value) in weights.iter().zip(values.chunks_exact(width)) {
            out[column] += weight * widen(value[column]);
        }
    }
}

#[inline(always)]
unsafe fn columns<S: Simd, const N: usize>(weights: &[f32], values: &[u16], out: &mut [f32], at: usize) {
    unsafe {
        let mut sums = [S::zero(); N];
        for (i, sum) in sums.iter_mut().enumerate() {
            *sum = S::load_floats(out.as_ptr().add(at + i * WIDTH));
        }
        for (row, &weight) in weights.iter().enumerate() {
            let value = values.as_ptr().add(row * out.len() + at);
            let weight = S::pair(weight, weight);
            for (i, sum) in sums.iter_mut().enumerate() {
                *sum = S::fma(weight, S::load_halves(value.add(i * WIDTH)), *sum);
            }
        }
        for (i, sum) in sums.iter().enumerate() {
            S::store_floats(*sum, out.as_mut_ptr().add(at + i * WIDTH));
        }
    }
}

/// Single precision to half. The slices have one length.
///
/// # Safety
/// The machine has the features of `S`.
#[inline(always)]
pub unsafe fn narrow_all<S: Simd>(from: &[f32], to: &mut [u16]) {
    let (from_vectors, from_rest) = from.as_chunks::<WIDTH>();
    let (to_vectors, to_rest) = to.as_chunks_mut::<WIDTH>();
    for (from, to) in from_vectors.iter().zip(to_vectors) {
        // SAFETY: both have eight numbers.
        unsafe { S::store_halves(S::load_floats(from.as_ptr()), to.as_mut_ptr()) };
    }
    for (from, to) in from_rest.iter().zip(to_rest) {
        *to = narrow(*from);
    }
}

/// Half precision to single. The slices have one length.
///
/// # Safety
/// The machine has the features of `S`.
#[inline(always)]
pub unsafe fn widen_all<S: Simd>(from: &[u16], to: &mut [f32]) {
    let (from_vectors, from_rest) = from.as_chunks::<WIDTH>();
    let (to_vectors, to_rest) = to.as_chunks_mut::<WIDTH>();
    for (from, to) in from_vectors.iter().zip(to_vectors) {
        // SAFETY: both have eight numbers.
        unsafe { S::store_floats(S::load_halves(from.as_ptr()), to.as_mut_ptr()) };
    }
    for (from, to) in from_rest.iter().zip(to_rest) {
        *to = widen(*from);
    }
}
