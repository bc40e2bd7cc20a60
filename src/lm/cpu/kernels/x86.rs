//! The vector operations on x86-64: AVX2, and AVX-512 with VNNI.

#![expect(unsafe_code, reason = "vector intrinsics; each caller checks the features and the bounds")]

#[allow(clippy::wildcard_imports, reason = "intrinsics are many and prefixed")]
use std::arch::x86_64::*;

use super::simd::{Simd, Wide};

/// AVX2, FMA, F16C.
#[derive(Debug, Clone, Copy)]
pub struct Avx2;

/// AVX-512 F, BW, VL, VNNI and all of [`Avx2`].
#[derive(Debug, Clone, Copy)]
pub struct Avx512;

/// What both do alike on 32 bytes; they differ in `sixteens` and `dot`.
macro_rules! shared_simd {
    () => {
        type Bytes = __m256i;
        type Floats = __m256;

        #[inline(always)]
        unsafe fn prefetch(at: *const u8) {
            unsafe { _mm_prefetch::<_MM_HINT_T0>(at.cast()) };
        }

        #[inline(always)]
        unsafe fn load(at: *const u8) -> __m256i {
            unsafe { _mm256_loadu_si256(at.cast()) }
        }

        #[inline(always)]
        unsafe fn store(bytes: __m256i, at: *mut i8) {
            unsafe { _mm256_storeu_si256(at.cast(), bytes) };
        }

        #[inline(always)]
        unsafe fn field(at: *const u8, shift: usize, mask: u8) -> __m256i {
            unsafe {
                let bytes = _mm256_loadu_si256(at.cast());
                let shifted = match shift {
                    0 => bytes,
                    1 => _mm256_srli_epi16::<1>(bytes),
                    2 => _mm256_srli_epi16::<2>(bytes),
                    3 => _mm256_srli_epi16::<3>(bytes),
                    4 => _mm256_srli_epi16::<4>(bytes),
                    5 => _mm256_srli_epi16::<5>(bytes),
                    6 => _mm256_srli_epi16::<6>(bytes),
                    _ => _mm256_srli_epi16::<7>(bytes),
                };
                _mm256_and_si256(shifted, _mm256_set1_epi8(mask.cast_signed()))
            }
        }

        #[inline(always)]
        unsafe fn nibbles(at: *const u8) -> __m256i {
            unsafe {
                let packed = _mm_loadu_si128(at.cast());
                let both = _mm256_set_m128i(_mm_srli_epi16::<4>(packed), packed);
                _mm256_and_si256(both, _mm256_set1_epi8(15))
            }
        }

        #[inline(always)]
        unsafe fn shl4(bytes: __m256i) -> __m256i {
            unsafe { _mm256_slli_epi16::<4>(bytes) }
        }

        #[inline(always)]
        unsafe fn or(a: __m256i, b: __m256i) -> __m256i {
            unsafe { _mm256_or_si256(a, b) }
        }

        #[inline(always)]
        unsafe fn sub(a: __m256i, n: i8) -> __m256i {
            unsafe { _mm256_sub_epi8(a, _mm256_set1_epi8(n)) }
        }

        #[inline(always)]
        unsafe fn half(bits: u16) -> f32 {
            unsafe { _mm_cvtss_f32(_mm_cvtph_ps(_mm_cvtsi32_si128(i32::from(bits)))) }
        }

        #[inline(always)]
        unsafe fn zero() -> __m256 {
            unsafe { _mm256_setzero_ps() }
        }

        #[inline(always)]
        unsafe fn pair(low: f32, high: f32) -> __m256 {
            unsafe { _mm256_set_m128(_mm_set1_ps(high), _mm_set1_ps(low)) }
        }

        #[inline(always)]
        unsafe fn fma(a: __m256, b: __m256, c: __m256) -> __m256 {
            unsafe { _mm256_fmadd_ps(a, b, c) }
        }

        #[inline(always)]
        unsafe fn load_floats(at: *const f32) -> __m256 {
            unsafe { _mm256_loadu_ps(at) }
        }

        #[inline(always)]
        unsafe fn store_floats(floats: __m256, at: *mut f32) {
            unsafe { _mm256_storeu_ps(at, floats) };
        }

        #[inline(always)]
        unsafe fn load_halves(at: *const u16) -> __m256 {
            unsafe { _mm256_cvtph_ps(_mm_loadu_si128(at.cast())) }
        }

        #[inline(always)]
        unsafe fn store_halves(floats: __m256, at: *mut u16) {
            unsafe {
                let most = _mm256_set1_ps(65504.0);
                let least = _mm256_set1_ps(-65504.0);
                let fitting = _mm256_max_ps(_mm256_min_ps(floats, most), least);
                _mm_storeu_si128(at.cast(), _mm256_cvtps_ph::<_MM_FROUND_TO_NEAREST_INT>(fitting));
            }
        }

        #[inline(always)]
        unsafe fn sum(a: __m256) -> f32 {
            unsafe {
                let four = _mm_add_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps::<1>(a));
                let two = _mm_add_ps(four, _mm_movehl_ps(four, four));
                _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)))
            }
        }
    };
}

