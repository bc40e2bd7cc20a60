//! The inner loops of the CPU path, compiled once per instruction set and chosen once at start.
//!
//! Promises: the functions of this module are safe, check their bounds at the entrance, run on one thread and keep no state.
//! A product does not depend on how many tokens are asked for together beyond the order in which it is summed.

#![expect(unsafe_code, reason = "calls into functions compiled for features that `Isa::detect` has seen")]
#![expect(clippy::inline_always, reason = "a body must become part of the caller that has the features it needs")]

pub mod activations;
pub mod dense;
mod dot;
pub mod elementwise;
mod formats;
mod heads;
mod simd;
#[cfg(test)]
mod tests;
mod tile;
#[cfg(target_arch = "x86_64")]
mod x86;

use crate::gguf::TensorKind;

pub use activations::{Activations, GROUP};
pub use heads::Cell;
pub use simd::LANES;
pub use tile::{Stripe, Tile};

use formats::{Q4_0, Q4_1, Q4K, Q5_0, Q5_1, Q5K, Q6K, Q8_0};
use simd::{Portable, Simd, Wide};

/// An instruction set that kernels are compiled for. Only [`Isa::detect`] makes one, so that having it proves the machine has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Isa(Level);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Level {
    Portable,
    #[cfg(target_arch = "aarch64")]
    DotProduct,
    #[cfg(target_arch = "x86_64")]
    Avx2,
    #[cfg(target_arch = "x86_64")]
    Avx512,
}

impl Isa {
    /// The best one of this machine.
    pub fn detect() -> Self {
        Self::available().pop().unwrap_or(Self(Level::Portable))
    }

    /// All of this machine, the best one last.
    pub fn available() -> Vec<Self> {
        #[cfg_attr(not(any(target_arch = "x86_64", target_arch = "aarch64")), expect(unused_mut, reason = "nothing to add"))]
        let mut all = vec![Self(Level::Portable)];
        #[cfg(target_arch = "aarch64")]
        if std::arch::is_aarch64_feature_detected!("dotprod") {
            all.push(Self(Level::DotProduct));
        }
        #[cfg(target_arch = "x86_64")]
        if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") && is_x86_feature_detected!("f16c") {
            all.push(Self(Level::Avx2));
            let more = is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("avx512bw");
            if more && is_x86_feature_detected!("avx512vl") && is_x86_feature_detected!("avx512vnni") {
                all.push(Self(Level::Avx512));
            }
        }
        all
    }

    pub fn name(self) -> &'static str {
        match self.0 {
            Level::Portable => "portable",
            #[cfg(target_arch = "aarch64")]
            Level::DotProduct => "NEON with dot products",
            #[cfg(target_arch = "x86_64")]
            Level::Avx2 => "AVX2",
            #[cfg(target_arch = "x86_64")]
            Level::Avx512 => "AVX-512 VNNI",
        }
    }
}

