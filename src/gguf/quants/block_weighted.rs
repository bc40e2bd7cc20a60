//! Q4_0, Q4_1, Q5_0 and Q5_1 where there is an importance matrix: then ggml searches for their scales too.

use super::affine::Search;
use super::isa::for_each_isa;
use super::k_affine::{WEIGHTED_4, WEIGHTED_5};
use super::k_symmetric::multiply;
use super::lanes::{Groups, LANES, Lane, ZERO, side_by_side};
use super::simple::{SIZE, fifth_bits, pack_nibbles, put_half};
use super::symmetric;
use super::vector::Machine;
use super::weights::{self, Importance, sum_of_squares};

/// Numbers taken at once.
const PASS: usize = LANES * SIZE;

for_each_isa! {
    pub(super) fn encode_q4_0_weighted[m](numbers: &[f32], importance: Importance<'_>, out: &mut [u8]) {
        scaled(m, 8, numbers, importance, out, |quants, out: &mut [u8; 18]| pack_nibbles(quants, &mut out[2..]));
    }

    pub(super) fn encode_q5_0_weighted[m](numbers: &[f32], importance: Importance<'_>, out: &mut [u8]) {
        scaled(m, 16, numbers, importance, out, |quants, out: &mut [u8; 22]| {
            out[2..6].copy_from_slice(&fifth_bits(quants));
            pack_nibbles(quants, &mut out[6..]);
        });
    }

    pub(super) fn encode_q4_1_weighted[m](numbers: &[f32], importance: Importance<'_>, out: &mut [u8]) {
        lifted(m, WEIGHTED_4, numbers, importance, out, |quants, out: &mut [u8; 20]| pack_nibbles(quants, &mut out[4..]));
    }

    pub(super) fn encode_q5_1_weighted[m](numbers: &[f32], importance: Importance<'_>, out: &mut [u8]) {
        lifted(m, WEIGHTED_5, numbers, importance, out, |quants, out: &mut [u8; 24]| {
            out[4..8].copy_from_slice(&fifth_bits(quants));
            pack_nibbles(quants, &mut out[8..]);
        });
    }
}

/// Blocks with a scale only.
#[inline(always)]
fn scaled<M: Machine, const BYTES: usize>(
    m: M,
    most: i32,
    numbers: &[f32],
    importance: Importance<'_>,
    out: &mut [u8],
    pack: impl Fn(&[u8; SIZE], &mut [u8; BYTES]),
) {
    let mut rows = Rows::new(numbers, importance);
    let mut products: Groups<SIZE> = [ZERO; SIZE];
    for (pass, (part, out)) in numbers.chunks(PASS).zip(out.as_chunks_mut::<BYTES>().0.chunks_mut(LANES)).enumerate() {
        rows.take(pass * PASS, part);
        multiply(&rows.groups, &rows.weights, &mut products);
        let found = symmetric::search(m, most, &rows.groups, &rows.weights, &products);
        for (lane, (block, out)) in part.as_chunks::<SIZE>().0.iter().zip(out).enumerate() {
            let mut quants = [0; SIZE];
            found.quants(most, lane, block, &mut quants);
            put_half(found.scale[lane], out);
            pack(&quants, out);
        }
    }
}

/// Blocks with a scale and a minimum.
#[inline(always)]
fn lifted<M: Machine, const BYTES: usize>(
    m: M,
    search: Search,
    numbers: &[f32],
    importance: Importance<'_>,
    out: &mut [u8],
    pack: impl Fn(&[u8; SIZE], &mut [u8; BYTES]),
) {
    let mut rows = Rows::new(numbers, importance);
    for (pass, (part, out)) in numbers.chunks(PASS).zip(out.as_chunks_mut::<BYTES>().0.chunks_mut(LANES)).enumerate() {
        rows.take(pass * PASS, part);
        let (found, _) = search.run(m, &rows.groups, &rows.weights);
        for (lane, (block, out)) in part.as_chunks::<SIZE>().0.iter().zip(out).enumerate() {
            let mut quants = [0; SIZE];
            search.quants_of(&found, lane, block, &mut quants);
            put_half(found.scale[lane], out);
            put_half(-found.least[lane], &mut out[2..]);
            pack(&quants, out);
        }
    }
}

/// Sixteen blocks side by side with their weights, which depend on the rows that the blocks are in.
struct Rows<'a> {
    numbers: &'a [f32],
    importance: Importance<'a>,
    groups: Groups<SIZE>,
    weights: Groups<SIZE>,
    /// The row that was looked at last, and the mean square of its numbers.
    last: Option<(usize, f32)>,
}

impl<'a> Rows<'a> {
    #[inline(always)]
    fn new(numbers: &'a [f32], importance: Importance<'a>) -> Self {
        Self { numbers, importance, groups: [ZERO; SIZE], weights: [ZERO; SIZE], last: None }
    }

    /// Loads the blocks of `part`, which begins at number `at`.
    #[inline(always)]
    fn take(&mut self, at: usize, part: &[f32]) {
        side_by_side(part, &mut self.groups);
        side_by_side(&self.importance.columns::<PASS>(at), &mut self.weights);
        let mut spread: Lane = ZERO;
        for (lane, spread) in spread.iter_mut().enumerate().take(part.len() / SIZE) {
            *spread = self.spread((at + lane * SIZE) / self.importance.0.len());
        }
        weights::by_importance(&self.groups, &spread, &mut self.weights);
    }

    #[inline(always)]
    fn spread(&mut self, row: usize) -> f32 {
        if let Some((last, spread)) = self.last
            && last == row
        {
            return spread;
        }
        let length = self.importance.0.len();
        #[expect(clippy::cast_precision_loss, reason = "as ggml divides")]
        let spread = sum_of_squares(&self.numbers[row * length..][..length]) / length as f32;
        self.last = Some((row, spread));
        spread
    }
}
