//! The few vector operations the quantised kernels are written in: 32 bytes at a time, and 16 rows at a time.
//!
//! A kernel is written once over these traits and compiled once per instruction set (see [`super::dispatch`]). Implementations
//! are `inline(always)` without features of their own: they become part of a caller that has the features, which is also the
//! one condition under which they may be called.

#![expect(unsafe_code, reason = "vector intrinsics and unaligned loads from weights; each caller checks the features and the bounds")]

use super::dense::{narrow, widen};

/// Vectors over one row of weights: 32 signed bytes, and 8 partial sums.
pub trait Simd: Copy {
    type Bytes: Copy;
    type Floats: Copy;

    /// Has the cache line at `at` brought near, if there is such memory; any address will do.
    #[inline(always)]
    unsafe fn prefetch(_at: *const u8) {}
    /// 32 bytes.
    unsafe fn load(at: *const u8) -> Self::Bytes;
    unsafe fn store(bytes: Self::Bytes, at: *mut i8);
    /// The field of `mask` bits that starts at bit `shift` in each of 32 bytes; `mask` is below 16.
    unsafe fn field(at: *const u8, shift: usize, mask: u8) -> Self::Bytes;
    /// 16 bytes become 32: their low halves, then their high halves.
    unsafe fn nibbles(at: *const u8) -> Self::Bytes;
    /// Byte `i` is 16 if bit `i` is set, else 0.
    unsafe fn sixteens(bits: u32) -> Self::Bytes;
    unsafe fn shl4(bytes: Self::Bytes) -> Self::Bytes;
    unsafe fn or(a: Self::Bytes, b: Self::Bytes) -> Self::Bytes;
    unsafe fn sub(a: Self::Bytes, n: i8) -> Self::Bytes;

    /// Products of 32 signed bytes each, summed so that lanes 0–3 hold the first 16 and lanes 4–7 the last 16.
    /// `halves` are the sums of the two halves of `a`, times −32.
    unsafe fn dot(w: Self::Bytes, a: *const i8, halves: [i32; 2]) -> Self::Floats;

    unsafe fn half(bits: u16) -> f32;
    unsafe fn zero() -> Self::Floats;
    /// `low` in lanes 0–3, `high` in lanes 4–7.
    unsafe fn pair(low: f32, high: f32) -> Self::Floats;
    unsafe fn fma(a: Self::Floats, b: Self::Floats, c: Self::Floats) -> Self::Floats;
    unsafe fn sum(a: Self::Floats) -> f32;

    unsafe fn load_floats(at: *const f32) -> Self::Floats;
    unsafe fn store_floats(floats: Self::Floats, at: *mut f32);
    /// Eight numbers of half precision.
    unsafe fn load_halves(at: *const u16) -> Self::Floats;
    unsafe fn store_halves(floats: Self::Floats, at: *mut u16);
}

/// Rows of a tile: the lanes of [`Wide`].
pub const LANES: usize = 16;

/// Vectors over 16 rows of weights at a time.
pub trait Wide: Copy {
    type Ints: Copy;
    type Floats: Copy;
    /// Added to every signed weight byte in a tile (as `xor 0x80`), because the machine multiplies unsigned by signed.
    const BIASED: bool;
    /// Tokens a kernel works on at once.
    const TOKENS: usize;

    /// Integer sums start here so that they end unbiased; `sum` is the sum of the activations, times −128.
    unsafe fn start(sum: i32) -> Self::Ints;
    /// 16 × 4 bytes.
    unsafe fn load(at: *const i8) -> Self::Ints;
    /// Adds to each lane the product of its four weights and the four activations at `a`.
    unsafe fn dot4(sum: Self::Ints, w: Self::Ints, a: *const i8) -> Self::Ints;
    unsafe fn to_floats(ints: Self::Ints) -> Self::Floats;