/// Compiles each body, which may use the type `S` (and a [`Cell`]), for every instruction set, behind one function that takes an [`Isa`].
macro_rules! compiled {
    ($($(#[$doc:meta])* $vis:vis fn $name:ident<$s:ident $(, $c:ident)?>($($arg:ident: $type:ty),*) $(-> $result:ty)? $body:block)+) => { $(
        $(#[$doc])*
        $vis fn $name$(<$c: Cell>)?(isa: Isa, $($arg: $type),*) $(-> $result)? {
            #[inline(always)]
            unsafe fn generic<$s: Simd + Wide $(, $c: Cell)?>($($arg: $type),*) $(-> $result)? $body
            #[cfg(target_arch = "aarch64")]
            #[target_feature(enable = "dotprod")]
            unsafe fn dot_product$(<$c: Cell>)?($($arg: $type),*) $(-> $result)? {
                // SAFETY: `Portable` needs no features.
                unsafe { generic::<Portable $(, $c)?>($($arg),*) }
            }
            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx2,fma,f16c")]
            unsafe fn avx2$(<$c: Cell>)?($($arg: $type),*) $(-> $result)? {
                // SAFETY: these are the features of `Avx2`.
                unsafe { generic::<x86::Avx2 $(, $c)?>($($arg),*) }
            }
            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni,avx2,fma,f16c")]
            unsafe fn avx512$(<$c: Cell>)?($($arg: $type),*) $(-> $result)? {
                // SAFETY: these are the features of `Avx512`.
                unsafe { generic::<x86::Avx512 $(, $c)?>($($arg),*) }
            }
            // SAFETY: an `Isa` is made only after its features have been seen.
            unsafe {
                match isa.0 {
                    Level::Portable => generic::<Portable $(, $c)?>($($arg),*),
                    #[cfg(target_arch = "aarch64")]
                    Level::DotProduct => dot_product$(::<$c>)?($($arg),*),
                    #[cfg(target_arch = "x86_64")]
                    Level::Avx2 => avx2$(::<$c>)?($($arg),*),
                    #[cfg(target_arch = "x86_64")]
                    Level::Avx512 => avx512$(::<$c>)?($($arg),*),
                }
            }
        }
    )+ };
}

/// Calls a function that is generic over a format with the format that `kind` names.
macro_rules! with_format {
    ($kind:expr, $s:ident, $($function:ident)::+ ($($arg:expr),*)) => {
        match $kind {
            TensorKind::Q4_0 => $($function)::+::<Q4_0, $s>($($arg),*),
            TensorKind::Q4_1 => $($function)::+::<Q4_1, $s>($($arg),*),
            TensorKind::Q5_0 => $($function)::+::<Q5_0, $s>($($arg),*),
            TensorKind::Q5_1 => $($function)::+::<Q5_1, $s>($($arg),*),
            TensorKind::Q8_0 => $($function)::+::<Q8_0, $s>($($arg),*),
            TensorKind::Q4_K => $($function)::+::<Q4K, $s>($($arg),*),
            TensorKind::Q5_K => $($function)::+::<Q5K, $s>($($arg),*),
            TensorKind::Q6_K => $($function)::+::<Q6K, $s>($($arg),*),
            other => unreachable!("{other} is refused when a model is loaded"),
        }
    };
}

/// Whether matrices of this kind can be multiplied with.
pub fn is_supported(kind: TensorKind) -> bool {
    is_dense(kind) || is_quantized(kind)
}

/// Whether these are plain numbers.
pub fn is_dense(kind: TensorKind) -> bool {
    matches!(kind, TensorKind::F32 | TensorKind::F16 | TensorKind::BF16)
}

fn is_quantized(kind: TensorKind) -> bool {
    use TensorKind as K;
    matches!(kind, K::Q4_0 | K::Q4_1 | K::Q5_0 | K::Q5_1 | K::Q8_0 | K::Q4_K | K::Q5_K | K::Q6_K)
}

compiled! {
    /// `out[i]` is the product of the `i`-th packed row of `weights` and row `token` of `input`.
    pub fn dot_rows<S>(kind: TensorKind, weights: &[u8], input: &Activations, token: usize, out: &mut [f32]) {
        // SAFETY: the caller of `generic` has the features of `S`.
        unsafe { with_format!(kind, S, dot::rows(weights, input, token, out)) }
    }

    /// Multiplies every row of `input` with up to [`LANES`] packed rows.
    fn tile_product<S>(kind: TensorKind, weights: &[u8], input: &Activations, tile: &mut Tile, out: Stripe) {
        // SAFETY: as above; who called `multiply_tile` vouches for `out`.
        unsafe { with_format!(kind, S, tile::product(weights, input, tile, out)) }
    }

    /// Unpacks one row of quantised weights.
    fn unpack_quantized<S>(kind: TensorKind, row: &[u8], out: &mut [f32]) {
        // SAFETY: as above.
        unsafe { with_format!(kind, S, unpack_row(row, out)) }
    }

    /// Fills groups from as many 32s of `values`; see [`Activations`].
    pub fn quantize<S>(values: &[f32], quants: &mut [i8], scales: &mut [f32], halves: &mut [[i32; 2]], sums: &mut [f32]) {
        activations::quantize(values, quants, scales, halves, sums);
    }

    /// The product of a row of plain numbers and `x`.
    pub fn dense_dot<S>(kind: TensorKind, row: &[u8], x: &[f32]) -> f32 {
        match kind {
            TensorKind::F32 => dense::dot::<dense::F32>(row, x),
            TensorKind::F16 => dense::dot::<dense::F16>(row, x),
            _ => dense::dot::<dense::Bf16>(row, x),
        }
    }

    fn unpack_dense<S>(kind: TensorKind, row: &[u8], out: &mut [f32]) {
        match kind {
            TensorKind::F32 => dense::unpack::<dense::F32>(row, out),
            TensorKind::F16 => dense::unpack::<dense::F16>(row, out),
            _ => dense::unpack::<dense::Bf16>(row, out),
        }
    }

    pub fn rms_norm<S>(x: &[f32], weight: &[f32], epsilon: f32, out: &mut [f32]) {
        elementwise::rms_norm(x, weight, epsilon, out);
    }

    pub fn gelu_gate<S>(gate: &mut [f32], up: &[f32]) {
        elementwise::gelu_gate(gate, up);
    }

    pub fn silu_gate<S>(gate: &mut [f32], up: &[f32]) {
        elementwise::silu_gate(gate, up);
    }

    pub fn soft_cap<S>(x: &mut [f32], limit: f32) {
        elementwise::soft_cap(x, limit);
    }

    /// See [`elementwise::exponentials`].
    pub fn exponentials<S>(scores: &mut [f32], floor: f32) -> (f32, f32) {
        elementwise::exponentials(scores, floor)
    }

    pub fn scale<S>(x: &mut [f32], factor: f32) {
        elementwise::scale(x, factor);
    }

    pub fn add<S>(sum: &mut [f32], x: &[f32]) {
        elementwise::add(sum, x);
    }

    pub fn rotate<S>(head: &mut [f32], angles: &[[f32; 2]], neighbours: bool) {
        elementwise::rotate(head, angles, neighbours);
    }

    /// See [`heads::scores`].
    pub fn scores<S, C>(query: &[f32], keys: &[C], scale: f32, out: &mut [f32]) {
        // SAFETY: the caller of `generic` has the features of `S`.
        unsafe { heads::scores::<S, C>(query, keys, scale, out) }
    }

    /// See [`heads::weighted`].
    pub fn weighted<S, C>(weights: &[f32], values: &[C], out: &mut [f32]) {
        // SAFETY: as above.
        unsafe { heads::weighted::<S, C>(weights, values, out) }
    }

    pub fn narrow_all<S, C>(from: &[f32], to: &mut [C]) {
        // SAFETY: as above.
        unsafe { heads::narrow_all::<S, C>(from, to) }
    }

    pub fn widen_all<S, C>(from: &[C], to: &mut [f32]) {
        // SAFETY: as above.
        unsafe { heads::widen_all::<S, C>(from, to) }
    }
}

/// Multiplies every row of `input` with up to [`LANES`] packed rows.
///
/// # Safety
/// `out` may be written for every token of `input`, and nobody else reads or writes these places meanwhile.
pub unsafe fn multiply_tile(isa: Isa, kind: TensorKind, weights: &[u8], input: &Activations, tile: &mut Tile, out: Stripe) {
    tile_product(isa, kind, weights, input, tile, out);
}

/// Unpacks one row of weights of any supported kind.
pub fn unpack_row_of(isa: Isa, kind: TensorKind, row: &[u8], out: &mut [f32]) {
    if is_dense(kind) {
        unpack_dense(isa, kind, row, out);
    } else {
        unpack_quantized(isa, kind, row, out);
    }
}

#[inline(always)]
unsafe fn unpack_row<F: formats::Format, S: Simd>(row: &[u8], out: &mut [f32]) {
    for (block, out) in row.chunks_exact(F::BYTES).zip(out.chunks_exact_mut(F::GROUPS * GROUP)) {
        // SAFETY: `block` is a whole block.
        let scales = unsafe { F::scales::<S>(block.as_ptr()) };
        for (group, out) in out.chunks_exact_mut(GROUP).enumerate() {
            let mut quants = [0_i8; GROUP];
            // SAFETY: as above, and `quants` has 32 places.
            unsafe { S::store(F::quants::<S>(block.as_ptr(), group), quants.as_mut_ptr()) };
            for (i, out) in out.iter_mut().enumerate() {
                let scale = if F::HALVES { scales.scale[2 * group + i / 16] } else { scales.scale[group] };
                *out = scale * f32::from(quants[i]) - scales.min[group];
            }
        }
    }
}
