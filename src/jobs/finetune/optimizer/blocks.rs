//! Numbers in 8 bits each: blocks of 256, each with the largest magnitude in it, and codes on a scale that is fine near 0.
//!
//! The scale is the dynamic tree of Dettmers et al. 2022 (arXiv:2110.02861): seven decades, the upper ones with more codes. A code is drawn
//! between its two neighbours so that a mean over many steps is the right one; with the nearest one, running means that change by a
//! thousandth a step would never move. Second moments are kept as their roots, which span half as many decades, and never become 0 when
//! they are not: what is divided by them would explode.
//!
//! How good it is: a number is within 7 % of the block's next code in the upper decade (14 % with a sign), half as good in each one below,
//! and below 10⁻⁷ of the largest it is lost (with a sign) or raised to that.

use std::sync::LazyLock;

use crate::jobs::finetune::rng::{Philox, Purpose, Stream, uniform};

pub(super) const BLOCK: usize = 256;
const DECADES: u32 = 7;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Map {
    /// Numbers of both signs.
    Signed,
    /// Roots of numbers that are not negative.
    Root,
}

/// The 256 values of a scale from −1 or 0 to 1, in ascending order.
type Scale = [f32; 256];

static SIGNED: LazyLock<Scale> = LazyLock::new(|| scale(true));
static ROOT: LazyLock<Scale> = LazyLock::new(|| scale(false));

impl Map {
    fn scale(self) -> &'static Scale {
        match self {
            Self::Signed => &SIGNED,
            Self::Root => &ROOT,
        }
    }
}

#[derive(Debug, Clone, PartialEq)]
pub(super) struct Blocks {
    codes: Vec<u8>,
    /// The largest magnitude of each block.
    scales: Vec<f32>,
    map: Map,
}

/// Where the random numbers come from that codes are drawn with.
#[derive(Debug, Clone, Copy)]
pub(super) struct Rounding(Stream);

impl Rounding {
    /// `place`: the optimiser's step, the tensor, the block in it, and which of several kinds of numbers.
    pub(super) fn new(seed: u64, place: [u64; 4]) -> Self {
        Self(Philox::new(seed).stream(Purpose::Rounding, place))
    }
}

impl Blocks {
    pub(super) fn zero(count: usize, map: Map) -> Self {
        let zero = below(map.scale(), 0.0);
        Self { codes: vec![zero; count], scales: vec![0.0; count.div_ceil(BLOCK)], map }
    }

    /// `None`: there are not as many scales as blocks.
    pub(super) fn new(codes: Vec<u8>, scales: Vec<f32>, map: Map) -> Option<Self> {
        (scales.len() == codes.len().div_ceil(BLOCK)).then_some(Self { codes, scales, map })
    }

    pub(super) fn len(&self) -> usize {
        self.codes.len()
    }

    pub(super) fn codes(&self) -> &[u8] {
        &self.codes
    }

    pub(super) fn scales(&self) -> &[f32] {
        &self.scales
    }

    /// Writes the numbers of a block; `into` is as long as it.
    pub(super) fn decode(&self, block: usize, into: &mut [f32]) {
        let (scale, largest) = (self.map.scale(), self.scales[block]);
        for (number, code) in into.iter_mut().zip(&self.codes[block * BLOCK..]) {
            let value = scale[usize::from(*code)] * largest;
            *number = if self.map == Map::Root { value * value } else { value };
        }
    }

    /// Takes the numbers of a block.
    pub(super) fn encode(&mut self, block: usize, numbers: &[f32], rounding: Rounding) {
        let root = self.map == Map::Root;
        let stored = |number: f32| if root { number.sqrt() } else { number };
        let largest = numbers.iter().fold(0.0_f32, |most, number| most.max(stored(*number).abs()));
        self.scales[block] = largest;
        let scale = self.map.scale();
        let codes = &mut self.codes[block * BLOCK..][..numbers.len()];
        for (four, (codes, numbers)) in (0..).zip(codes.chunks_mut(4).zip(numbers.chunks(4))) {
            let drawn = rounding.0.four(four).map(uniform);
            for ((code, number), drawn) in codes.iter_mut().zip(numbers).zip(drawn) {
                let value = if largest > 0.0 { stored(*number) / largest } else { 0.0 };
                *code = draw(scale, value, drawn);
                if root && value > 0.0 && *code == 0 {
                    *code = 1;
                }
            }
        }
    }
}

/// One of the two codes beside a value, the nearer one as much more often.
fn draw(scale: &Scale, value: f32, drawn: f32) -> u8 {
    let low = below(scale, value);
    let high = low.saturating_add(1);
    let (under, over) = (scale[usize::from(low)], scale[usize::from(high)]);
    let share = if over > under { (value - under) / (over - under) } else { 0.0 };
    if drawn < share { high } else { low }
}

