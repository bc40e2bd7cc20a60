//! In which order rows are read, and which together: decided from their lengths and a seed, for each epoch anew.
//!
//! Promises: every row that has something to foretell is read once in an epoch; no batch is larger than allowed; pairs stay together, the
//! preferred row first; the same lengths, limits, seed and epoch give the same order.

use super::rng::{Philox, Purpose, Stream};

/// Units of rows among which those are looked for that fill a batch. More would fill them hardly better, and shuffle worse.
const PACKING_WINDOW: usize = 2048;

/// Batches of as many rows as may be, among which those are about as long, as Hugging Face's `group_by_length` has it.
const GROUPED_BATCHES: usize = 50;

/// What goes into a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    pub tokens: usize,
    pub rows: Option<usize>,
    /// Whether rows 2i and 2i + 1 belong together.
    pub pairs: bool,
    /// Whether batches are filled; otherwise rows of about one length come together.
    pub packing: bool,
}

/// Where in the order a run is: the batch that comes next.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Cursor {
    pub epoch: u64,
    pub batch: usize,
}

/// The rows of every batch of an epoch. Units that are larger than a batch may be get one each; whoever asks refuses them before.
#[must_use]
pub fn epoch(lengths: &[usize], limits: &Limits, seed: u64, epoch: u64) -> Vec<Vec<usize>> {
    let mut units = units(lengths, limits.pairs);
    let mut random = Random::new(seed, epoch);
    shuffle(&mut units, &mut random);
    let window = if limits.packing { PACKING_WINDOW } else { GROUPED_BATCHES * rows_of_a_batch(&units, limits) };
    let mut batches = Vec::new();
    for units in units.chunks_mut(window.max(1)) {
        // Stable: those of one length stay shuffled.
        units.sort_by_key(|unit| std::cmp::Reverse(unit.tokens));
        let mut filled = if limits.packing { first_fit(units, limits) } else { in_turn(units, limits) };
        shuffle(&mut filled, &mut random);
        batches.extend(filled);
    }
    batches.into_iter().map(|batch| batch.rows).collect()
}

/// The rows of each batch in their own order, as they are read where nothing is learnt.
#[must_use]
pub fn unshuffled(lengths: &[usize], limits: &Limits) -> Vec<Vec<usize>> {
    in_turn(&units(lengths, limits.pairs), limits).into_iter().map(|batch| batch.rows).collect()
}

/// Rows that are not to be parted: one, or a pair.
#[derive(Debug, Clone, Copy)]
struct Unit {
    first: usize,
    rows: usize,
    tokens: usize,
}

#[derive(Debug)]
struct Open {
    rows: Vec<usize>,
    tokens: usize,
}

impl Open {
    fn with(unit: Unit) -> Self {
        let mut open = Self { rows: Vec::new(), tokens: 0 };
        open.push(unit);
        open
    }

    fn takes(&self, unit: Unit, limits: &Limits) -> bool {
        let rows = limits.rows.is_none_or(|rows| self.rows.len() + unit.rows <= rows);
        rows && self.tokens + unit.tokens <= limits.tokens
    }

    fn push(&mut self, unit: Unit) {
        self.rows.extend(unit.first..unit.first + unit.rows);
        self.tokens += unit.tokens;
    }
}

fn units(lengths: &[usize], pairs: bool) -> Vec<Unit> {
    let rows = if pairs { 2 } else { 1 };
    let whole = lengths.chunks_exact(rows).enumerate();
    // The first token of a row is foretold by none.
    whole
        .filter(|(_, lengths)| lengths.iter().all(|tokens| *tokens > 1))
        .map(|(index, lengths)| Unit { first: index * rows, rows, tokens: lengths.iter().sum() })
        .collect()
}

fn rows_of_a_batch(units: &[Unit], limits: &Limits) -> usize {
    let tokens: usize = units.iter().map(|unit| unit.tokens).sum();
    let by_tokens = limits.tokens * units.len() / tokens.max(1);
    limits.rows.map_or(by_tokens, |rows| by_tokens.min(rows)).max(1)
}

/// First-fit decreasing (Johnson 1973): each unit goes into the first batch that still has room for it.
fn first_fit(units: &[Unit], limits: &Limits) -> Vec<Open> {
    let mut open: Vec<Open> = Vec::new();
    for unit in units {
        match open.iter_mut().find(|batch| batch.takes(*unit, limits)) {
            Some(batch) => batch.push(*unit),
            None => open.push(Open::with(*unit)),
        }
    }
    open
}