/// Sums of four neighbouring products. Both factors are signed, which no AVX2 instruction takes: the sign of `w` moves to `a`.
#[inline(always)]
unsafe fn dot_by_sign(w: __m256i, a: __m256i) -> __m256i {
    unsafe {
        let pairs = _mm256_maddubs_epi16(_mm256_abs_epi8(w), _mm256_sign_epi8(a, w));
        _mm256_madd_epi16(pairs, _mm256_set1_epi16(1))
    }
}

impl Simd for Avx2 {
    shared_simd!();

    #[inline(always)]
    unsafe fn sixteens(bits: u32) -> __m256i {
        unsafe {
            let each_byte = _mm256_setr_epi64x(0, 0x0101_0101_0101_0101, 0x0202_0202_0202_0202, 0x0303_0303_0303_0303);
            let spread = _mm256_shuffle_epi8(_mm256_set1_epi32(bits.cast_signed()), each_byte);
            let bit = _mm256_set1_epi64x(0x8040_2010_0804_0201_u64.cast_signed());
            let set = _mm256_cmpeq_epi8(_mm256_and_si256(spread, bit), bit);
            _mm256_and_si256(set, _mm256_set1_epi8(16))
        }
    }

    #[inline(always)]
    unsafe fn dot(w: __m256i, a: *const i8, _halves: [i32; 2]) -> __m256 {
        unsafe { _mm256_cvtepi32_ps(dot_by_sign(w, _mm256_loadu_si256(a.cast()))) }
    }
}

impl Simd for Avx512 {
    shared_simd!();

    #[inline(always)]
    unsafe fn sixteens(bits: u32) -> __m256i {
        unsafe { _mm256_maskz_set1_epi8(bits, 16) }
    }

    /// Adds 128 to the weights to make them unsigned, and takes 128 times the activations off again.
    #[inline(always)]
    unsafe fn dot(w: __m256i, a: *const i8, halves: [i32; 2]) -> __m256 {
        unsafe {
            let unsigned = _mm256_xor_si256(w, _mm256_set1_epi8(i8::MIN));
            let start = _mm256_set_m128i(_mm_set1_epi32(halves[1]), _mm_set1_epi32(halves[0]));
            _mm256_cvtepi32_ps(_mm256_dpbusd_epi32(start, unsigned, _mm256_loadu_si256(a.cast())))
        }
    }
}

impl Wide for Avx2 {
    type Ints = [__m256i; 2];
    type Floats = [__m256; 2];
    const BIASED: bool = false;
    const TOKENS: usize = 2;

    #[inline(always)]
    unsafe fn start(_sum: i32) -> [__m256i; 2] {
        unsafe { [_mm256_setzero_si256(); 2] }
    }

    #[inline(always)]
    unsafe fn load(at: *const i8) -> [__m256i; 2] {
        unsafe { [_mm256_loadu_si256(at.cast()), _mm256_loadu_si256(at.add(32).cast())] }
    }

