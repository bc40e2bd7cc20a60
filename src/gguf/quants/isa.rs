//! Compiling a function once per instruction set, and choosing at run time.
//!
//! Nothing here changes a result: the same operations happen in the same order, only more of them at once. Fused multiply-adds
//! are never made, because Rust does not contract operations by itself.

/// Defines functions whose bodies, and everything `inline(always)` in them, are compiled for each instruction set.
macro_rules! for_each_isa {
    ($($(#[$doc:meta])* $vis:vis fn $name:ident($($arg:ident: $type:ty),* $(,)?) $body:block)+) => { $(
        $(#[$doc])*
        $vis fn $name($($arg: $type),*) {
            #[inline(always)]
            fn generic($($arg: $type),*) $body
            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx2")]
            fn avx2($($arg: $type),*) {
                generic($($arg),*);
            }
            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
            fn avx512($($arg: $type),*) {
                generic($($arg),*);
            }
            #[cfg(target_arch = "x86_64")]
            {
                let all = is_x86_feature_detected!("avx512bw") && is_x86_feature_detected!("avx512dq");
                if all && is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("avx512vl") {
                    // SAFETY: the features have just been seen.
                    return unsafe { avx512($($arg),*) };
                }
                if is_x86_feature_detected!("avx2") {
                    // SAFETY: as above.
                    return unsafe { avx2($($arg),*) };
                }
            }
            // What remains has no features beyond those of every machine of its kind (SSE2, NEON).
            generic($($arg),*);
        }
    )+ };
}

pub(super) use for_each_isa;
