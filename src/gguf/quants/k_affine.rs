//! Q4_K and Q5_K: super-blocks of eight groups of 32, each with a scale and a minimum of six bits.

use super::affine::{Found, Search};
use super::floats::{from_half, half};
use super::isa::for_each_isa;
use super::lanes::{Groups, LANES, Lane, ZERO, byte, each, lanes, nearest, side_by_side};
use super::scales::{fit_positive, pack_six_bits};
use super::unpack::scale_and_least;
use super::vector::Machine;
use super::weights::{self, Importance};

/// Numbers in a super-block.
const SIZE: usize = 256;
/// Numbers in a group.
const GROUP: usize = 32;
/// Groups in a super-block.
const GROUPS: usize = SIZE / GROUP;
/// Numbers taken at once: two super-blocks fill the lanes.
const PASS: usize = LANES * GROUP;

const PLAIN_4: Search = Search { most: 15, start: -1.0, delta: 0.1, steps: 20, absolute: false, careful: false };
const PLAIN_5: Search = Search { most: 31, start: -0.5, delta: 0.1, steps: 15, absolute: false, careful: false };
pub(super) const WEIGHTED_4: Search = Search { most: 15, ..WEIGHTED_5 };
pub(super) const WEIGHTED_5: Search = Search { most: 31, start: -0.9, delta: 0.05, steps: 36, absolute: false, careful: true };

for_each_isa! {
    pub(super) fn encode_q4_k[m](numbers: &[f32], out: &mut [u8]) {
        plain(m, PLAIN_4, numbers, out, pack_4);
    }

    pub(super) fn encode_q5_k[m](numbers: &[f32], out: &mut [u8]) {
        plain(m, PLAIN_5, numbers, out, pack_5);
    }

    pub(super) fn encode_q4_k_weighted[m](numbers: &[f32], importance: Importance<'_>, out: &mut [u8]) {
        weighted(m, WEIGHTED_4, numbers, importance, out, pack_4);
    }

    pub(super) fn encode_q5_k_weighted[m](numbers: &[f32], importance: Importance<'_>, out: &mut [u8]) {
        weighted(m, WEIGHTED_5, numbers, importance, out, pack_5);
    }
}

/// The scales of a super-block as they are stored.
struct Scales {
    scale: u16,
    least: u16,
    packed: [u8; 12],
}

#[inline(always)]
fn plain<M: Machine, const BYTES: usize>(
    m: M,
    search: Search,
    numbers: &[f32],
    out: &mut [u8],
    pack: impl Fn(&[u8; SIZE], &mut [u8; BYTES]),
) {
    let mut groups: Groups<GROUP> = [ZERO; GROUP];
    let mut weights = groups;
    for (numbers, out) in numbers.chunks(PASS).zip(out.as_chunks_mut::<BYTES>().0.chunks_mut(PASS / SIZE)) {
        side_by_side(numbers, &mut groups);
        weights::by_magnitude(&groups, &mut weights);
        let (found, _) = search.run(m, &groups, &weights);
        for (i, (block, out)) in numbers.as_chunks::<SIZE>().0.iter().zip(out).enumerate() {
            let scales = plain_scales(&found.scale, &found.least, i * GROUPS);
            finish(&search, &found, &scales, i * GROUPS, block, out, &pack);
        }
    }
}

#[inline(always)]
fn weighted<M: Machine, const BYTES: usize>(
    m: M,
    search: Search,
    numbers: &[f32],
    importance: Importance<'_>,
    out: &mut [u8],
    pack: impl Fn(&[u8; SIZE], &mut [u8; BYTES]),
) {
    let mut groups: Groups<GROUP> = [ZERO; GROUP];
    let mut weights = groups;
    for (pass, (numbers, out)) in numbers.chunks(PASS).zip(out.as_chunks_mut::<BYTES>().0.chunks_mut(PASS / SIZE)).enumerate() {
        side_by_side(numbers, &mut groups);
        side_by_side(&importance.columns::<PASS>(pass * PASS), &mut weights);
        let spread = weights::spread_of_blocks::<SIZE>(numbers, 2.0);
        weights::by_importance(&groups, &lanes(|k| spread[k / GROUPS]), &mut weights);
        let (found, sums) = search.run(m, &groups, &weights);
        for (i, (block, out)) in numbers.as_chunks::<SIZE>().0.iter().zip(out).enumerate() {
            let scales = weighted_scales(&found.scale, &found.least, &sums, i * GROUPS);
            finish(&search, &found, &scales, i * GROUPS, block, out, &pack);
        }
    }
}

