//! Many tokens at a time: 16 rows of weights are unpacked once into a tile that stays in the nearest cache, and every token
//! is multiplied with it.

#![expect(
    unsafe_code,
    reason = "packed rows, tiles and stripes of the output are reached through pointers, whose bounds the entrances check"
)]

use super::activations::Activations;
use super::formats::Format;
use super::simd::{LANES, Simd, Wide};

/// 16 rows of weights, unpacked: `quants` four neighbouring columns at a time for all rows, `scales` and `mins` group by group.
#[derive(Debug, Default)]
pub struct Tile {
    quants: Vec<i8>,
    scales: Vec<f32>,
    mins: Vec<f32>,
    row: Vec<i8>,
}

impl Tile {
    fn resize(&mut self, groups: usize) {
        self.quants.resize(groups * 32 * LANES, 0);
        self.scales.resize(groups * 2 * LANES, 0.0);
        self.mins.resize(groups * LANES, 0.0);
        self.row.resize(groups * 32, 0);
    }
}

/// Where the products of a tile go: `out[token * stride + lane]`.
#[derive(Debug, Clone, Copy)]
pub struct Stripe {
    pub at: *mut f32,
    pub stride: usize,
    /// Lanes that are written, at most [`LANES`].
    pub width: usize,
}

/// Multiplies all rows of `input` with up to 16 packed rows.
///
/// # Panics
/// When `weights` has fewer than `out.width` rows.
///
/// # Safety
/// The machine has the features of `S`, and `out` may be written for every token of `input`.
#[inline(always)]
pub unsafe fn product<F: Format, S: Simd + Wide>(weights: &[u8], input: &Activations, tile: &mut Tile, out: Stripe) {
    let row_bytes = input.groups / F::GROUPS * F::BYTES;
    assert!(out.width <= LANES && weights.len() >= row_bytes * out.width, "fewer rows than lanes");
    assert!(input.groups.is_multiple_of(F::GROUPS), "rows of another length");
    tile.resize(input.groups);
    for lane in 0..out.width {
        // SAFETY: the row lies within `weights`, checked above; the tile has been made large enough.
        unsafe { unpack::<F, S>(&weights[lane * row_bytes..(lane + 1) * row_bytes], lane, tile) };
    }
    let mut token = 0;
    // SAFETY: `token` and the tokens behind it are rows of `input`; the caller vouches for `out`.
    unsafe {
        while token + <S as Wide>::TOKENS <= input.rows {
            match <S as Wide>::TOKENS {
                8 => tokens::<F, S, 8>(tile, input, token, out),
                _ => tokens::<F, S, 2>(tile, input, token, out),
            }
            token += <S as Wide>::TOKENS;
        }
        while token < input.rows {
            tokens::<F, S, 1>(tile, input, token, out);
            token += 1;
        }
    }
}

/// Writes one row into its lane of the tile.
#[inline(always)]
unsafe fn unpack<F: Format, S: Simd + Wide>(row: &[u8], lane: usize, tile: &mut Tile) {
    for (index, block) in row.chunks_exact(F::BYTES).enumerate() {
        // SAFETY: `block` is a whole block.
        let scales = unsafe { F::scales::<S>(block.as_ptr()) };
        for group in 0..F::GROUPS {
            let at = index * F::GROUPS + group;
            // SAFETY: as above; `row` has 32 places for each group.
            unsafe { <S as Simd>::store(F::quants::<S>(block.as_ptr(), group), tile.row.as_mut_ptr().add(32 * at)) };
            if F::HALVES {
                tile.scales[2 * at * LANES + lane] = scales.scale[2 * group];
                tile.scales[(2 * at + 1) * LANES + lane] = scales.scale[2 * group + 1];
            } else {
                tile.scales[at * LANES + lane] = scales.scale[group];
            }
            if F::MINS {
                tile.mins[at * LANES + lane] = scales.min[group];
            }
        }
    }
    let bias: u32 = if <S as Wide>::BIASED { 0x8080_8080 } else { 0 };
    // SAFETY: the tile has 16 times as many quants as the row, four at a time.
    unsafe {
        let from = tile.row.as_ptr().cast::<[u8; 4]>();
        let to = tile.quants.as_mut_ptr().cast::<[u8; 4]>();
        for four in 0..tile.row.len() / 4 {
            let quants = u32::from_ne_bytes(from.add(four).read()) ^ bias;
            to.add(four * LANES + lane).write(quants.to_ne_bytes());
        }
    }
}

#[inline(always)]
unsafe fn tokens<F: Format, S: Wide, const N: usize>(tile: &Tile, input: &Activations, first: usize, out: Stripe) {
    unsafe {
        let groups = input.groups;
        let quants = input.quants.as_ptr().add(first * groups * 32);
        let scales = input.scales.as_ptr().add(first * groups);
        let halves = input.halves.as_ptr().add(first * groups);
        let sums = input.sums.as_ptr().add(first * groups);
        let mut totals = [S::zero(); N];
        for group in 0..groups {
            let parts = if F::HALVES { 2 } else { 1 };
            for part in 0..parts {
                let columns = 32 / parts;
                let weights = tile.quants.as_ptr().add((32 * group + columns * part) * LANES);
                let mut products = [S::start(0); N];
                for (n, product) in products.iter_mut().enumerate() {
                    let [low, high] = *halves.add(n * groups + group);
                    *product = S::start(4 * if F::HALVES { [low, high][part] } else { low + high });
                }
                for four in 0..columns / 4 {
                    let w = S::load(weights.add(4 * four * LANES));
                    for (n, product) in products.iter_mut().enumerate() {
                        *product = S::dot4(*product, w, quants.add((n * groups + group) * 32 + columns * part + 4 * four));
                    }
                }
                let scale = S::load_floats(tile.scales.as_ptr().add((parts * group + part) * LANES));
                for n in 0..N {
                    let both = S::mul(scale, S::splat(*scales.add(n * groups + group)));
                    totals[n] = S::fma(S::to_floats(products[n]), both, totals[n]);
                }
            }
            if F::MINS {
                let min = S::load_floats(tile.mins.as_ptr().add(group * LANES));
                for (n, total) in totals.iter_mut().enumerate() {
                    *total = S::fma(min, S::splat(-*sums.add(n * groups + group)), *total);
                }
            }
        }
        for (n, total) in totals.iter().enumerate() {
            let to = out.at.add((first + n) * out.stride);
            if out.width == LANES {
                S::store(*total, to);
            } else {
                let mut all = [0_f32; LANES];
                S::store(*total, all.as_mut_ptr());
                std::ptr::copy_nonoverlapping(all.as_ptr(), to, out.width);
            }
        }
    }
}
