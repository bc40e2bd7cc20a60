//! Vectors of sixteen numbers, one for each group, in the few operations that the searches for scales are written in.
//!
//! A search is written once over a [`Machine`] and compiled for each. Having a value of a machine's type proves that the features
//! are there, so that its methods are safe; they have no features of their own and must become part of a caller that has them.

#![cfg_attr(target_arch = "x86_64", expect(unsafe_code, reason = "vector instructions, whose features a machine's value vouches for"))]

use super::lanes::{LANES, Lane, lanes};

/// Comparisons and the rest are IEEE's, each operation rounded for itself. `min` and `max` answer the second number where one is NaN.
pub trait Machine: Copy {
    type V: Copy;
    type Mask: Copy;

    fn splat(self, number: f32) -> Self::V;
    fn load(self, lane: &Lane) -> Self::V;
    fn store(self, v: Self::V, lane: &mut Lane);
    fn add(self, a: Self::V, b: Self::V) -> Self::V;
    fn sub(self, a: Self::V, b: Self::V) -> Self::V;
    fn mul(self, a: Self::V, b: Self::V) -> Self::V;
    fn div(self, a: Self::V, b: Self::V) -> Self::V;
    fn min(self, a: Self::V, b: Self::V) -> Self::V;
    fn max(self, a: Self::V, b: Self::V) -> Self::V;
    fn abs(self, a: Self::V) -> Self::V;
    fn less(self, a: Self::V, b: Self::V) -> Self::Mask;
    /// `a` where the mask is set, else `b`.
    fn select(self, mask: Self::Mask, a: Self::V, b: Self::V) -> Self::V;
    fn all(self, mask: Self::Mask) -> bool;
    fn any(self, mask: Self::Mask) -> bool;
}

/// What every machine can do.
#[derive(Debug, Clone, Copy)]
pub(super) struct Portable;

impl Machine for Portable {
    type V = Lane;
    type Mask = [bool; LANES];

    #[inline(always)]
    fn splat(self, number: f32) -> Lane {
        [number; LANES]
    }

    #[inline(always)]
    fn load(self, lane: &Lane) -> Lane {
        *lane
    }

    #[inline(always)]
    fn store(self, v: Lane, lane: &mut Lane) {
        *lane = v;
    }

    #[inline(always)]
    fn add(self, a: Lane, b: Lane) -> Lane {
        lanes(|k| a[k] + b[k])
    }

    #[inline(always)]
    fn sub(self, a: Lane, b: Lane) -> Lane {
        lanes(|k| a[k] - b[k])
    }

    #[inline(always)]
    fn mul(self, a: Lane, b: Lane) -> Lane {
        lanes(|k| a[k] * b[k])
    }

    #[inline(always)]
    fn div(self, a: Lane, b: Lane) -> Lane {
        lanes(|k| a[k] / b[k])
    }

    #[inline(always)]
    fn min(self, a: Lane, b: Lane) -> Lane {
        lanes(|k| if a[k] < b[k] { a[k] } else { b[k] })
    }

    #[inline(always)]
    fn max(self, a: Lane, b: Lane) -> Lane {
        lanes(|k| if a[k] > b[k] { a[k] } else { b[k] })
    }

    #[inline(always)]
    fn abs(self, a: Lane) -> Lane {
        lanes(|k| a[k].abs())
    }

    #[inline(always)]
    fn less(self, a: Lane, b: Lane) -> [bool; LANES] {
        std::array::from_fn(|k| a[k] < b[k])
    }

    #[inline(always)]
    fn select(self, mask: [bool; LANES], a: Lane, b: Lane) -> Lane {
        lanes(|k| if mask[k] { a[k] } else { b[k] })
    }

    #[inline(always)]
    fn all(self, mask: [bool; LANES]) -> bool {
        mask == [true; LANES]
    }

    #[inline(always)]
    fn any(self, mask: [bool; LANES]) -> bool {
        mask != [false; LANES]
    }
}

