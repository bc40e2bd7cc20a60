//! Sixteen groups of numbers side by side: what ggml does to one group after another happens to all of them at once, in its order.
//!
//! The loops over lanes are written out plainly; the compiler makes vectors of them, because a loop of sixteen is long enough for it.

/// Groups at a time.
pub(super) const LANES: usize = 16;

/// One value for each group.
pub(super) type Lane = [f32; LANES];

/// Number `i` of each group, for all `N` numbers of a group.
pub(super) type Groups<const N: usize> = [Lane; N];

/// Whether something holds, for each group.
pub(super) type Mask = [bool; LANES];

pub(super) const ZERO: Lane = [0.0; LANES];

/// Lays the groups that follow one another in `numbers` side by side; those that are missing are zero.
#[inline(always)]
pub(super) fn side_by_side<const N: usize>(numbers: &[f32], groups: &mut Groups<N>) {
    let whole = numbers.as_chunks::<N>().0;
    if whole.len() < LANES {
        groups.fill(ZERO);
    }
    for (lane, group) in whole.iter().enumerate().take(LANES) {
        for i in 0..N {
            groups[i][lane] = group[i];
        }
    }
}

/// Each lane by `f`.
#[inline(always)]
pub(super) fn lanes(f: impl Fn(usize) -> f32) -> Lane {
    let mut all = ZERO;
    for k in 0..LANES {
        all[k] = f(k);
    }
    all
}

/// Added to a number below four million, it leaves the nearest integer, ties to even, in the lowest bits.
pub(super) const MAGIC: f32 = 12_582_912.0;

/// The nearest integer, ties to even, of a number below four million; of others what those bits happen to be, as in ggml.
#[inline(always)]
pub(super) fn nearest(number: f32) -> i32 {
    ((number + MAGIC).to_bits() & 0x7f_ffff).cast_signed() - 0x40_0000
}

/// As [`nearest`], for a number that is known to be below four million.
#[inline(always)]
pub(super) fn nearest_small(number: f32) -> f32 {
    (number + MAGIC) - MAGIC
}

/// A quant as a byte.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "C's conversion to a byte, which ggml relies on")]
#[inline(always)]
pub(super) fn byte(number: i32) -> u8 {
    number as u8
}

/// An integer of at most 24 bits.
#[expect(clippy::cast_precision_loss, reason = "at most 24 bits")]
#[inline(always)]
pub(super) fn float(number: i32) -> f32 {
    number as f32
}

/// Each element by `f`. (`map` of arrays is not always made part of its caller, and then knows nothing of the caller's features.)
#[inline(always)]
pub(super) fn each<T: Copy, const N: usize>(elements: &[T; N], f: impl Fn(T) -> u8) -> [u8; N] {
    let mut out = [0; N];
    for i in 0..N {
        out[i] = f(elements[i]);
    }
    out
}
