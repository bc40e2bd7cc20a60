//! How much two texts have in common, without comparing all with all: MinHash over runs of words, and buckets of equal bands.
//!
//! Broder, "On the resemblance and containment of documents" (1997); the share of equal places in two signatures estimates the Jaccard
//! similarity of the sets of runs, with a standard deviation of √(s(1−s)/128), at most 4.4 %. All numbers are fixed: the same texts have the
//! same signatures everywhere.

use std::collections::HashMap;

use super::example::{Body, Role};

const PERMUTATIONS: usize = 128;
/// Runs of so many words are what a text is taken to consist of.
const RUN_WORDS: usize = 3;
/// Members of a bucket that others are compared with: the bound on how much is compared where all texts are alike.
const MAX_BUCKET: usize = 64;
/// A pair of just the wanted similarity is found with this probability.
const RECALL: f64 = 0.99;

/// What stands for a text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Signature(Box<[u32; PERMUTATIONS]>);

impl Signature {
    /// Of what a row asks and answers; what its system says is the same in many rows and tells nothing. `None`: it has no words.
    #[must_use]
    pub fn of(body: &Body) -> Option<Self> {
        let mut words = Vec::new();
        let mut add = |text: &str| each_word(text, |word| words.push(word));
        match body {
            Body::Text(text) => add(text),
            Body::Chat(turns) => turns.iter().filter(|turn| turn.role != Role::System).for_each(|turn| add(&turn.content)),
            Body::Preference { prompt, chosen, rejected } => {
                let turns = prompt.iter().filter(|turn| turn.role != Role::System).chain(chosen).chain(rejected);
                turns.for_each(|turn| add(&turn.content));
            }
        }
        Self::of_words(&words)
    }

    fn of_words(words: &[u64]) -> Option<Self> {
        let mut lowest = Box::new([u32::MAX; PERMUTATIONS]);
        let mut add = |run: &[u64]| {
            let hash = run.iter().fold(0x9e37_79b9_7f4a_7c15, |hash: u64, word| mix(hash.rotate_left(23) ^ word));
            for (index, lowest) in (0_u64..).zip(lowest.iter_mut()) {
                *lowest = (*lowest).min(permuted(hash, index));
            }
        };
        match words.len() {
            0 => return None,
            length if length < RUN_WORDS => add(words),
            _ => words.windows(RUN_WORDS).for_each(add),
        }
        Some(Self(lowest))
    }

    /// The estimated Jaccard similarity.
    #[must_use]
    #[expect(clippy::cast_precision_loss, reason = "at most 128")]
    pub fn similarity(&self, other: &Self) -> f64 {
        let same = self.0.iter().zip(other.0.iter()).filter(|(one, other)| one == other).count();
        same as f64 / PERMUTATIONS as f64
    }
}

/// A hash under one of the permutations: the upper half of an odd multiple (Dietzfelbinger et al., "A reliable randomized algorithm for the
/// closest-pair problem", 1997).
#[expect(clippy::cast_possible_truncation, reason = "the upper half is wanted")]
fn permuted(hash: u64, index: u64) -> u32 {
    (mix(index).wrapping_mul(2) + 1).wrapping_mul(hash).wrapping_add(mix(!index)).wrapping_shr(32) as u32
}

