//! A few tokens at a time: each weight is read from memory once per token, and used where it is.

#![expect(unsafe_code, reason = "packed rows are read through pointers; `rows` checks every bound before it forms one")]

use super::activations::Activations;
use super::formats::{Format, Scales};
use super::simd::Simd;

/// Rows that share one pass over the activations.
const ROWS: usize = 4;

/// Writes to `out[i]` the product of row `i` of `weights` (packed rows one behind the other) and row `token` of `input`.
///
/// # Panics
/// When `weights` has fewer rows than `out` has places, or there is no such token.
///
/// # Safety
/// The machine has the features of `S`.
#[inline(always)]
pub unsafe fn rows<F: Format, S: Simd>(weights: &[u8], input: &Activations, token: usize, out: &mut [f32]) {
    let blocks = input.groups / F::GROUPS;
    let row_bytes = blocks * F::BYTES;
    assert!(weights.len() >= row_bytes * out.len(), "fewer rows than places for products");
    assert!(token < input.rows && input.groups.is_multiple_of(F::GROUPS), "rows of another length");
    let at = token * input.groups;
    // SAFETY: row `token` has `groups` groups in each list, as `Activations` promises.
    let input = unsafe {
        Row {
            quants: input.quants.as_ptr().add(at * 32),
            scales: input.scales.as_ptr().add(at),
            halves: input.halves.as_ptr().add(at),
            sums: input.sums.as_ptr().add(at),
        }
    };
    let mut first = 0;
    let mut fours = out.chunks_exact_mut(ROWS);
    for four in &mut fours {
        // SAFETY: rows `first..first + 4` lie within `weights`, checked above.
        unsafe { several::<F, S, ROWS>(weights.as_ptr().add(first * row_bytes), row_bytes, blocks, input, four) };
        first += ROWS;
    }
    for one in fours.into_remainder().chunks_mut(1) {
        // SAFETY: as above, for one row.
        unsafe { several::<F, S, 1>(weights.as_ptr().add(first * row_bytes), row_bytes, blocks, input, one) };
        first += 1;
    }
}

/// How far ahead weights are asked for from memory, in bytes. Rows are short and several are read side by side, which no
/// machine foresees. What is asked for goes through memory in order instead, so that no page is looked up twice.
const AHEAD: usize = 4096;

#[derive(Clone, Copy)]
struct Row {
    quants: *const i8,
    scales: *const f32,
    halves: *const [i32; 2],
    sums: *const f32,
}

#[inline(always)]
unsafe fn several<F: Format, S: Simd, const N: usize>(weights: *const u8, row_bytes: usize, blocks: usize, input: Row, out: &mut [f32]) {
    unsafe {
        let mut sums = [S::zero(); N];
        let mut mins = [0_f32; N];
        for block in 0..blocks {
            let at = weights.add(block * F::BYTES);
            let mut scales = [Scales { scale: [0.0; 16], min: [0.0; 8] }; N];
            for (row, scales) in scales.iter_mut().enumerate() {
                *scales = F::scales::<S>(at.add(row * row_bytes));
            }
            for group in 0..F::GROUPS {
                let index = block * F::GROUPS + group;
                let (scale, halves) = (*input.scales.add(index), *input.halves.add(index));
                for row in 0..N {
                    let far = AHEAD + (index * N + row) * (F::BYTES / F::GROUPS);
                    S::prefetch(weights.wrapping_add(far));
                    let quants = F::quants::<S>(at.add(row * row_bytes), group);
                    let products = S::dot(quants, input.quants.add(32 * index), halves);
                    let weight_scale = if F::HALVES {
                        S::pair(scales[row].scale[2 * group] * scale, scales[row].scale[2 * group + 1] * scale)
                    } else {
                        let both = scales[row].scale[group] * scale;
                        S::pair(both, both)
                    };
                    sums[row] = S::fma(products, weight_scale, sums[row]);
                    if F::MINS {
                        mins[row] += scales[row].min[group] * *input.sums.add(index);
                    }
                }
            }
        }
        for row in 0..N {
            out[row] = S::sum(sums[row]) - mins[row];
        }
    }
}