    #[inline(always)]
    unsafe fn dot4(sum: [__m256i; 2], w: [__m256i; 2], a: *const i8) -> [__m256i; 2] {
        unsafe {
            let a = _mm256_set1_epi32(a.cast::<i32>().read_unaligned());
            [_mm256_add_epi32(sum[0], dot_by_sign(w[0], a)), _mm256_add_epi32(sum[1], dot_by_sign(w[1], a))]
        }
    }

    #[inline(always)]
    unsafe fn to_floats(ints: [__m256i; 2]) -> [__m256; 2] {
        unsafe { [_mm256_cvtepi32_ps(ints[0]), _mm256_cvtepi32_ps(ints[1])] }
    }

    #[inline(always)]
    unsafe fn zero() -> [__m256; 2] {
        unsafe { [_mm256_setzero_ps(); 2] }
    }

    #[inline(always)]
    unsafe fn splat(n: f32) -> [__m256; 2] {
        unsafe { [_mm256_set1_ps(n); 2] }
    }

    #[inline(always)]
    unsafe fn load_floats(at: *const f32) -> [__m256; 2] {
        unsafe { [_mm256_loadu_ps(at), _mm256_loadu_ps(at.add(8))] }
    }

    #[inline(always)]
    unsafe fn store(floats: [__m256; 2], at: *mut f32) {
        unsafe {
            _mm256_storeu_ps(at, floats[0]);
            _mm256_storeu_ps(at.add(8), floats[1]);
        }
    }

    #[inline(always)]
    unsafe fn mul(a: [__m256; 2], b: [__m256; 2]) -> [__m256; 2] {
        unsafe { [_mm256_mul_ps(a[0], b[0]), _mm256_mul_ps(a[1], b[1])] }
    }

    #[inline(always)]
    unsafe fn fma(a: [__m256; 2], b: [__m256; 2], c: [__m256; 2]) -> [__m256; 2] {
        unsafe { [_mm256_fmadd_ps(a[0], b[0], c[0]), _mm256_fmadd_ps(a[1], b[1], c[1])] }
    }
}

impl Wide for Avx512 {
    type Ints = __m512i;
    type Floats = __m512;
    const BIASED: bool = true;
    const TOKENS: usize = 8;

    #[inline(always)]
    unsafe fn start(sum: i32) -> __m512i {
        unsafe { _mm512_set1_epi32(sum) }
    }

    #[inline(always)]
    unsafe fn load(at: *const i8) -> __m512i {
        unsafe { _mm512_loadu_si512(at.cast()) }
    }

    #[inline(always)]
    unsafe fn dot4(sum: __m512i, w: __m512i, a: *const i8) -> __m512i {
        unsafe { _mm512_dpbusd_epi32(sum, w, _mm512_set1_epi32(a.cast::<i32>().read_unaligned())) }
    }

    #[inline(always)]
    unsafe fn to_floats(ints: __m512i) -> __m512 {
        unsafe { _mm512_cvtepi32_ps(ints) }
    }

    #[inline(always)]
    unsafe fn zero() -> __m512 {
        unsafe { _mm512_setzero_ps() }
    }

    #[inline(always)]
    unsafe fn splat(n: f32) -> __m512 {
        unsafe { _mm512_set1_ps(n) }
    }

    #[inline(always)]
    unsafe fn load_floats(at: *const f32) -> __m512 {
        unsafe { _mm512_loadu_ps(at) }
    }

    #[inline(always)]
    unsafe fn store(floats: __m512, at: *mut f32) {
        unsafe { _mm512_storeu_ps(at, floats) };
    }

    #[inline(always)]
    unsafe fn mul(a: __m512, b: __m512) -> __m512 {
        unsafe { _mm512_mul_ps(a, b) }
    }

    #[inline(always)]
    unsafe fn fma(a: __m512, b: __m512, c: __m512) -> __m512 {
        unsafe { _mm512_fmadd_ps(a, b, c) }
    }
}
