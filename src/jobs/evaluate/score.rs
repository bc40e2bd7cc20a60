//! One answer, and all of them together.

use std::time::Instant;

use serde::{Deserialize, Serialize};

use super::words::{f1, normalised, ratio};
use super::{Error, Item, Labels};
use crate::jobs::subject::Subject;

/// Answers that are kept to be looked at.
const SHOWN: usize = 20;
/// Logits are wide: behind so many tokens of the expected answer they are kept at a time.
const ROWS: usize = 16;

/// How much is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Bounds {
    /// Rows of the data set; of more, some from everywhere.
    pub max_items: usize,
    /// Tokens of an answer.
    pub max_tokens: usize,
}

impl Default for Bounds {
    fn default() -> Self {
        Self { max_items: 200, max_tokens: 128 }
    }
}

/// What the model said to one prompt.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Answer {
    pub prompt: String,
    pub expected: String,
    pub answer: String,
    /// Equal but for case, blanks and signs around words.
    pub right: bool,
    /// Of the words, from 0 to 1.
    pub f1: f64,
    /// Σ −ln p of the expected answer's tokens.
    pub nll: f64,
    pub expected_tokens: usize,
    pub tokens: usize,
    pub seconds: f64,
}

/// What it amounts to.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Score {
    pub items: usize,
    /// Share of right answers.
    pub accuracy: f64,
    /// Mean F1 of the answers' words.
    pub f1: f64,
    /// Where the expected answers are a few labels.
    pub labels: Option<Labels>,
    /// exp of the mean −ln p of the expected answers' tokens.
    pub perplexity: f64,
    pub tokens: usize,
    pub seconds: f64,
    /// The first answers.
    pub answers: Vec<Answer>,
}

impl Answer {
    pub(super) fn of(subject: &Subject, item: &Item, bounds: &Bounds) -> Result<Self, Error> {
        let begun = Instant::now();
        let found = subject.continuation(&item.prompt, bounds.max_tokens.max(1))?;
        let seconds = begun.elapsed().as_secs_f64();
        let text = |tokens: &[u32]| subject.decode(without_end(subject, tokens));
        let (expected, answer) = (text(&item.expected), text(&found));
        let (a, b) = (normalised(&answer), normalised(&expected));
        Ok(Self {
            prompt: subject.decode(&item.prompt),
            right: a == b,
            f1: f1(&a, &b),
            nll: nll(subject, item)?,
            expected_tokens: item.expected.len(),
            tokens: found.len(),
            seconds,
            expected,
            answer,
        })
    }
}

/// Ends of turns are often followed by a line break that is foretold, too.
fn without_end<'a>(subject: &Subject, tokens: &'a [u32]) -> &'a [u32] {
    let end = tokens.iter().position(|token| subject.tokenizer.is_end_of_generation(*token));
    &tokens[..end.unwrap_or(tokens.len())]
}

fn nll(subject: &Subject, item: &Item) -> Result<f64, Error> {
    let Some((last, before)) = item.prompt.split_last() else { return Ok(0.0) };
    let mut cache = subject.model.new_cache(item.prompt.len() + item.expected.len())?;
    subject.model.read(before, &mut cache)?;
    let vocab_size = subject.model.config().vocab_size;
    let read: Vec<u32> = std::iter::once(*last).chain(item.expected.iter().copied()).take(item.expected.len()).collect();
    let mut sum = 0.0;
    for (read, expected) in read.chunks(ROWS).zip(item.expected.chunks(ROWS)) {
        let logits = subject.model.forward_all(read, &mut cache)?;
        sum += logits.chunks_exact(vocab_size).zip(expected).map(|(row, token)| cost(row, *token as usize)).sum::<f64>();
    }
    Ok(sum)
}

/// −ln p of a token.
fn cost(logits: &[f32], token: usize) -> f64 {
    let most = logits.iter().fold(f32::NEG_INFINITY, |most, x| most.max(*x));
    let sum: f64 = logits.iter().map(|x| f64::from(x - most).exp()).sum();
    sum.ln() - f64::from(logits.get(token).map_or(f32::NEG_INFINITY, |x| x - most))
}

impl Score {
    #[expect(clippy::cast_precision_loss, reason = "counts far below 2^53")]
    pub(super) fn of(answers: Vec<Answer>) -> Self {
        let items = answers.len();
        let words: Vec<(String, String)> = answers.iter().map(|one| (normalised(&one.answer), normalised(&one.expected))).collect();
        let expected_tokens: usize = answers.iter().map(|one| one.expected_tokens).sum();
        let nll: f64 = answers.iter().map(|one| one.nll).sum();
        Self {
            items,
            accuracy: ratio(answers.iter().filter(|one| one.right).count(), items),
            f1: answers.iter().map(|one| one.f1).sum::<f64>() * ratio(1, items),
            labels: Labels::of(words.iter().map(|(found, expected)| (found.as_str(), expected.as_str()))),
            perplexity: (nll / expected_tokens.max(1) as f64).exp(),
            tokens: answers.iter().map(|one| one.tokens).sum(),
            seconds: answers.iter().map(|one| one.seconds).sum(),
            answers: answers.into_iter().take(SHOWN).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn costs_are_those_of_a_softmax() {
        assert!((cost(&[0.0, 0.0], 1) - 2_f64.ln()).abs() < 1e-12);
        assert!((cost(&[1000.0, 0.0], 0)).abs() < 1e-12);
        assert!(cost(&[0.0], 7).is_infinite());
    }

    #[test]
    fn answers_add_up() {
        let answer = |answer: &str, expected: &str, nll| Answer {
            prompt: String::new(),
            expected: expected.into(),
            answer: answer.into(),
            right: answer == expected,
            f1: f1(answer, expected),
            nll,
            expected_tokens: 2,
            tokens: 3,
            seconds: 0.5,
        };
        let score = Score::of(vec![answer("a", "a", 1.0), answer("b", "a", 3.0)]);
        assert_eq!((score.items, score.tokens, score.answers.len()), (2, 6, 2));
        assert!((score.accuracy - 0.5).abs() < 1e-12 && (score.perplexity - 1_f64.exp()).abs() < 1e-12);
    }
}