    unsafe fn zero() -> Self::Floats;
    unsafe fn splat(n: f32) -> Self::Floats;
    unsafe fn load_floats(at: *const f32) -> Self::Floats;
    unsafe fn store(floats: Self::Floats, at: *mut f32);
    unsafe fn mul(a: Self::Floats, b: Self::Floats) -> Self::Floats;
    unsafe fn fma(a: Self::Floats, b: Self::Floats, c: Self::Floats) -> Self::Floats;
}

/// Any machine; loops of fixed length that the compiler makes vectors of.
#[derive(Debug, Clone, Copy)]
pub struct Portable;

#[inline(always)]
fn map<const N: usize, T: Copy, U: Copy + Default>(from: [T; N], f: impl Fn(T) -> U) -> [U; N] {
    let mut to = [U::default(); N];
    for i in 0..N {
        to[i] = f(from[i]);
    }
    to
}

#[expect(clippy::cast_possible_wrap, clippy::cast_precision_loss, reason = "bytes are reinterpreted; integer sums stay below 2^24")]
impl Simd for Portable {
    type Bytes = [i8; 32];
    type Floats = [f32; 8];

    #[inline(always)]
    unsafe fn load(at: *const u8) -> [i8; 32] {
        unsafe { at.cast::<[i8; 32]>().read_unaligned() }
    }

    #[inline(always)]
    unsafe fn store(bytes: [i8; 32], at: *mut i8) {
        unsafe { at.cast::<[i8; 32]>().write_unaligned(bytes) };
    }

    #[inline(always)]
    unsafe fn field(at: *const u8, shift: usize, mask: u8) -> [i8; 32] {
        map(unsafe { at.cast::<[u8; 32]>().read_unaligned() }, |byte| ((byte >> shift) & mask) as i8)
    }

    #[inline(always)]
    unsafe fn nibbles(at: *const u8) -> [i8; 32] {
        let packed = unsafe { at.cast::<[u8; 16]>().read_unaligned() };
        let mut bytes = [0; 32];
        for i in 0..16 {
            bytes[i] = (packed[i] & 15) as i8;
            bytes[i + 16] = (packed[i] >> 4) as i8;
        }
        bytes
    }

    #[inline(always)]
    unsafe fn sixteens(bits: u32) -> [i8; 32] {
        let mut bytes = [0; 32];
        for (i, byte) in bytes.iter_mut().enumerate() {
            *byte = if (bits >> i) & 1 == 1 { 16 } else { 0 };
        }
        bytes
    }

    #[inline(always)]
    unsafe fn shl4(bytes: [i8; 32]) -> [i8; 32] {
        map(bytes, |byte| byte << 4)
    }

    #[inline(always)]
    unsafe fn or(a: [i8; 32], b: [i8; 32]) -> [i8; 32] {
        let mut c = a;
        for i in 0..32 {
            c[i] |= b[i];
        }
        c
    }

    #[inline(always)]
    unsafe fn sub(a: [i8; 32], n: i8) -> [i8; 32] {
        map(a, |byte| byte - n)
    }

    #[inline(always)]
    unsafe fn dot(w: [i8; 32], a: *const i8, _halves: [i32; 2]) -> [f32; 8] {
        let a = unsafe { a.cast::<[i8; 32]>().read_unaligned() };
        let mut sums = [0_i32; 8];
        for lane in 0..8 {
            for i in 0..4 {
                sums[lane] += i32::from(w[lane * 4 + i]) * i32::from(a[lane * 4 + i]);
            }
        }
        map(sums, |sum| sum as f32)
    }

    #[inline(always)]
    unsafe fn half(bits: u16) -> f32 {
        widen(bits)
    }

    #[inline(always)]
    unsafe fn zero() -> [f32; 8] {
        [0.0; 8]
    }

    #[inline(always)]
    unsafe fn pair(low: f32, high: f32) -> [f32; 8] {
        [low, low, low, low, high, high, high, high]
    }