/// Defines a machine of x86 by what its instructions are called. `$n` vectors make sixteen numbers.
#[cfg(target_arch = "x86_64")]
macro_rules! x86_machine {
    (
        $(#[$doc:meta])* $name:ident: $vector:ident by $n:literal of $width:literal, $mask:ident,
        $splat:ident $load:ident $store:ident $add:ident $sub:ident $mul:ident $div:ident $min:ident $max:ident,
        abs $abs:expr, less $less:expr, select $select:expr, all $all:expr, any $any:expr
    ) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy)]
        pub struct $name(());

        impl $name {
            /// # Safety
            /// The machine has the features.
            #[inline(always)]
            pub unsafe fn assume() -> Self {
                Self(())
            }
        }

        impl Machine for $name {
            type V = [std::arch::x86_64::$vector; $n];
            type Mask = [std::arch::x86_64::$mask; $n];

            #[inline(always)]
            fn splat(self, number: f32) -> Self::V {
                // SAFETY: there is such a value only where the features are; the same holds below.
                [unsafe { std::arch::x86_64::$splat(number) }; $n]
            }

            #[inline(always)]
            fn load(self, lane: &Lane) -> Self::V {
                let parts = lane.as_chunks::<$width>().0;
                // SAFETY: a part has as many numbers as a vector.
                std::array::from_fn(|i| unsafe { std::arch::x86_64::$load(parts[i].as_ptr()) })
            }

            #[inline(always)]
            fn store(self, v: Self::V, lane: &mut Lane) {
                for (v, part) in v.into_iter().zip(lane.as_chunks_mut::<$width>().0) {
                    // SAFETY: as for `load`.
                    unsafe { std::arch::x86_64::$store(part.as_mut_ptr(), v) };
                }
            }

            x86_machine!(@pairs $add add, $sub sub, $mul mul, $div div, $min min, $max max);

            #[inline(always)]
            fn abs(self, a: Self::V) -> Self::V {
                // SAFETY: as above.
                a.map(|a| unsafe { $abs(a) })
            }

            #[inline(always)]
            fn less(self, a: Self::V, b: Self::V) -> Self::Mask {
                // SAFETY: as above.
                std::array::from_fn(|i| unsafe { $less(a[i], b[i]) })
            }

            #[inline(always)]
            fn select(self, mask: Self::Mask, a: Self::V, b: Self::V) -> Self::V {
                // SAFETY: as above.
                std::array::from_fn(|i| unsafe { $select(mask[i], a[i], b[i]) })
            }

            #[inline(always)]
            fn all(self, mask: Self::Mask) -> bool {
                $all(mask)
            }

            #[inline(always)]
            fn any(self, mask: Self::Mask) -> bool {
                $any(mask)
            }
        }
    };
    (@pairs $($instruction:ident $name:ident),+) => { $(
        #[inline(always)]
        fn $name(self, a: Self::V, b: Self::V) -> Self::V {
            // SAFETY: there is such a value only where the features are.
            std::array::from_fn(|i| unsafe { std::arch::x86_64::$instruction(a[i], b[i]) })
        }
    )+ };
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::{
        __m256, _CMP_LT_OQ, _mm256_andnot_ps, _mm256_blendv_ps, _mm256_cmp_ps, _mm256_movemask_ps, _mm256_set1_ps, _mm512_abs_ps,
        _mm512_cmp_ps_mask, _mm512_mask_blend_ps,
    };

    use super::{Lane, Machine};

    x86_machine! {
        /// AVX2.
        Avx2: __m256 by 2 of 8, __m256,
        _mm256_set1_ps _mm256_loadu_ps _mm256_storeu_ps
        _mm256_add_ps _mm256_sub_ps _mm256_mul_ps _mm256_div_ps _mm256_min_ps _mm256_max_ps,
        abs |a| _mm256_andnot_ps(_mm256_set1_ps(-0.0), a),
        less |a, b| _mm256_cmp_ps::<_CMP_LT_OQ>(a, b),
        select |mask, a, b| _mm256_blendv_ps(b, a, mask),
        // SAFETY: only a machine's methods use these.
        all |mask: [__m256; 2]| mask.into_iter().all(|mask| unsafe { _mm256_movemask_ps(mask) } == 0xff),
        // SAFETY: as above.
        any |mask: [__m256; 2]| mask.into_iter().any(|mask| unsafe { _mm256_movemask_ps(mask) } != 0)
    }

    x86_machine! {
        /// AVX-512.
        Avx512: __m512 by 1 of 16, __mmask16,
        _mm512_set1_ps _mm512_loadu_ps _mm512_storeu_ps
        _mm512_add_ps _mm512_sub_ps _mm512_mul_ps _mm512_div_ps _mm512_min_ps _mm512_max_ps,
        abs |a| _mm512_abs_ps(a),
        less |a, b| _mm512_cmp_ps_mask::<_CMP_LT_OQ>(a, b),
        select |mask, a, b| _mm512_mask_blend_ps(mask, b, a),
        all |mask| mask == [0xffff],
        any |mask| mask != [0]
    }
}

#[cfg(target_arch = "x86_64")]
pub(super) use x86::{Avx2, Avx512};

/// As [`nearest_small`](super::lanes::nearest_small).
#[inline(always)]
pub(super) fn nearest_small<M: Machine>(m: M, v: M::V) -> M::V {
    let magic = m.splat(super::lanes::MAGIC);
    m.sub(m.add(v, magic), magic)
}

/// The numbers of a vector.
#[inline(always)]
pub(super) fn stored<M: Machine>(m: M, v: M::V) -> Lane {
    let mut lane = [0.0; LANES];
    m.store(v, &mut lane);
    lane
}
