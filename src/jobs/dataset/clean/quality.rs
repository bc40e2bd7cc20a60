//! Rows that are too short, too long, say the same over and over, or are hardly text.

use std::collections::HashSet;

use serde::{Deserialize, Serialize};

use crate::jobs::dataset::error::Error;
use crate::jobs::dataset::example::Body;

/// Shorter texts say too little about repetition, in words.
const REPETITION_WORDS: usize = 50;
/// Runs of so many words are looked for twice, as for Gopher (arXiv:2112.11446, table A1).
const RUN_WORDS: usize = 5;
/// Shorter texts say too little about letters, in characters: an answer may be a number.
const LETTERS_CHARS: usize = 40;

/// What is too bad to be learnt from. All of it is about the answers, but for the greatest length, which is that of the row.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Quality {
    /// Characters of all answers together.
    pub min_chars: usize,
    /// Characters of the row; `null`: any number.
    pub max_chars: Option<usize>,
    /// Greatest share of words that are in a run of five words that was there before; `null`: any.
    pub max_repetition: Option<f64>,
    /// Greatest share of characters that are neither letters nor white space; `null`: any.
    pub max_symbols: Option<f64>,
}

impl Default for Quality {
    fn default() -> Self {
        Self { min_chars: 1, max_chars: None, max_repetition: Some(0.6), max_symbols: Some(0.9) }
    }
}

impl Quality {
    #[must_use]
    pub fn none() -> Self {
        Self { min_chars: 0, max_chars: None, max_repetition: None, max_symbols: None }
    }

    pub(super) fn validate(&self) -> Result<(), Error> {
        for (name, share) in [("max_repetition", self.max_repetition), ("max_symbols", self.max_symbols)] {
            if share.is_some_and(|share| !(0.0..=1.0).contains(&share)) {
                return Err(Error::Options(format!("`{name}` takes a share from 0 to 1, or null")));
            }
        }
        Ok(())
    }

    /// Why a row is left out.
    pub(super) fn fault(&self, body: &Body) -> Option<&'static str> {
        let chars: usize = body.answers().map(|text| text.chars().count()).sum();
        if chars < self.min_chars || (chars == 0 && self.min_chars > 0) {
            return Some("too short");
        }
        if self.max_chars.is_some_and(|most| body.texts().map(|text| text.chars().count()).sum::<usize>() > most) {
            return Some("too long");
        }
        if self.max_symbols.is_some_and(|most| body.answers().any(|text| symbols(text) > most)) {
            return Some("hardly any letters");
        }
        if self.max_repetition.is_some_and(|most| body.answers().any(|text| repetition(text) > most)) {
            return Some("repeats itself");
        }
        None
    }
}

/// Share of the words that are in a run of words that was there before.
fn repetition(text: &str) -> f64 {
    let words: Vec<&str> = text.split_whitespace().collect();
    if words.len() < REPETITION_WORDS {
        return 0.0;
    }
    let mut repeated = vec![false; words.len()];
    let mut seen: HashSet<&[&str]> = HashSet::with_capacity(words.len());
    for (start, run) in words.windows(RUN_WORDS).enumerate() {
        if !seen.insert(run) {
            repeated[start..start + RUN_WORDS].fill(true);
        }
    }
    share(repeated.iter().filter(|repeated| **repeated).count(), words.len())
}

/// Share of the characters that are neither letters nor white space.
fn symbols(text: &str) -> f64 {
    let shown = || text.chars().filter(|c| !c.is_whitespace());
    let count = shown().count();
    if count < LETTERS_CHARS {
        return 0.0;
    }
    share(shown().filter(|c| !c.is_alphabetic()).count(), count)
}

#[expect(clippy::cast_precision_loss, reason = "counts within one row")]
fn share(part: usize, whole: usize) -> f64 {
    part as f64 / whole as f64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::jobs::dataset::example::samples::{chat, words};

    #[test]
    fn rubbish_is_told_from_text() {
        let quality = Quality { min_chars: 3, max_chars: Some(2_000), ..Quality::default() };
        let fault = |answer: &str| quality.fault(&chat("question", answer).body);
        let distinct = words(0..80);
        assert_eq!(fault(&distinct), None);
        assert_eq!(fault("42!"), None);
        assert_eq!(fault("ab"), Some("too short"));
        assert_eq!(fault(&"x".repeat(2_001)), Some("too long"));
        assert_eq!(fault(&"the same words again and again ".repeat(20)), Some("repeats itself"));
        assert_eq!(fault(&"=-*/ ".repeat(20)), Some("hardly any letters"));
        assert_eq!(Quality::none().fault(&chat("q", &"=-*/ ".repeat(2_000)).body), None);
        assert!((repetition(&(distinct.clone() + &distinct)) - 0.5).abs() < 0.01);
    }
}
