//! Which rows are learnt from, and which are kept back to measure by.
//!
//! Rows that belong together go to the same side, so that nothing is measured that was learnt: those of one group, those that ask the same,
//! and those that are nearly the same. Which side that is depends on what the rows say and on the seed, not on their order.

use std::collections::{BTreeMap, HashMap};

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::error::Error;
use super::example::{Body, Example, Role};
use super::report::Divided;
use super::similarity::{Index, Signature};

/// How often it is told how far it has come.
const TICK_ROWS: u32 = 256;

/// Rows that stay together, behind a key that they are ordered by.
type Cluster = (Vec<u8>, Vec<u32>);

/// What a row is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Side {
    Train,
    Validation,
    Test,
}

impl Side {
    pub const ALL: [Self; 3] = [Self::Train, Self::Validation, Self::Test];

    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Train => "train",
            Self::Validation => "validation",
            Self::Test => "test",
        }
    }
}

/// How rows are divided.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Split {
    /// Share of the rows that are kept back to choose by, while training.
    pub validation: f64,
    /// Share of the rows that are kept back to the end.
    pub test: f64,
    /// Field of the rows whose values tell which belong together.
    pub group: Option<String>,
    /// Rows whose words are the same to this share or more go to the same side; `null`: they may be parted.
    pub near_duplicates: Option<f64>,
}

impl Default for Split {
    fn default() -> Self {
        Self { validation: 0.05, test: 0.05, group: None, near_duplicates: Some(0.7) }
    }
}

impl Split {
    /// # Errors
    /// Shares that leave nothing to learn from.
    pub fn validate(&self) -> Result<(), Error> {
        let share = |share: f64| (0.0..1.0).contains(&share);
        if !share(self.validation) || !share(self.test) || !share(self.validation + self.test) {
            return Err(Error::Options("`validation` and `test` are shares from 0 to 1 that leave something for training".to_owned()));
        }
        if self.near_duplicates.is_some_and(|share| !(0.5..=1.0).contains(&share)) {
            return Err(Error::Options("`near_duplicates` of the split takes a share from 0.5 to 1, or null".to_owned()));
        }
        Ok(())
    }

    /// The side of each row. Whole clusters are dealt out in an order that the seed gives, each to the side that lacks most of its share, the
    /// kept back ones first; a side that is wanted gets at least one row where there are clusters enough.
    ///
    /// # Errors
    /// Those of `told`.
    pub fn sides(
        &self,
        examples: &[Example],
        seed: u64,
        told: &mut dyn FnMut(u64) -> Result<(), Error>,
    ) -> Result<(Vec<Side>, Divided), Error> {
        let mut clusters = self.clusters(examples, told)?;
        for (key, rows) in &mut clusters {
            let lowest = rows.iter().map(|row| examples[*row as usize].digest()).min().unwrap_or_default();
            *key = Sha256::new().chain_update(seed.to_le_bytes()).chain_update(lowest).finalize().to_vec();
        }
        clusters.sort();
        let mut sides = vec![Side::Train; examples.len()];
        let mut divided = Divided { clusters: clusters.len() as u64, ..Divided::default() };
        let mut left =
            [(Side::Test, self.test), (Side::Validation, self.validation)].map(|(side, share)| (side, wanted(share, examples.len())));
        // The last cluster is always left to be learnt from.
        let dealt = clusters.len().saturating_sub(1);
        for (_, rows) in &clusters[..dealt] {
            if let Some((side, wanted)) = left.iter_mut().find(|(_, wanted)| *wanted > 0 && fits(rows.len(), *wanted)) {
                *wanted = wanted.saturating_sub(rows.len());
                for row in rows {
                    sides[*row as usize] = *side;
                }
            }
        }
        for (_, rows) in &clusters {
            divided.largest_cluster = divided.largest_cluster.max(rows.len() as u64);
        }
        let count = |wanted: Side| sides.iter().filter(|side| **side == wanted).count() as u64;
        (divided.train, divided.validation, divided.test) = (count(Side::Train), count(Side::Validation), count(Side::Test));
        divided.train_after_mixing = divided.train;
        Ok((sides, divided))
    }

