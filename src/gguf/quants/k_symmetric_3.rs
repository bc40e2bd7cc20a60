//! Q3_K: super-blocks of sixteen groups of 16, each with a scale of six bits.

use super::floats::{from_half, half};
use super::isa::for_each_isa;
use super::k_affine_2::pack_pairs_of_bits;
use super::k_symmetric::{extreme, multiply, round};
use super::lanes::{Groups, LANES, Lane, ZERO, byte, each, nearest, side_by_side};
use super::scales::fit_signed;
use super::symmetric::{Found, descend, search};
use super::weights::{self, Importance};

/// Numbers in a super-block.
const SIZE: usize = 256;
/// Numbers in a group.
const GROUP: usize = 16;
/// Quants go from minus this up to one less than this.
const MOST: i32 = 4;

for_each_isa! {
    pub(super) fn encode_q3_k[m](numbers: &[f32], out: &mut [u8]) {
        let mut groups: Groups<GROUP> = [ZERO; GROUP];
        for (block, out) in numbers.as_chunks::<SIZE>().0.iter().zip(out.as_chunks_mut::<110>().0) {
            side_by_side(block, &mut groups);
            let found = descend(m, MOST, &groups);
            let mut scales = [0; LANES];
            let scale = fit_extreme(&found.scale, &mut scales);
            finish(&scales, scale, block, out, |lane, scale, numbers, quants| {
                if scale == 0.0 {
                    for (quant, found) in quants.iter_mut().zip(&found.quants) {
                        *quant = found[lane];
                    }
                    return;
                }
                for (quant, number) in quants.iter_mut().zip(numbers) {
                    *quant = byte(nearest(number / scale).clamp(-MOST, MOST - 1) + MOST);
                }
            });
        }
    }

    pub(super) fn encode_q3_k_weighted[m](numbers: &[f32], importance: Importance<'_>, out: &mut [u8]) {
        let mut groups: Groups<GROUP> = [ZERO; GROUP];
        let mut weights = groups;
        let mut products = groups;
        for (i, (block, out)) in numbers.as_chunks::<SIZE>().0.iter().zip(out.as_chunks_mut::<110>().0).enumerate() {
            side_by_side(block, &mut groups);
            side_by_side(&importance.columns::<SIZE>(i * SIZE), &mut weights);
            let [spread, ..] = weights::spread_of_blocks::<SIZE>(block, 2.0);
            weights::by_importance(&groups, &[spread; LANES], &mut weights);
            multiply(&groups, &weights, &mut products);
            let found: Found = search(m, MOST, &groups, &weights, &products);
            let mut scales = [0; LANES];
            let scale = fit_signed(32, &found.scale, &weights::sums(&weights), &mut scales);
            finish(&scales, scale, block, out, |lane, scale, numbers, quants| round(&found, MOST, lane, scale, numbers, quants));
        }
    }
}

/// The scale that takes the largest scale to -32, and each one's quant, from zero up.
#[inline(always)]
fn fit_extreme(scales: &Lane, quants: &mut [u8; LANES]) -> f32 {
    let extreme = extreme(scales);
    if extreme == 0.0 {
        return 0.0;
    }
    let inverse = -32.0 / extreme;
    *quants = scales.map(|scale| (byte(nearest(inverse * scale)).cast_signed().clamp(-32, 31) + 32).cast_unsigned());
    1.0 / inverse
}

/// Packs the scales, rounds the numbers by the scales as they are stored, and packs them.
#[inline(always)]
fn finish(
    scales: &[u8; LANES],
    scale: f32,
    block: &[f32; SIZE],
    out: &mut [u8; 110],
    round: impl Fn(usize, f32, &[f32; GROUP], &mut [u8; GROUP]),
) {
    let scale = half(scale);
    let mut quants = [0; SIZE];
    for (j, (numbers, quants)) in block.as_chunks::<GROUP>().0.iter().zip(quants.as_chunks_mut::<GROUP>().0).enumerate() {
        round(j, from_half(scale) * (f32::from(scales[j]) - 32.0), numbers, quants);
    }
    for j in 0..32 {
        out[j] = (0..8).fold(0, |bits, group| bits | (quants[32 * group + j] >> 2) << group);
    }
    pack_pairs_of_bits(&each(&quants, |quant| quant & 3), &mut out[32..96]);
    pack_scales(scales, &mut out[96..108]);
    out[108..].copy_from_slice(&scale.to_le_bytes());
}

/// The low four bits of sixteen scales in eight bytes, and the high two in four.
#[inline(always)]
fn pack_scales(scales: &[u8; LANES], out: &mut [u8]) {
    for j in 0..8 {
        out[j] = scales[j] & 15 | scales[j + 8] << 4;
    }
    for j in 0..4 {
        out[8 + j] = scales[j] >> 4 | scales[j + 4] >> 4 << 2 | scales[j + 8] >> 4 << 4 | scales[j + 12] >> 4 << 6;
    }
}
