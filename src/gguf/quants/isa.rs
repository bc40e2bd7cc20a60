//! Compiling a function once per instruction set, and choosing at run time.
//!
//! Nothing here changes a result: the same operations happen in the same order, only more of them at once. Fused multiply-adds
//! are never made, because Rust does not contract operations by itself.

use super::TensorKind;

/// An instruction set that packing is compiled for. Only [`Isa::available`] makes one, so that having it proves the machine has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Isa(pub(super) Level);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Level {
    /// What every machine of its kind has (SSE2, NEON).
    Portable,
    #[cfg(target_arch = "x86_64")]
    Avx2,
    #[cfg(target_arch = "x86_64")]
    Avx512,
}

impl Isa {
    /// The best one of this machine for packing into `kind`.
    pub(super) fn best_for(kind: TensorKind) -> Self {
        let [portable, avx2, avx512] = Self::available();
        // Measured on Zen 4, where a search is a third faster with vectors of 32 bytes; only what compares much gains by masks.
        let wide = matches!(kind, TensorKind::F16 | TensorKind::BF16 | TensorKind::IQ4_NL | TensorKind::IQ4_XS);
        let best = if wide { avx512.or(avx2) } else { avx2.or(avx512) };
        best.or(portable).unwrap_or(Self(Level::Portable))
    }

    /// Those of this machine, the best one last.
    pub(super) fn available() -> [Option<Self>; 3] {
        [Some(Self(Level::Portable)), Self::avx2(), Self::avx512()]
    }

    #[cfg(target_arch = "x86_64")]
    fn avx2() -> Option<Self> {
        is_x86_feature_detected!("avx2").then_some(Self(Level::Avx2))
    }

    #[cfg(target_arch = "x86_64")]
    fn avx512() -> Option<Self> {
        let all = is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("avx512vl");
        let all = all && is_x86_feature_detected!("avx512bw") && is_x86_feature_detected!("avx512dq");
        all.then_some(Self(Level::Avx512))
    }

    #[cfg(not(target_arch = "x86_64"))]
    fn avx2() -> Option<Self> {
        None
    }

    #[cfg(not(target_arch = "x86_64"))]
    fn avx512() -> Option<Self> {
        None
    }
}

/// Defines functions that take an [`Isa`] first, and whose bodies, with everything `inline(always)` in them, are compiled for each.
/// A body may use the [`Machine`](super::vector::Machine) that is named in brackets.
macro_rules! for_each_isa {
    ($($(#[$doc:meta])* $vis:vis fn $name:ident $([$machine:ident])? ($($arg:ident: $type:ty),* $(,)?) $body:block)+) => { $(
        $(#[$doc])*
        $vis fn $name(isa: $crate::gguf::quants::isa::Isa, $($arg: $type),*) {
            use $crate::gguf::quants::{isa::Level, vector};
            #[inline(always)]
            fn generic<M: vector::Machine>(machine: M, $($arg: $type),*) {
                let _ = machine;
                $(let $machine = machine;)?
                $body
            }
            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx2")]
            fn avx2($($arg: $type),*) {
                // SAFETY: this function has the feature.
                generic(unsafe { vector::Avx2::assume() }, $($arg),*);
            }
            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
            fn avx512($($arg: $type),*) {
                // SAFETY: this function has the features.
                generic(unsafe { vector::Avx512::assume() }, $($arg),*);
            }
            match isa.0 {
                Level::Portable => generic(vector::Portable, $($arg),*),
                #[cfg(target_arch = "x86_64")]
                // SAFETY: an `Isa` is made only after its features have been seen.
                Level::Avx2 => unsafe { avx2($($arg),*) },
                #[cfg(target_arch = "x86_64")]
                // SAFETY: as above.
                Level::Avx512 => unsafe { avx512($($arg),*) },
            }
        }
    )+ };
}

pub(super) use for_each_isa;