    /// Rows that stay together.
    fn clusters(&self, examples: &[Example], told: &mut dyn FnMut(u64) -> Result<(), Error>) -> Result<Vec<Cluster>, Error> {
        let mut sets = Sets::new(examples.len());
        let mut first: HashMap<[u8; 32], u32> = HashMap::new();
        let mut index = self.near_duplicates.map(Index::new);
        let mut rows_of_index = Vec::new();
        for (row, example) in (0_u32..).zip(examples) {
            if row.is_multiple_of(TICK_ROWS) {
                told(u64::from(row))?;
            }
            let keys = [group_key(example), prompt_key(&example.body)];
            for key in keys.into_iter().flatten() {
                sets.join(row, *first.entry(key).or_insert(row));
            }
            if let Some(index) = &mut index
                && let Some(signature) = Signature::of(&example.body)
            {
                for other in index.similar(&signature, false) {
                    sets.join(row, rows_of_index[other as usize]);
                }
                index.add(signature);
                rows_of_index.push(row);
            }
        }
        let mut clusters: BTreeMap<u32, Vec<u32>> = BTreeMap::new();
        for row in (0_u32..).take(examples.len()) {
            clusters.entry(sets.root(row)).or_default().push(row);
        }
        Ok(clusters.into_values().map(|rows| (Vec::new(), rows)).collect())
    }
}

/// Whether a cluster takes a side nearer to what it lacks.
fn fits(rows: usize, wanted: usize) -> bool {
    rows <= wanted || rows - wanted < wanted
}

#[expect(clippy::cast_precision_loss, clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a share of a count of rows")]
fn wanted(share: f64, rows: usize) -> usize {
    if share > 0.0 { ((share * rows as f64).round() as usize).max(1) } else { 0 }
}

fn group_key(example: &Example) -> Option<[u8; 32]> {
    example.group.as_ref().map(|group| Sha256::new().chain_update("group\0").chain_update(group).finalize().into())
}

/// What is asked, without what the system says, which many rows have in common.
fn prompt_key(body: &Body) -> Option<[u8; 32]> {
    let mut hasher = Sha256::new().chain_update("prompt\0");
    let mut any = false;
    for turn in body.prompt().iter().filter(|turn| turn.role != Role::System) {
        let plain: String =
            turn.content.split_whitespace().flat_map(|word| word.chars().chain([' '])).flat_map(char::to_lowercase).collect();
        any |= !plain.is_empty();
        hasher.update(plain);
        hasher.update([0xff]);
    }
    any.then(|| hasher.finalize().into())
}

/// Disjoint sets (union-find with halved paths); the root of a set is its first row.
#[derive(Debug)]
struct Sets(Vec<u32>);

impl Sets {
    fn new(rows: usize) -> Self {
        Self((0_u32..).take(rows).collect())
    }

    fn root(&mut self, mut row: u32) -> u32 {
        while self.0[row as usize] != row {
            let above = self.0[self.0[row as usize] as usize];
            self.0[row as usize] = above;
            row = above;
        }
        row
    }

