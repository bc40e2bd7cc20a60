//! What happens to activations between the matrices. Plain loops without branches, which the compiler turns into vectors.

/// e to the power `x`, within two units in the last place; 0 below −87 (Cephes' polynomial).
#[inline(always)]
pub fn exp(x: f32) -> f32 {
    const ROUND: f32 = 12_582_912.0;
    let x = x.clamp(-87.3, 88.3);
    let power = x * std::f32::consts::LOG2_E + ROUND;
    let whole = power - ROUND;
    let rest = x - whole * 0.693_359_4 + whole * 2.121_944_4e-4;
    let mut sum = 1.987_569_1e-4;
    for factor in [1.398_199_9e-3, 8.333_452e-3, 4.166_579_6e-2, 1.666_666_5e-1, 0.5] {
        sum = sum * rest + factor;
    }
    let mantissa = sum * rest * rest + rest + 1.0;
    // The low bits of `power` are the whole number: put it into the exponent.
    let exponent = (power.to_bits().wrapping_sub(ROUND.to_bits()).wrapping_add(127)) << 23;
    mantissa * f32::from_bits(exponent)
}

/// `gate[i] = gelu(gate[i]) · up[i]`, with the tanh form of GELU.
#[inline(always)]
pub fn gelu_gate(gate: &mut [f32], up: &[f32]) {
    for (gate, up) in gate.iter_mut().zip(up) {
        // (1 + tanh y) / 2 is 1 / (1 + e^−2y).
        let y = 0.797_884_6 * *gate * (1.0 + 0.044_715 * *gate * *gate);
        *gate = *gate / (1.0 + exp(-2.0 * y)) * up;
    }
}

/// `gate[i] = silu(gate[i]) · up[i]`.
#[inline(always)]
pub fn silu_gate(gate: &mut [f32], up: &[f32]) {
    for (gate, up) in gate.iter_mut().zip(up) {
        *gate = *gate / (1.0 + exp(-*gate)) * up;
    }
}

/// `x[i] = limit · tanh(x[i] / limit)`.
#[inline(always)]
pub fn soft_cap(x: &mut [f32], limit: f32) {
    for x in x {
        *x = limit * (1.0 - 2.0 / (1.0 + exp(2.0 * *x / limit)));
    }
}

#[inline(always)]
fn lanes(values: &[f32], start: f32, fold: impl Fn(f32, f32) -> f32, join: impl Fn(f32, f32) -> f32) -> f32 {
    let mut lanes = [start; 16];
    let (chunks, rest) = values.as_chunks::<16>();
    for chunk in chunks {
        for i in 0..16 {
            lanes[i] = fold(lanes[i], chunk[i]);
        }
    }
    for (i, &value) in rest.iter().enumerate() {
        lanes[i] = fold(lanes[i], value);
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
fn larger(a: f32, b: f32) -> f32 {
    if a > b { a } else { b }
}

/// Scales `x` so that its root mean square is 1, then by `weight`, into `out`.
#[inline(always)]
#[expect(clippy::cast_precision_loss, reason = "a width")]
pub fn rms_norm(x: &[f32], weight: &[f32], epsilon: f32, out: &mut [f32]) {
    let squares = lanes(x, 0.0, |sum, x| sum + x * x, |a, b| a + b);
    let scale = 1.0 / (squares / x.len() as f32 + epsilon).sqrt();
    for ((out, x), weight) in out.iter_mut().zip(x).zip(weight) {
        *out = x * scale * weight;
    }
}

/// Replaces scores by their exponentials over that of the largest, or of `floor` if that is larger. Returns it, and their sum.
#[inline(always)]
pub fn exponentials(scores: &mut [f32], floor: f32) -> (f32, f32) {
    let most = lanes(scores, floor, larger, larger);
    for score in scores.iter_mut() {
        *score = exp(*score - most);
    }
    (most, lanes(scores, 0.0, |sum, x| sum + x, |a, b| a + b))
}

#[inline(always)]
pub fn scale(x: &mut [f32], factor: f32) {
    for x in x {
        *x *= factor;
    }
}

#[inline(always)]
pub fn add(sum: &mut [f32], x: &[f32]) {
    for (sum, x) in sum.iter_mut().zip(x) {
        *sum += x;
    }
}

/// Rotates one head. `angles` holds a cosine and a sine for each pair; pairs are neighbours, or half the rotated part apart.
#[inline(always)]
pub fn rotate(head: &mut [f32], angles: &[[f32; 2]], neighbours: bool) {
    if neighbours {
        for (pair, [cos, sin]) in head.as_chunks_mut::<2>().0.iter_mut().zip(angles) {
            *pair = [pair[0] * cos - pair[1] * sin, pair[0] * sin + pair[1] * cos];
        }
    } else {
        let (first, second) = head.split_at_mut(angles.len());
        for ((a, b), [cos, sin]) in first.iter_mut().zip(second).zip(angles) {
            (*a, *b) = (*a * cos - *b * sin, *a * sin + *b * cos);
        }
    }
}
