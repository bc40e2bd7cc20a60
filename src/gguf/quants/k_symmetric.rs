//! Q6_K: super-blocks of sixteen groups of 16, each with a scale of eight bits.

use super::floats::{from_half, half};
use super::isa::for_each_isa;
use super::lanes::{Groups, LANES, ZERO, byte, nearest, side_by_side};
use super::symmetric::{Found, NOTHING, search};
use super::vector::Machine;
use super::weights::{Importance, by_square};

/// Numbers in a super-block.
const SIZE: usize = 256;
/// Numbers in a group.
const GROUP: usize = 16;
/// Quants go from minus this up to one less than this.
const MOST_6: i32 = 32;

for_each_isa! {
    pub(super) fn encode_q6_k[m](numbers: &[f32], out: &mut [u8]) {
        q6_k(m, numbers, out, |x, weights, _| by_square(x, weights));
    }

    pub(super) fn encode_q6_k_weighted[m](numbers: &[f32], importance: Importance<'_>, out: &mut [u8]) {
        q6_k(m, numbers, out, |_, weights, at| side_by_side(&importance.columns::<SIZE>(at), weights));
    }
}

#[inline(always)]
fn q6_k<M: Machine>(m: M, numbers: &[f32], out: &mut [u8], weigh: impl Fn(&Groups<GROUP>, &mut Groups<GROUP>, usize)) {
    let mut groups: Groups<GROUP> = [ZERO; GROUP];
    let mut weights = groups;
    let mut products = groups;
    for (i, (block, out)) in numbers.as_chunks::<SIZE>().0.iter().zip(out.as_chunks_mut::<210>().0).enumerate() {
        side_by_side(block, &mut groups);
        weigh(&groups, &mut weights, i * SIZE);
        multiply(&groups, &weights, &mut products);
        let found = search(m, MOST_6, &groups, &weights, &products);
        finish(&found, block, out);
    }
}

#[inline(always)]
pub(super) fn multiply<const N: usize>(x: &Groups<N>, weights: &Groups<N>, products: &mut Groups<N>) {
    for i in 0..N {
        for k in 0..LANES {
            products[i][k] = weights[i][k] * x[i][k];
        }
    }
}

/// The scale of largest magnitude, the first of equals.
#[inline(always)]
pub(super) fn extreme(scales: &[f32]) -> f32 {
    scales.iter().fold(0.0, |extreme: f32, scale| if scale.abs() > extreme.abs() { *scale } else { extreme })
}

#[inline(always)]
fn finish(found: &Found, block: &[f32; SIZE], out: &mut [u8; 210]) {
    let extreme = extreme(&found.scale);
    if extreme.abs() < NOTHING {
        out.fill(0);
        return;
    }
    let inverse = -128.0 / extreme;
    let scale = half(1.0 / inverse);
    let mut quants = [0; SIZE];
    for (j, (numbers, quants)) in block.as_chunks::<GROUP>().0.iter().zip(quants.as_chunks_mut::<GROUP>().0).enumerate() {
        let scale_8 = byte(nearest(inverse * found.scale[j]).min(127));
        out[192 + j] = scale_8;
        round(found, MOST_6, j, from_half(scale) * f32::from(scale_8.cast_signed()), numbers, quants);
    }
    out[208..].copy_from_slice(&scale.to_le_bytes());
    pack_6(&quants, out);
}

/// The quants of a group, from zero up, by the scale as it is stored.
#[inline(always)]
pub(super) fn round(found: &Found, most: i32, lane: usize, scale: f32, numbers: &[f32; GROUP], quants: &mut [u8; GROUP]) {
    if scale == 0.0 {
        // ggml leaves what the search had found.
        found.quants(most, lane, numbers, quants);
        return;
    }
    for (quant, number) in quants.iter_mut().zip(numbers) {
        *quant = byte(nearest(number / scale).min(most - 1).max(-most) + most);
    }
}

/// Of each 128 numbers, four bits lie in 64 bytes and two in 32.
#[inline(always)]
fn pack_6(quants: &[u8; SIZE], out: &mut [u8; 210]) {
    for (half, quants) in quants.as_chunks::<128>().0.iter().enumerate() {
        let (low, high) = (64 * half, 128 + 32 * half);
        for l in 0..64 {
            out[low + l] = quants[l] & 15 | quants[l + 64] << 4;
        }
        for l in 0..32 {
            out[high + l] = quants[l] >> 4 | quants[l + 32] >> 4 << 2 | quants[l + 64] >> 4 << 4 | quants[l + 96] >> 4 << 6;
        }
    }
}