/// The finalizer of `SplitMix64`.
const fn mix(mut x: u64) -> u64 {
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

/// Words in lower case, as hashes. Of scripts without spaces each character is a word.
fn each_word(text: &str, mut each: impl FnMut(u64)) {
    /// FNV-1a.
    const START: u64 = 0xcbf2_9ce4_8422_2325;
    let mut word = START;
    let mut end = |word: &mut u64| {
        if *word != START {
            each(mix(*word));
        }
        *word = START;
    };
    let add = |word: &mut u64, c: char| *word = (*word ^ u64::from(u32::from(c))).wrapping_mul(0x0000_0100_0000_01b3);
    for c in text.chars() {
        let alone = matches!(u32::from(c), 0x0e00..=0x0eff | 0x1000..=0x109f | 0x2e80..=0x9fff | 0xf900..=0xfaff | 0x20000..=0x3ffff);
        if alone || !c.is_alphanumeric() {
            end(&mut word);
        }
        if c.is_alphanumeric() {
            c.to_lowercase().for_each(|c| add(&mut word, c));
        }
        if alone {
            end(&mut word);
        }
    }
    end(&mut word);
}

/// Finds those that are similar to a given one.
#[derive(Debug)]
pub struct Index {
    threshold: f64,
    band_places: usize,
    signatures: Vec<Signature>,
    /// By band and what it holds.
    buckets: HashMap<(u32, u64), Vec<u32>>,
}

impl Index {
    #[must_use]
    pub fn new(threshold: f64) -> Self {
        Self { threshold, band_places: band_places(threshold), signatures: Vec::new(), buckets: HashMap::new() }
    }

    /// Those that are as similar as the threshold, or more, in ascending order; `first`: one is enough.
    #[must_use]
    pub fn similar(&self, signature: &Signature, first: bool) -> Vec<u32> {
        let mut found = Vec::new();
        let mut looked = std::collections::HashSet::new();
        for key in self.keys(signature) {
            for &index in self.buckets.get(&key).into_iter().flatten() {
                if looked.insert(index) && self.signatures[index as usize].similarity(signature) >= self.threshold {
                    found.push(index);
                    if first {
                        return found;
                    }
                }
            }
        }
        found.sort_unstable();
        found
    }

    /// Adds one; gives its number, from 0.
    pub fn add(&mut self, signature: Signature) -> u32 {
        let number = u32::try_from(self.signatures.len()).unwrap_or(u32::MAX);
        let keys: Vec<(u32, u64)> = self.keys(&signature).collect();
        for key in keys {
            let bucket = self.buckets.entry(key).or_default();
            if bucket.len() < MAX_BUCKET {
                bucket.push(number);
            }
        }
        self.signatures.push(signature);
        number
    }

    fn keys(&self, signature: &Signature) -> impl Iterator<Item = (u32, u64)> {
        let bands = signature.0.chunks_exact(self.band_places);
        (0_u32..).zip(bands.map(|band| band.iter().fold(0, |hash, place| mix(hash ^ u64::from(*place)))))
    }
}

/// Places in a band: as many as still let a pair of the threshold's similarity share a band with the wanted probability.
#[expect(clippy::cast_possible_truncation, clippy::cast_possible_wrap, reason = "at most 128")]
fn band_places(threshold: f64) -> usize {
    let recall = |places: usize| 1.0 - (1.0 - threshold.powi(places as i32)).powi((PERMUTATIONS / places) as i32);
    (1..=32).rev().find(|places| recall(*places) >= RECALL).unwrap_or(1)
}

#[cfg(test)]
mod tests {
    use super::super::example::samples::{text, words};
    use super::*;

    fn signature(said: &str) -> Signature {
        Signature::of(&text(said).body).expect("words")
    }

    #[test]
    fn the_estimate_is_near_the_truth() {
        for shared in [20, 50, 80, 95] {
            // Two texts of 200 words with so many per cent of their first words in common.
            let same = 2 * shared;
            let one = words(0..200);
            let other = words((0..same).chain(10_000..10_000 + 200 - same));
            let (in_both, in_one) = (f64::from(same) - 2.0, 198.0);
            let truth = in_both / (2.0 * in_one - in_both);
            let estimate = signature(&one).similarity(&signature(&other));
            assert!((estimate - truth).abs() < 0.13, "{shared}: {estimate} for {truth}");
        }
    }

    #[test]
    fn case_and_punctuation_do_not_count_and_scripts_without_spaces_have_words() {
        assert_eq!(signature("Hello, World! How are you?"), signature("hello world\nhow ARE you"));
        assert!(signature("今日は天気がとても良いですね").similarity(&signature("今日は天気がとても良いですよ")) > 0.6);
        assert!(Signature::of(&text("?!…").body).is_none());
        assert_ne!(signature("a"), signature("b"));
    }

    #[test]
    fn signatures_are_the_same_everywhere() {
        let known = signature("the same text has the same signature on every machine");
        assert_eq!(&known.0[..4], &[1_465_505_606, 86_832_263, 446_007_576, 1_077_450_732]);
    }

    #[test]
    fn similar_ones_are_found_and_others_are_not() {
        let mut index = Index::new(0.8);
        for n in 0..300 {
            assert_eq!(index.add(signature(&words(n * 1_000..n * 1_000 + 100))), n);
        }
        let nearly = signature(&words((7_000..7_097).chain([1, 2, 3])));
        assert_eq!(index.similar(&nearly, false), [7]);
        assert!(index.similar(&signature(&words(500_000..500_100)), false).is_empty());
        assert_eq!([0.5, 0.7, 0.9, 1.0].map(band_places), [3, 4, 10, 32]);
    }

    #[test]
    fn texts_that_are_all_alike_are_compared_with_a_few_only() {
        let mut index = Index::new(0.7);
        for _ in 0..5_000 {
            index.add(signature("always the same few words"));
        }
        assert_eq!(index.similar(&signature("always the same few words"), false).len(), MAX_BUCKET);
    }
}