/// The last code whose value is not above this one.
#[expect(clippy::cast_possible_truncation, reason = "at most 255")]
fn below(scale: &Scale, value: f32) -> u8 {
    scale.partition_point(|other| *other <= value).saturating_sub(1) as u8
}

/// As `create_dynamic_map` of bitsandbytes makes it: in each decade the means of neighbours of so many even steps, twice as many as in the
/// decade below; and 0 and 1. Here also −1, without which the largest numbers would shrink when they are negative, in the place of the
/// smallest negative number.
#[expect(clippy::cast_possible_truncation, reason = "the scale is of single precision")]
fn scale(signed: bool) -> Scale {
    let mut values = vec![0.0, 1.0];
    for decade in 0..DECADES {
        let steps = if signed { 1 << decade } else { 2 << decade };
        let unit = 10.0_f64.powi(decade.cast_signed() + 1 - DECADES.cast_signed());
        for step in 0..steps {
            let value = unit * (0.1 + 0.9 * (f64::from(step) + 0.5) / f64::from(steps));
            values.push(value as f32);
            if signed {
                values.push(if decade == 0 { -1.0 } else { -value as f32 });
            }
        }
    }
    values.sort_by(f32::total_cmp);
    let mut scale = [0.0; 256];
    scale.copy_from_slice(&values);
    scale
}

#[cfg(test)]
mod tests {
    use super::*;

    fn there_and_back(map: Map, numbers: &[f32], step: u64) -> Vec<f32> {
        let mut blocks = Blocks::zero(numbers.len(), map);
        let mut back = vec![0.0; numbers.len()];
        for (block, (numbers, back)) in numbers.chunks(BLOCK).zip(back.chunks_mut(BLOCK)).enumerate() {
            blocks.encode(block, numbers, Rounding::new(7, [step, block as u64, 0, 0]));
            blocks.decode(block, back);
        }
        back
    }

    #[test]
    fn a_scale_has_256_values_zero_and_one_among_them() {
        for map in [Map::Signed, Map::Root] {
            let scale = map.scale();
            assert!(scale.windows(2).all(|two| two[0] < two[1]), "{scale:?}");
            assert!(scale.contains(&0.0) && scale.ends_with(&[1.0]));
        }
        // As bitsandbytes has them: `create_dynamic_map(signed=True)` and `(signed=False)`.
        assert!((SIGNED[1] + 0.992_968_75).abs() < 1e-6 && (SIGNED[128] - 5.5e-7).abs() < 1e-12, "{} {}", SIGNED[1], SIGNED[128]);
        assert!(SIGNED.starts_with(&[-1.0]));
        assert!((ROOT[1] - 3.25e-7).abs() < 1e-12 && (ROOT[254] - 0.996_484_4).abs() < 1e-6, "{} {}", ROOT[1], ROOT[254]);
    }

    #[test]
    #[expect(clippy::cast_precision_loss, reason = "small numbers")]
    fn numbers_come_back_within_the_stated_error_and_their_mean_exactly() {
        let numbers: Vec<f32> = (0..500).map(|i| (i as f32 * 0.37).sin() * 3.0).collect();
        let mut sums = vec![0.0_f64; numbers.len()];
        let times = 400;
        for step in 0..times {
            let back = there_and_back(Map::Signed, &numbers, step);
            for ((number, back), sum) in numbers.iter().zip(&back).zip(&mut sums) {
                *sum += f64::from(*back);
                assert!((number - back).abs() <= 0.15 * number.abs().max(0.3), "{number} {back}");
            }
        }
        for (number, sum) in numbers.iter().zip(sums) {
            assert!((f64::from(*number) - sum / times as f64).abs() < 0.01, "{number}");
        }
    }

    #[test]
    fn squares_are_never_lost() {
        let back = there_and_back(Map::Root, &[1.0, 1e-20, 0.0, 0.25], 0);
        assert_eq!((back[0], back[2]), (1.0, 0.0));
        assert!(back[1] > 0.0 && back[1] < 1e-12 && (back[3] - 0.25).abs() < 0.02, "{back:?}");
        assert_eq!(there_and_back(Map::Signed, &[0.0; 300], 0), [0.0; 300]);
    }

    #[test]
    fn a_running_mean_moves_by_less_than_a_code() {
        let mut blocks = Blocks::zero(2, Map::Root);
        let mut numbers = [1.0, 1e-3];
        blocks.encode(0, &numbers, Rounding::new(1, [0; 4]));
        for step in 1..4000 {
            blocks.decode(0, &mut numbers);
            numbers[1] = numbers[1] * 0.999 + 0.001 * 0.01;
            numbers[0] = 1.0;
            blocks.encode(0, &numbers, Rounding::new(1, [step, 0, 0, 0]));
        }
        assert!((0.006..0.014).contains(&numbers[1]), "{numbers:?}");
    }
}
