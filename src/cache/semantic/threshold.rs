//! How similar is similar enough, by what was found when hits were checked.
//!
//! A share of the hits is checked against a real generation. When the share of false ones among them, less what chance explains,
//! passes the budget, the threshold rises as far as the false ones reach. It falls by small steps, each after enough checks
//! without too many false hits to be sure of the present one, and never to where the hits still remembered were too often
//! false. Pure.

use std::collections::VecDeque;

/// Checks that are remembered.
const WINDOW: usize = 2_000;
const RISE: f32 = 0.002_5;
const FALL: f32 = 0.001;
/// Share of the budget that has to be kept for a step down.
const FALL_BUDGET: f64 = 0.5;
/// Above this only the same question is similar enough, and that needs no checks.
const CEILING: f32 = 0.999;
/// Checks that a step down takes at least, times the patience: each rise doubles it, up to a bound, and so many steps down in a row
/// halve it. Without it the threshold would keep trying what it has found wrong.
const LEAST_CHECKS: u32 = 200;
const MOST_PATIENCE: u32 = 32;
const STEPS_THAT_REASSURE: u32 = 10;
/// Standard deviations on each side of a measured share: 84 of 100 true shares lie above the lower, below the upper bound.
const Z: f64 = 1.0;

/// Similarity from which two vectors count as of the same text: such hits are not checked, since they would prove nothing.
pub(super) const SAME: f32 = 0.999_5;

/// The present threshold and why.
#[derive(Debug, Clone)]
pub struct Threshold {
    floor: f32,
    budget: f64,
    value: f32,
    judged: VecDeque<(f32, bool)>,
    /// Checks and false hits since the threshold changed last.
    since: (u32, u32),
    patience: u32,
    steps_down: u32,
}

/// A measured share and the bounds of its confidence (Wilson, 1927).
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Share {
    pub measured: f64,
    pub lower: f64,
    pub upper: f64,
}

impl Share {
    #[must_use]
    pub fn of(false_hits: u32, checks: u32) -> Self {
        if checks == 0 {
            return Self { measured: 0.0, lower: 0.0, upper: 1.0 };
        }
        let (n, z2) = (f64::from(checks), Z * Z);
        let measured = f64::from(false_hits) / n;
        let centre = (measured + z2 / (2.0 * n)) / (1.0 + z2 / n);
        let margin = Z * (measured * (1.0 - measured) / n + z2 / (4.0 * n * n)).sqrt() / (1.0 + z2 / n);
        Self { measured, lower: (centre - margin).max(0.0), upper: (centre + margin).min(1.0) }
    }
}

impl Threshold {
    /// Begins at `floor`, and never goes below it. `budget`: share of false hits that is borne, from 0 to 1.
    #[must_use]
    pub fn new(floor: f32, budget: f64) -> Self {
        let floor = if floor.is_finite() { floor.clamp(0.0, 1.0) } else { 1.0 };
        Self { floor, budget: budget.clamp(0.0, 1.0), value: floor, judged: VecDeque::new(), since: (0, 0), patience: 1, steps_down: 0 }
    }

    /// The similarity that a hit needs now.
    #[must_use]
    pub fn value(&self) -> f32 {
        self.value
    }

    /// The share of false hits among the remembered checks at the present threshold.
    #[must_use]
    pub fn share(&self) -> Share {
        self.share_above(self.value)
    }

    /// A hit of this similarity was checked, and was right or not.
    pub fn judged(&mut self, similarity: f32, ok: bool) {
        if self.judged.len() == WINDOW {
            self.judged.pop_front();
        }
        self.judged.push_back((similarity, ok));
        if similarity < self.value {
            return; // It was asked before the threshold rose.
        }
        self.since = (self.since.0 + 1, self.since.1 + u32::from(!ok));
        // The remembered checks include those from times of a higher threshold, which say nothing of what it kept out.
        let since = Share::of(self.since.1, self.since.0);
        if since.lower > self.budget || self.share().lower > self.budget {
            self.rise();
        } else if self.since.0 >= LEAST_CHECKS * self.patience && since.upper < self.budget * FALL_BUDGET {
            self.fall();
        }
    }

    fn rise(&mut self) {
        self.value = (self.value + RISE).min(CEILING.max(self.value));
        while self.value < CEILING && self.share_above(self.value).lower > self.budget {
            self.value = (self.value + RISE).min(CEILING);
        }
        self.since = (0, 0);
        self.steps_down = 0;
        self.patience = (self.patience * 2).min(MOST_PATIENCE);
    }

    fn fall(&mut self) {
        let lower = (self.value - FALL).max(self.floor);
        if self.share_above(lower).upper <= self.budget * FALL_BUDGET {
            self.value = lower;
            self.steps_down += 1;
            if self.steps_down.is_multiple_of(STEPS_THAT_REASSURE) {
                self.patience = (self.patience / 2).max(1);
            }
        }
        self.since = (0, 0);
    }

