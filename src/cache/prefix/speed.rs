//! How fast a backend reads a prompt, and from that whether it read all of it.
//!
//! Servers before 0.34 report the length of the whole prompt, but the time for the part that was not cached: a prompt that was read far
//! faster than the backend reads was partly cached, `cached ≈ tokens − duration × speed` (ollama-compat, section 2.3).

use std::time::Duration;

/// Fewer tokens than this are read in a time that says nothing about speed.
const FEWEST_TOKENS: u64 = 32;
/// A reading this much faster than usual cannot be one of the whole prompt.
const SUSPICIOUS: f64 = 2.0;
/// Weight of a new reading. A slower one counts more: it cannot come from a cache, so the old figure was too high.
const FASTER: f64 = 0.1;
const SLOWER: f64 = 0.4;
/// Less than this share of a prompt is not believed to be cached: load and chance explain it as well.
const LEAST_SHARE: f64 = 0.25;

/// The measured speed of one model on one backend.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Speed {
    tokens_per_second: Option<f64>,
}

impl Speed {
    /// Prompt tokens a second; `None` before the first reading.
    #[must_use]
    pub fn tokens_per_second(&self) -> Option<f64> {
        self.tokens_per_second
    }

    /// Takes in a reading of `tokens` that are known not to come from a cache, or not believed to.
    #[expect(clippy::cast_precision_loss, reason = "a count of tokens")]
    pub fn note(&mut self, tokens: u64, took: Duration) {
        if tokens < FEWEST_TOKENS || took.is_zero() {
            return;
        }
        let seen = tokens as f64 / took.as_secs_f64();
        self.tokens_per_second = Some(match self.tokens_per_second {
            None => seen,
            Some(known) if seen > known => known + (seen.min(known * SUSPICIOUS) - known) * FASTER,
            Some(known) => known + (seen - known) * SLOWER,
        });
    }

    /// How many of `tokens` were cached, by the time they took. `None` when nothing can be said.
    #[must_use]
    #[expect(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a count of tokens, from 0 up"
    )]
    pub fn cached(&self, tokens: u64, took: Duration) -> Option<u64> {
        let speed = self.tokens_per_second?;
        if tokens < FEWEST_TOKENS {
            return None;
        }
        let cached = (tokens as f64 - took.as_secs_f64() * speed).max(0.0);
        Some(if cached < tokens as f64 * LEAST_SHARE { 0 } else { cached as u64 })
    }

    /// Whether a reading is too fast to be one of the whole prompt.
    #[must_use]
    pub fn is_suspicious(&self, tokens: u64, took: Duration) -> bool {
        self.cached(tokens, took).is_some_and(|cached| cached * 2 >= tokens)
    }

    /// The time it takes to read so many tokens.
    #[must_use]
    #[expect(clippy::cast_precision_loss, reason = "a count of tokens")]
    pub fn time_for(&self, tokens: u64) -> Option<Duration> {
        Duration::try_from_secs_f64(tokens as f64 / self.tokens_per_second?).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The measured times of a 362-token prompt: first, repeated, with another last word (ollama-compat, section 0).
    const FIRST: Duration = Duration::from_millis(628);
    const REPEATED: Duration = Duration::from_millis(38);

    #[test]
    fn measured_times_are_told_apart() {
        let mut speed = Speed::default();
        assert_eq!(speed.cached(362, REPEATED), None, "nothing is known yet");
        speed.note(362, FIRST);
        assert_eq!(speed.cached(362, FIRST), Some(0));
        assert_eq!(speed.cached(362, FIRST.mul_f64(0.8)), Some(0), "chance explains it");
        assert!(speed.cached(362, REPEATED).is_some_and(|cached| (335..345).contains(&cached)));
        assert!(speed.is_suspicious(362, REPEATED) && !speed.is_suspicious(362, FIRST));
        assert_eq!(speed.cached(4, Duration::from_millis(1)), None);
    }

    #[test]
    fn a_figure_that_began_too_high_comes_down_and_one_outlier_moves_little() {
        let mut speed = Speed::default();
        speed.note(362, REPEATED);
        for _ in 0..12 {
            speed.note(362, FIRST);
        }
        let known = speed.tokens_per_second().expect("known");
        assert!((570.0..620.0).contains(&known), "{known}");
        speed.note(362, Duration::from_millis(1));
        assert!(speed.tokens_per_second().is_some_and(|after| after <= known * 1.11));
    }
}
