//! Q2_K: super-blocks of sixteen groups of 16, each with a scale and a minimum of four bits.

use super::affine::{Found, Search};
use super::floats::{from_half, half};
use super::isa::for_each_isa;
use super::k_affine::WEIGHTED_5;
use super::lanes::{Groups, LANES, Lane, ZERO, byte, nearest, side_by_side};
use super::scales::fit_positive;
use super::vector::Machine;
use super::weights::{self, Importance};

/// Numbers in a super-block.
const SIZE: usize = 256;
/// Numbers in a group.
const GROUP: usize = 16;

const PLAIN: Search = Search { most: 3, start: -0.5, delta: 0.1, steps: 15, absolute: true, careful: false };
const WEIGHTED: Search = Search { most: 3, ..WEIGHTED_5 };

for_each_isa! {
    pub(super) fn encode_q2_k[m](numbers: &[f32], out: &mut [u8]) {
        encode(m, PLAIN, numbers, out, |x, weights, _, _| weights::by_size(x, weights), |numbers, _, quants| fit_largest(numbers, quants));
    }

    pub(super) fn encode_q2_k_weighted[m](numbers: &[f32], importance: Importance<'_>, out: &mut [u8]) {
        let weigh = |x: &Groups<GROUP>, weights: &mut Groups<GROUP>, block: &[f32; SIZE], at: usize| {
            side_by_side(&importance.columns::<SIZE>(at), weights);
            let [spread, ..] = weights::spread_of_blocks::<SIZE>(block, 1.0);
            weights::by_importance(x, &[spread; LANES], weights);
        };
        encode(m, WEIGHTED, numbers, out, weigh, |numbers, weights, quants| fit_positive(15, numbers, weights, quants));
    }
}

#[inline(always)]
fn encode<M: Machine>(
    m: M,
    search: Search,
    numbers: &[f32],
    out: &mut [u8],
    weigh: impl Fn(&Groups<GROUP>, &mut Groups<GROUP>, &[f32; SIZE], usize),
    fit: impl Fn(&Lane, &Lane, &mut [u8; LANES]) -> f32,
) {
    let mut groups: Groups<GROUP> = [ZERO; GROUP];
    let mut weights = groups;
    for (i, (block, out)) in numbers.as_chunks::<SIZE>().0.iter().zip(out.as_chunks_mut::<84>().0).enumerate() {
        side_by_side(block, &mut groups);
        weigh(&groups, &mut weights, block, i * SIZE);
        let (found, sums) = search.run(m, &groups, &weights);
        let (mut scales, mut leasts) = ([0; LANES], [0; LANES]);
        let scale = half(fit(&found.scale, &sums, &mut scales));
        let least = half(fit(&found.least, &sums, &mut leasts));
        for j in 0..LANES {
            out[j] = scales[j] | leasts[j] << 4;
        }
        out[80..82].copy_from_slice(&scale.to_le_bytes());
        out[82..].copy_from_slice(&least.to_le_bytes());
        finish(&search, &found, block, out);
    }
}

/// The scale that takes the largest number to 15, and each number's quant.
#[inline(always)]
fn fit_largest(numbers: &Lane, quants: &mut [u8; LANES]) -> f32 {
    let largest = numbers.iter().fold(0.0, |largest, v| if *v > largest { *v } else { largest });
    if largest > 0.0 {
        let inverse = 15.0 / largest;
        *quants = numbers.map(|v| byte(nearest(inverse * v)));
        return largest / 15.0;
    }
    *quants = [0; LANES];
    0.0
}

/// Rounds the numbers of a super-block by the scales as they are stored.
#[inline(always)]
fn finish(search: &Search, found: &Found, block: &[f32; SIZE], out: &mut [u8; 84]) {
    let (scale, least) = (from_half(u16::from_le_bytes([out[80], out[81]])), from_half(u16::from_le_bytes([out[82], out[83]])));
    let mut quants = [0; SIZE];
    for (j, (numbers, quants)) in block.as_chunks::<GROUP>().0.iter().zip(quants.as_chunks_mut::<GROUP>().0).enumerate() {
        let scale = scale * f32::from(out[j] & 15);
        if scale == 0.0 {
            // ggml leaves what the search had found.
            search.quants(found, j, numbers, quants);
            continue;
        }
        let least = least * f32::from(out[j] >> 4);
        for (quant, number) in quants.iter_mut().zip(numbers) {
            *quant = byte(nearest((number + least) / scale).min(search.most).max(0));
        }
    }
    pack_pairs_of_bits(&quants, &mut out[16..80]);
}

/// Of each 128 numbers, a byte holds those at `l`, `l + 32`, `l + 64` and `l + 96`.
#[inline(always)]
pub(super) fn pack_pairs_of_bits(quants: &[u8; SIZE], out: &mut [u8]) {
    for (quants, out) in quants.as_chunks::<128>().0.iter().zip(out.as_chunks_mut::<32>().0) {
        for l in 0..32 {
            out[l] = quants[l] | quants[l + 32] << 2 | quants[l + 64] << 4 | quants[l + 96] << 6;
        }
    }
}