fn in_turn(units: &[Unit], limits: &Limits) -> Vec<Open> {
    let mut batches: Vec<Open> = Vec::new();
    for unit in units {
        match batches.last_mut().filter(|batch| batch.takes(*unit, limits)) {
            Some(batch) => batch.push(*unit),
            None => batches.push(Open::with(*unit)),
        }
    }
    batches
}

/// Fisher and Yates, as Durstenfeld does it in place.
fn shuffle<T>(items: &mut [T], random: &mut Random) {
    for last in (1..items.len()).rev() {
        items.swap(last, random.below(last + 1));
    }
}

/// Numbers one after another.
struct Random {
    stream: Stream,
    next: u64,
}

impl Random {
    fn new(seed: u64, epoch: u64) -> Self {
        Self { stream: Philox::new(seed).stream(Purpose::Order, [epoch, 0, 0, 0]), next: 0 }
    }

    /// From 0 to below `count`, each as likely but for one part in 2^64 / `count`.
    #[expect(clippy::cast_possible_truncation, reason = "below a number of items")]
    fn below(&mut self, count: usize) -> usize {
        let [low, high, ..] = self.stream.four(self.next);
        self.next += 1;
        let drawn = u128::from(high) << 32 | u128::from(low);
        ((drawn * count as u128) >> 64) as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const LIMITS: Limits = Limits { tokens: 64, rows: None, pairs: false, packing: true };

    /// Lengths like those of a set of instructions.
    fn lengths(count: usize) -> Vec<usize> {
        (0..count).map(|index| 2 + (index * 7919) % 37).collect()
    }

    #[test]
    fn an_order_is_of_its_seed_and_its_epoch() {
        let lengths = lengths(100);
        let order = epoch(&lengths, &LIMITS, 42, 0);
        assert_eq!(order, epoch(&lengths, &LIMITS, 42, 0));
        assert_ne!(order, epoch(&lengths, &LIMITS, 43, 0));
        assert_ne!(order, epoch(&lengths, &LIMITS, 42, 1));
    }

    #[test]
    fn packing_leaves_little_room_and_grouping_brings_equals_together() {
        let lengths = lengths(5000);
        let tokens: usize = lengths.iter().sum();
        let limits = Limits { tokens: 256, ..LIMITS };
        let packed = epoch(&lengths, &limits, 1, 0);
        #[expect(clippy::cast_precision_loss, reason = "a share")]
        let filled = tokens as f64 / (packed.len() * limits.tokens) as f64;
        assert!(filled > 0.98, "{filled}");
        let grouped = epoch(&lengths, &Limits { packing: false, rows: Some(8), ..limits }, 1, 0);
        let spread = |batch: &Vec<usize>| {
            let of = batch.iter().map(|row| lengths[*row]);
            of.clone().max().unwrap_or(0) - of.min().unwrap_or(0)
        };
        assert!(grouped.iter().map(spread).sum::<usize>() / grouped.len() <= 2);
        assert!(grouped.iter().all(|batch| batch.len() <= 8));
    }

    #[test]
    fn a_shuffle_is_even() {
        let mut counts = [[0_u32; 4]; 4];
        for epoch in 0..4000 {
            let mut items = [0, 1, 2, 3];
            shuffle(&mut items, &mut Random::new(5, epoch));
            items.iter().enumerate().for_each(|(place, item)| counts[place][*item] += 1);
        }
        // A thousand each; five standard deviations are 137.
        assert!(counts.iter().flatten().all(|count| (863..1137).contains(count)), "{counts:?}");
    }

    proptest! {
        #[test]
        fn every_row_is_read_once_and_no_batch_is_too_large(
            lengths in prop::collection::vec(0_usize..33, 0..200), seed: u64, packing: bool, pairs: bool, rows in prop::option::of(2_usize..6),
        ) {
            let limits = Limits { tokens: 64, rows, pairs, packing };
            let mut seen = Vec::new();
            for batch in epoch(&lengths, &limits, seed, 3).into_iter().chain(std::iter::once(Vec::new())) {
                prop_assert!(batch.iter().map(|row| lengths[*row]).sum::<usize>() <= 64);
                prop_assert!(rows.is_none_or(|rows| batch.len() <= rows));
                if pairs {
                    prop_assert!(batch.chunks(2).all(|pair| pair[0] % 2 == 0 && pair[1] == pair[0] + 1));
                }
                seen.extend(batch);
            }
            seen.sort_unstable();
            let unit = if pairs { 2 } else { 1 };
            let expected: Vec<usize> = (0..lengths.len() / unit * unit)
                .filter(|row| lengths[row / unit * unit..][..unit].iter().all(|tokens| *tokens > 1))
                .collect();
            prop_assert_eq!(&seen, &expected);
            prop_assert_eq!(unshuffled(&lengths, &limits).concat(), expected);
        }
    }
}