    #[inline(always)]
    unsafe fn fma(a: [f32; 8], b: [f32; 8], c: [f32; 8]) -> [f32; 8] {
        let mut sum = c;
        for i in 0..8 {
            sum[i] += a[i] * b[i];
        }
        sum
    }

    #[inline(always)]
    unsafe fn load_floats(at: *const f32) -> [f32; 8] {
        unsafe { at.cast::<[f32; 8]>().read_unaligned() }
    }

    #[inline(always)]
    unsafe fn store_floats(floats: [f32; 8], at: *mut f32) {
        unsafe { at.cast::<[f32; 8]>().write_unaligned(floats) };
    }

    #[inline(always)]
    unsafe fn load_halves(at: *const u16) -> [f32; 8] {
        map(unsafe { at.cast::<[u16; 8]>().read_unaligned() }, widen)
    }

    #[inline(always)]
    unsafe fn store_halves(floats: [f32; 8], at: *mut u16) {
        unsafe { at.cast::<[u16; 8]>().write_unaligned(map(floats, narrow)) };
    }

    #[inline(always)]
    unsafe fn sum(a: [f32; 8]) -> f32 {
        ((a[0] + a[4]) + (a[1] + a[5])) + ((a[2] + a[6]) + (a[3] + a[7]))
    }
}

#[expect(clippy::cast_precision_loss, reason = "integer sums stay below 2^24")]
impl Wide for Portable {
    type Ints = [i32; LANES];
    type Floats = [f32; LANES];
    const BIASED: bool = false;
    const TOKENS: usize = 2;

    #[inline(always)]
    unsafe fn start(_sum: i32) -> [i32; LANES] {
        [0; LANES]
    }

    #[inline(always)]
    unsafe fn load(at: *const i8) -> [i32; LANES] {
        unsafe { at.cast::<[i32; LANES]>().read_unaligned() }
    }

    #[inline(always)]
    unsafe fn dot4(sum: [i32; LANES], w: [i32; LANES], a: *const i8) -> [i32; LANES] {
        let a = unsafe { a.cast::<[i8; 4]>().read_unaligned() };
        let mut next = sum;
        for lane in 0..LANES {
            let [w0, w1, w2, w3] = w[lane].to_ne_bytes();
            next[lane] += i32::from(w0.cast_signed()) * i32::from(a[0])
                + i32::from(w1.cast_signed()) * i32::from(a[1])
                + i32::from(w2.cast_signed()) * i32::from(a[2])
                + i32::from(w3.cast_signed()) * i32::from(a[3]);
        }
        next
    }

    #[inline(always)]
    unsafe fn to_floats(ints: [i32; LANES]) -> [f32; LANES] {
        map(ints, |n| n as f32)
    }

    #[inline(always)]
    unsafe fn zero() -> [f32; LANES] {
        [0.0; LANES]
    }

    #[inline(always)]
    unsafe fn splat(n: f32) -> [f32; LANES] {
        [n; LANES]
    }

    #[inline(always)]
    unsafe fn load_floats(at: *const f32) -> [f32; LANES] {
        unsafe { at.cast::<[f32; LANES]>().read_unaligned() }
    }

    #[inline(always)]
    unsafe fn store(floats: [f32; LANES], at: *mut f32) {
        unsafe { at.cast::<[f32; LANES]>().write_unaligned(floats) };
    }

    #[inline(always)]
    unsafe fn mul(a: [f32; LANES], b: [f32; LANES]) -> [f32; LANES] {
        let mut product = a;
        for i in 0..LANES {
            product[i] *= b[i];
        }
        product
    }

    #[inline(always)]
    unsafe fn fma(a: [f32; LANES], b: [f32; LANES], c: [f32; LANES]) -> [f32; LANES] {
        let mut sum = c;
        for i in 0..LANES {
            sum[i] += a[i] * b[i];
        }
        sum
    }
}
