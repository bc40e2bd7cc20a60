//! Loops over numbers, compiled for the vectors of the machine. Sums run in sixteen lanes that are joined in one order, so that the
//! instruction set changes nothing but the time.

#![cfg_attr(target_arch = "x86_64", expect(unsafe_code, reason = "calls into functions compiled for features that have just been seen"))]
#![expect(clippy::inline_always, reason = "a body must become part of the caller that is compiled for an instruction set")]

use crate::lm::cpu::kernels::elementwise::exp;

/// Compiles each body for every instruction set, behind one function.
macro_rules! vectorized {
    ($($(#[$meta:meta])* pub fn $name:ident($($arg:ident: $type:ty),*) $(-> $result:ty)? $body:block)+) => { $(
        $(#[$meta])*
        pub fn $name($($arg: $type),*) $(-> $result)? {
            #[inline(always)]
            fn generic($($arg: $type),*) $(-> $result)? $body
            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx2,fma")]
            fn avx2($($arg: $type),*) $(-> $result)? {
                generic($($arg),*)
            }
            #[cfg(target_arch = "x86_64")]
            if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
                // SAFETY: the machine has the features, as seen above.
                return unsafe { avx2($($arg),*) };
            }
            generic($($arg),*)
        }
    )+ };
}

#[inline(always)]
fn lanes(count: usize, start: f32, fold: impl Fn(f32, usize) -> f32, join: impl Fn(f32, f32) -> f32) -> f32 {
    let mut lanes = [start; 16];
    let whole = count / 16;
    for chunk in 0..whole {
        for (i, lane) in lanes.iter_mut().enumerate() {
            *lane = fold(*lane, chunk * 16 + i);
        }
    }
    for (i, lane) in lanes.iter_mut().enumerate().take(count % 16) {
        *lane = fold(*lane, whole * 16 + i);
    }
    let mut width = 8;
    while width > 0 {
        for i in 0..width {
            lanes[i] = join(lanes[i], lanes[i + width]);
        }
        width /= 2;
    }
    lanes[0]
}

#[inline(always)]
fn plus(a: f32, b: f32) -> f32 {
    a + b
}

#[inline(always)]
fn sigmoid(x: f32) -> f32 {
    1.0 / (1.0 + exp(-x))
}

/// √(2/π) and the cubic's factor of GELU's tanh form.
const GELU: [f32; 2] = [0.797_884_6, 0.044_715];

/// (1 + tanh y) / 2 of GELU's tanh form, which is the logistic function of 2 y.
#[inline(always)]
fn gelu_gate(x: f32) -> f32 {
    sigmoid(2.0 * GELU[0] * x * (1.0 + GELU[1] * x * x))
}

/// The hyperbolic tangent, within two units in the last place (Cephes' polynomial near 0, where the other form cancels).
#[expect(clippy::excessive_precision, reason = "the digits that Cephes gives")]
#[inline(always)]
fn tanh(x: f32) -> f32 {
    let square = x * x;
    let mut sum = -5.704_988_7e-3;
    for factor in [2.063_908_9e-2, -5.373_971_6e-2, 1.333_144_2e-1, -3.333_328_2e-1] {
        sum = sum * square + factor;
    }
    let near = sum * square * x + x;
    let far = 1.0 - 2.0 / (1.0 + exp(2.0 * x));
    if square < 0.390_625 { near } else { far }
}

vectorized! {
    /// Σ a · b.
    pub fn dot(a: &[f32], b: &[f32]) -> f32 {
        let count = a.len().min(b.len());
        let (a, b) = (&a[..count], &b[..count]);
        lanes(count, 0.0, |sum, i| sum + a[i] * b[i], plus)
    }

    /// Σ a · b · c.
    pub fn dot_3(a: &[f32], b: &[f32], c: &[f32]) -> f32 {
        let count = a.len().min(b.len()).min(c.len());
        let (a, b, c) = (&a[..count], &b[..count], &c[..count]);
        lanes(count, 0.0, |sum, i| sum + a[i] * b[i] * c[i], plus)
    }

    /// The largest number.
    pub fn largest(x: &[f32]) -> f32 {
        let larger = |a: f32, b: f32| if a > b { a } else { b };
        lanes(x.len(), f32::NEG_INFINITY, |most, i| larger(most, x[i]), larger)
    }

    /// Replaces numbers by their exponentials over that of `most`, and sums them.
    pub fn exponentials(x: &mut [f32], most: f32) -> f32 {
        for x in x.iter_mut() {
            *x = exp(*x - most);
        }
        lanes(x.len(), 0.0, |sum, i| sum + x[i], plus)
    }

    /// `(x − less) · factor`.
    pub fn shift(x: &mut [f32], less: f32, factor: f32) {
        for x in x {
            *x = (*x - less) * factor;
        }
    }

    /// Σ weight · (a − b).
    pub fn weighed_difference(weight: &[f32], a: &[f32], b: &[f32]) -> f32 {
        let count = weight.len().min(a.len()).min(b.len());
        let (weight, a, b) = (&weight[..count], &a[..count], &b[..count]);
        lanes(count, 0.0, |sum, i| sum + weight[i] * (a[i] - b[i]), plus)
    }

    /// `sum = factors[0] · sum + factors[1] · x − factors[2] · y`.
    pub fn blend(sum: &mut [f32], x: &[f32], y: &[f32], factors: [f32; 3]) {
        for ((sum, x), y) in sum.iter_mut().zip(x).zip(y) {
            *sum = factors[0] * *sum + factors[1] * x - factors[2] * y;
        }
    }

    pub fn scale(x: &mut [f32], factor: f32) {
        for x in x {
            *x *= factor;
        }
    }

    pub fn add(sum: &mut [f32], x: &[f32]) {
        for (sum, x) in sum.iter_mut().zip(x) {
            *sum += x;
        }
    }

    /// `sum += factor · x`.
    pub fn add_scaled(sum: &mut [f32], x: &[f32], factor: f32) {
        for (sum, x) in sum.iter_mut().zip(x) {
            *sum += factor * x;
        }
    }

    /// `out = x · weight · factor`.
    pub fn weigh(out: &mut [f32], x: &[f32], weight: &[f32], factor: f32) {
        for ((out, x), weight) in out.iter_mut().zip(x).zip(weight) {
            *out = x * factor * weight;
        }
    }

    /// `sum += x · y · factor`.
    pub fn add_product(sum: &mut [f32], x: &[f32], y: &[f32], factor: f32) {
        for ((sum, x), y) in sum.iter_mut().zip(x).zip(y) {
            *sum += x * factor * y;
        }
    }

    /// `out = along · weight · dy − across · x`: the gradient of a normed row.
    pub fn norm_gradient(out: &mut [f32], dy: &[f32], weight: &[f32], x: &[f32], factors: [f32; 2]) {
        for (((out, dy), weight), x) in out.iter_mut().zip(dy).zip(weight).zip(x) {
            *out = factors[0] * weight * dy - factors[1] * x;
        }
    }

    /// `limit · tanh(x / limit)`.
    pub fn soft_cap(x: &mut [f32], limit: f32) {
        for x in x {
            *x = limit * tanh(*x / limit);
        }
    }

    /// `dx · (1 − (y / limit)²)`, where `y` is what [`soft_cap`] gave.
    pub fn soft_cap_gradient(dx: &mut [f32], y: &[f32], limit: f32) {
        for (dx, y) in dx.iter_mut().zip(y) {
            *dx *= 1.0 - (y / limit) * (y / limit);
        }
    }

    /// `out = silu(gate) · up`.
    pub fn silu_gated(out: &mut [f32], gate: &[f32], up: &[f32]) {
        for ((out, gate), up) in out.iter_mut().zip(gate).zip(up) {
            *out = gate * sigmoid(*gate) * up;
        }
    }

    /// `out = gelu(gate) · up`, with the tanh form of GELU.
    pub fn gelu_gated(out: &mut [f32], gate: &[f32], up: &[f32]) {
        for ((out, gate), up) in out.iter_mut().zip(gate).zip(up) {
            *out = gate * gelu_gate(*gate) * up;
        }
    }

    /// The gradients of [`silu_gated`], of which `d_up` comes with that of its result in it.
    pub fn silu_gated_gradient(d_gate: &mut [f32], d_up: &mut [f32], gate: &[f32], up: &[f32]) {
        for (((d_gate, d_up), gate), up) in d_gate.iter_mut().zip(d_up).zip(gate).zip(up) {
            let open = sigmoid(*gate);
            *d_gate = *d_up * up * open * (1.0 + gate * (1.0 - open));
            *d_up *= gate * open;
        }
    }

    /// The gradients of [`gelu_gated`]; as [`silu_gated_gradient`].
    pub fn gelu_gated_gradient(d_gate: &mut [f32], d_up: &mut [f32], gate: &[f32], up: &[f32]) {
        for (((d_gate, d_up), gate), up) in d_gate.iter_mut().zip(d_up).zip(gate).zip(up) {
            let open = gelu_gate(*gate);
            let slope = 2.0 * GELU[0] * (1.0 + 3.0 * GELU[1] * gate * gate);
            *d_gate = *d_up * up * open * (1.0 + gate * slope * (1.0 - open));
            *d_up *= gate * open;
        }
    }

    /// `ds = p · (ds − mean)`: the gradient of a row's softmax, of which `mean` is Σ p · ds.
    pub fn softmax_gradient(ds: &mut [f32], p: &[f32], mean: f32) {
        for (ds, p) in ds.iter_mut().zip(p) {
            *ds = p * (*ds - mean);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[expect(clippy::cast_possible_truncation, reason = "compared in single precision")]
    fn tanh_is_exact_to_the_last_digits() {
        for i in -4_000_i16..4_000 {
            let x = f32::from(i) / 400.0;
            let mut found = [x];
            soft_cap(&mut found, 1.0);
            let wanted = f64::from(x).tanh() as f32;
            assert!((found[0] - wanted).abs() <= 3e-7 * wanted.abs(), "{x}: {} {wanted}", found[0]);
        }
    }

    #[test]
    fn sums_take_all_numbers() {
        for count in [0, 1, 15, 16, 17, 40] {
            let ones = vec![1.0; count];
            let largest_of = largest(&ones);
            assert_eq!(dot(&ones, &ones).to_bits(), f32::from(u8::try_from(count).unwrap()).to_bits());
            assert!(count == 0 || largest_of.to_bits() == 1_f32.to_bits());
        }
    }
}