#[inline(always)]
fn plain_scales(scale: &Lane, least: &Lane, at: usize) -> Scales {
    let (scale, least) = (&scale[at..at + GROUPS], &least[at..at + GROUPS]);
    let (largest, inverse) = largest(scale);
    let (deepest, inverse_least) = self::largest(least);
    let (mut scales, mut leasts) = ([0; GROUPS], [0; GROUPS]);
    for j in 0..GROUPS {
        scales[j] = byte(nearest(inverse * scale[j])).min(63);
        leasts[j] = byte(nearest(inverse_least * least[j])).min(63);
    }
    let mut packed = [0; 12];
    pack_six_bits(&scales, &leasts, &mut packed);
    Scales { scale: half(largest / 63.0), least: half(deepest / 63.0), packed }
}

/// The largest number that is above zero, and what takes it to 63.
#[inline(always)]
fn largest(numbers: &[f32]) -> (f32, f32) {
    let largest = numbers.iter().fold(0.0, |largest, v| if *v > largest { *v } else { largest });
    (largest, if largest > 0.0 { 63.0 / largest } else { 0.0 })
}

#[inline(always)]
fn weighted_scales(scale: &Lane, least: &Lane, weights: &Lane, at: usize) -> Scales {
    let weights = &weights[at..at + GROUPS];
    let (mut scales, mut leasts) = ([0; GROUPS], [0; GROUPS]);
    let largest = fit_positive(63, &scale[at..at + GROUPS], weights, &mut scales);
    let deepest = fit_positive(63, &least[at..at + GROUPS], weights, &mut leasts);
    let mut packed = [0; 12];
    pack_six_bits(&scales, &leasts, &mut packed);
    Scales { scale: half(largest), least: half(deepest), packed }
}

/// Rounds the numbers of a super-block by the scales as they are stored, and packs everything.
#[inline(always)]
fn finish<const BYTES: usize>(
    search: &Search,
    found: &Found,
    scales: &Scales,
    lane: usize,
    block: &[f32; SIZE],
    out: &mut [u8; BYTES],
    pack: impl Fn(&[u8; SIZE], &mut [u8; BYTES]),
) {
    out[..2].copy_from_slice(&scales.scale.to_le_bytes());
    out[2..4].copy_from_slice(&scales.least.to_le_bytes());
    out[4..16].copy_from_slice(&scales.packed);
    let (scale, least) = (from_half(scales.scale), from_half(scales.least));
    let mut quants = [0; SIZE];
    for (j, (numbers, quants)) in block.as_chunks::<GROUP>().0.iter().zip(quants.as_chunks_mut::<GROUP>().0).enumerate() {
        let (scale_6, least_6) = scale_and_least(&scales.packed, j);
        let scale = scale * f32::from(scale_6);
        if scale == 0.0 {
            // ggml leaves what the search had found.
            search.quants(found, lane + j, numbers, quants);
            continue;
        }
        let least = least * f32::from(least_6);
        for (quant, number) in quants.iter_mut().zip(numbers) {
            *quant = byte(nearest((number + least) / scale).min(search.most).max(0));
        }
    }
    pack(&quants, out);
}

#[inline(always)]
fn pack_4(quants: &[u8; SIZE], out: &mut [u8; 144]) {
    pack_pairs(quants, &mut out[16..]);
}

#[inline(always)]
fn pack_5(quants: &[u8; SIZE], out: &mut [u8; 176]) {
    for j in 0..GROUP {
        out[16 + j] = 0;
    }
    for (group, quants) in quants.as_chunks::<GROUP>().0.iter().enumerate() {
        for j in 0..GROUP {
            out[16 + j] |= (quants[j] >> 4) << group;
        }
    }
    pack_pairs(&each(quants, |quant| quant & 15), &mut out[48..]);
}

/// Two groups share their bytes.
#[inline(always)]
fn pack_pairs(quants: &[u8; SIZE], out: &mut [u8]) {
    for (pair, out) in quants.as_chunks::<{ 2 * GROUP }>().0.iter().zip(out.as_chunks_mut::<GROUP>().0) {
        for j in 0..GROUP {
            out[j] = pair[j] | pair[j + GROUP] << 4;
        }
    }
}
