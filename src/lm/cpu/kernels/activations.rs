//! Activations in 8-bit blocks of 32, as ggml's Q8_0 has them: what quantised weights are multiplied with.

/// Values that share a scale.
pub const GROUP: usize = 32;

/// Rows of activations. Row `r`'s group `g` is at `r * groups + g` of the three lists.
#[derive(Debug, Clone, Default)]
pub struct Activations {
    pub rows: usize,
    /// Groups in a row.
    pub groups: usize,
    pub quants: Vec<i8>,
    pub scales: Vec<f32>,
    /// Sums of the first and the last 16 of a group's quants, times −32 (what [`super::simd::Simd::dot`] takes).
    pub halves: Vec<[i32; 2]>,
    /// A group's scale times the sum of its quants.
    pub sums: Vec<f32>,
}

impl Activations {
    /// Room for `rows` rows of `columns` values, a multiple of [`GROUP`].
    pub fn new(rows: usize, columns: usize) -> Self {
        let groups = columns / GROUP;
        Self {
            rows,
            groups,
            quants: vec![0; rows * columns],
            scales: vec![0.0; rows * groups],
            halves: vec![[0; 2]; rows * groups],
            sums: vec![0.0; rows * groups],
        }
    }
}

/// Fills groups from as many 32s of `values`. All slices cover the same groups.
#[inline(always)]
pub fn quantize(values: &[f32], quants: &mut [i8], scales: &mut [f32], halves: &mut [[i32; 2]], sums: &mut [f32]) {
    let (values, _) = values.as_chunks::<GROUP>();
    let (quants, _) = quants.as_chunks_mut::<GROUP>();
    for ((((values, quants), scale), halves), sum) in values.iter().zip(quants).zip(scales).zip(halves).zip(sums) {
        (*scale, *halves) = group(values, quants);
        #[expect(clippy::cast_precision_loss, reason = "at most 32 · 127 · 32")]
        let total = (halves[0] + halves[1]) as f32;
        *sum = *scale * total / -32.0;
    }
}

/// Adding 1.5 · 2^23 leaves the integer nearest to a small number in the low bits of the sum.
const ROUND: f32 = 12_582_912.0;

#[inline(always)]
fn group(values: &[f32; GROUP], quants: &mut [i8; GROUP]) -> (f32, [i32; 2]) {
    let mut lanes = [0_f32; 16];
    for (i, value) in values.iter().enumerate() {
        lanes[i % 16] = lanes[i % 16].max(value.abs());
    }
    let largest = lanes.iter().fold(0_f32, |a, &b| if a > b { a } else { b });
    let scale = largest / 127.0;
    let inverse = if largest > 0.0 { 127.0 / largest } else { 0.0 };
    let mut halves = [0_i32; 2];
    for (i, (value, quant)) in values.iter().zip(quants.iter_mut()).enumerate() {
        let rounded = (value * inverse + ROUND).to_bits().cast_signed() - ROUND.to_bits().cast_signed();
        #[expect(clippy::cast_possible_truncation, reason = "within ±127 by the choice of scale")]
        {
            *quant = rounded as i8;
        }
        halves[i / 16] += rounded;
    }
    (scale, [-32 * halves[0], -32 * halves[1]])
}