    fn join(&mut self, one: u32, other: u32) {
        let (one, other) = (self.root(one), self.root(other));
        self.0[one.max(other) as usize] = one.min(other);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::super::example::samples::{chat, text, words};
    use super::*;

    fn sides(split: &Split, examples: &[Example], seed: u64) -> Vec<Side> {
        split.sides(examples, seed, &mut |_| Ok(())).expect("divided").0
    }

    fn distinct(count: u32) -> Vec<Example> {
        let said = |n: u32| words(n * 100..n * 100 + 30);
        (0..count).map(|n| chat(&said(n), &said(n + 100_000))).collect()
    }

    fn count(sides: &[Side], wanted: Side) -> usize {
        sides.iter().filter(|side| **side == wanted).count()
    }

    #[test]
    fn shares_are_met_and_small_sets_have_something_of_each() {
        let split = Split { validation: 0.1, test: 0.2, ..Split::default() };
        let of = |rows| sides(&split, &distinct(rows), 7);
        assert_eq!(Side::ALL.map(|side| count(&of(200), side)), [140, 20, 40]);
        assert_eq!(Side::ALL.map(|side| count(&of(3), side)), [1, 1, 1]);
        assert_eq!(of(1), [Side::Train]);
        assert_eq!(of(0), []);
        let none = Split { validation: 0.0, test: 0.0, ..Split::default() };
        assert_eq!(count(&sides(&none, &distinct(50), 7), Side::Train), 50);
    }

    #[test]
    fn the_side_of_a_row_depends_on_what_it_says_not_on_where_it_stands() {
        let rows = distinct(100);
        let split = Split::default();
        let one = sides(&split, &rows, 1);
        let backwards: Vec<Example> = rows.iter().rev().cloned().collect();
        let other: Vec<Side> = sides(&split, &backwards, 1).into_iter().rev().collect();
        assert_eq!(one, other);
        assert_ne!(one, sides(&split, &rows, 2));
    }

    #[test]
    fn what_belongs_together_is_not_parted() {
        let split = Split { validation: 0.2, test: 0.2, ..Split::default() };
        let long = |n: u32, end: &str| text(&(words(n * 1_000..n * 1_000 + 60) + end));
        let mut rows = Vec::new();
        for n in 0..40 {
            rows.push((n, long(n, "one end")));
            rows.push((n, long(n, "another")));
        }
        for n in 40..80 {
            rows.push((n, chat(&format!("Question {n}?"), &format!("some{n} answer{n}"))));
            rows.push((n, chat(&format!("question  {n}?"), &format!("a quite other{n} text{n}"))));
        }
        for n in 80..120 {
            let of_group = |example: Example| Example { group: Some(n.to_string()), ..example };
            rows.push((n, of_group(text(&format!("alpha{n} beta{n} gamma{n} delta{n}")))));
            rows.push((n, of_group(text(&format!("one{n} two{n} three{n} four{n}")))));
        }
        let (clusters, examples): (Vec<u32>, Vec<Example>) = rows.into_iter().unzip();
        for seed in 0..5 {
            let sides = sides(&split, &examples, seed);
            let pairs: BTreeSet<(u32, Side)> = clusters.iter().copied().zip(sides.iter().copied()).collect();
            assert_eq!(pairs.len(), 120, "each cluster has one side");
            assert_eq!(Side::ALL.map(|side| count(&sides, side)), [144, 48, 48]);
        }
        // Without the rules they are parted.
        let bare: Vec<Example> = examples[..80].to_vec();
        let parted = Split { near_duplicates: None, ..split };
        let pairs: BTreeSet<(u32, Side)> = clusters.iter().copied().zip(sides(&parted, &bare, 0)).collect();
        assert!(pairs.len() > 40, "{}", pairs.len());
    }

    #[test]
    fn one_large_cluster_does_not_take_the_whole_of_a_side() {
        let mut rows: Vec<Example> = (0..50).map(|n| chat("Write a poem.", &format!("poem{n} of{n} words{n}"))).collect();
        rows.extend(distinct(50));
        let sides = sides(&Split { validation: 0.1, test: 0.1, ..Split::default() }, &rows, 3);
        assert_eq!(Side::ALL.map(|side| count(&sides, side)), [80, 10, 10]);
        assert_eq!(count(&sides[..50], Side::Train), 50);
    }

    #[test]
    fn shares_that_leave_nothing_are_refused() {
        for (validation, test) in [(1.0, 0.0), (0.5, 0.5), (-0.1, 0.0), (f64::NAN, 0.0)] {
            assert!(Split { validation, test, ..Split::default() }.validate().is_err());
        }
        assert!(Split { near_duplicates: Some(0.1), ..Split::default() }.validate().is_err());
        assert!(Split::default().validate().is_ok());
    }
}