    fn share_above(&self, least: f32) -> Share {
        let above = self.judged.iter().filter(|(similarity, _)| *similarity >= least);
        let (checks, wrong) = above.fold((0, 0), |(checks, wrong), (_, ok)| (checks + 1, wrong + u32::from(!ok)));
        Share::of(wrong, checks)
    }
}

#[cfg(test)]
#[expect(clippy::float_cmp, reason = "a threshold that has not moved is the same number")]
mod tests {
    use super::*;

    /// Numbers from 0 to 1 that look like chance (splitmix64).
    struct Chance(u64);

    impl Chance {
        #[expect(clippy::cast_precision_loss, reason = "53 bits")]
        fn next(&mut self) -> f64 {
            self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mut z = self.0;
            z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            ((z ^ (z >> 31)) >> 11) as f64 / (1u64 << 53) as f64
        }
    }

    /// Serves `hits`, checks one in twenty, and gives the share that was false. `falsehood`: how often a hit of a similarity is.
    #[expect(clippy::cast_possible_truncation, reason = "a similarity")]
    fn serve(threshold: &mut Threshold, chance: &mut Chance, hits: u32, falsehood: impl Fn(f32) -> f64) -> f64 {
        let (mut served, mut wrong) = (0u32, 0u32);
        while served < hits {
            let similarity = 0.9 + 0.0995 * chance.next() as f32;
            if similarity < threshold.value() {
                continue;
            }
            served += 1;
            let ok = chance.next() >= falsehood(similarity);
            wrong += u32::from(!ok);
            if chance.next() < 0.05 {
                threshold.judged(similarity, ok);
            }
        }
        f64::from(wrong) / f64::from(hits)
    }

    /// One in ten is false up to 0.97, none above.
    fn bad_below(similarity: f32) -> f64 {
        if similarity < 0.97 { 0.1 } else { 0.0 }
    }

    #[test]
    fn it_rises_to_where_hits_are_right_and_stays_near_whatever_the_seed() {
        for seed in 0..12 {
            let (mut threshold, mut chance) = (Threshold::new(0.92, 0.005), Chance(seed));
            serve(&mut threshold, &mut chance, 40_000, bad_below);
            let late = serve(&mut threshold, &mut chance, 100_000, bad_below);
            // Of 300 seeds one was above the budget, by a fiftieth of it.
            assert!(late <= 0.005_5, "seed {seed}: {late} of the hits are false at {}", threshold.value());
            assert!((0.96..0.985).contains(&threshold.value()), "seed {seed}: {}", threshold.value());
        }
    }

    #[test]
    fn right_hits_leave_it_where_it_is() {
        let mut threshold = Threshold::new(0.92, 0.005);
        let wrong = serve(&mut threshold, &mut Chance(1), 100_000, |_| 0.0);
        assert_eq!((threshold.value(), wrong), (0.92, 0.0));
    }

    #[test]
    fn one_false_hit_among_many_right_ones_is_no_reason_to_rise_but_one_among_few_is() {
        let mut threshold = Threshold::new(0.92, 0.005);
        (0..150).for_each(|_| threshold.judged(0.95, true));
        threshold.judged(0.95, false);
        assert_eq!(threshold.value(), 0.92);
        threshold.judged(0.95, false);
        assert!(threshold.value() > 0.95, "it rises above what was false at once");

        let mut young = Threshold::new(0.92, 0.005);
        young.judged(0.93, false);
        assert!(young.value() > 0.93);
    }

    #[test]
    fn it_falls_only_slowly_and_not_below_its_floor() {
        let mut threshold = Threshold::new(0.92, 0.005);
        (0..20).for_each(|_| threshold.judged(0.96, false));
        let high = threshold.value();
        let checks_until = |threshold: &mut Threshold, value: f32| {
            (0..1_000_000)
                .take_while(|_| {
                    threshold.value() > value && {
                        threshold.judged(0.998, true);
                        true
                    }
                })
                .count()
        };
        let first = checks_until(&mut threshold, high - FALL / 2.0);
        assert!(first >= 190, "{first}");
        let rest = checks_until(&mut threshold, 0.92);
        assert!(rest > 190 * 40, "{rest}");
        (0..2_000).for_each(|_| threshold.judged(0.998, true));
        assert_eq!(threshold.value(), 0.92);
    }

    #[test]
    fn when_everything_is_false_only_the_same_question_is_left() {
        let mut threshold = Threshold::new(0.92, 0.005);
        (0..50).for_each(|_| threshold.judged(0.998_9, false));
        assert_eq!(threshold.value(), CEILING);
        assert!(threshold.share().upper >= threshold.share().lower);
        assert_eq!(Threshold::new(f32::NAN, 0.005).value(), 1.0);
    }

    #[test]
    fn the_bounds_of_a_share_hold_it() {
        for (wrong, checks) in [(0, 1), (1, 1), (0, 200), (3, 200), (200, 200)] {
            let share = Share::of(wrong, checks);
            assert!(share.lower <= share.measured + 1e-12 && share.measured <= share.upper + 1e-12, "{share:?}");
        }
        assert_eq!(Share::of(0, 0), Share { measured: 0.0, lower: 0.0, upper: 1.0 });
    }
}
