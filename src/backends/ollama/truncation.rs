//! Whether a server cut a prompt without being allowed to.
//!
//! Servers that know `truncate` refuse such a prompt and say both numbers. Older ones ignore it, cut to about half of the context and say
//! nothing but how many tokens they read. That is found here: the count is where a cut would leave it, while the text must have had
//! far more tokens, going by how many bytes a token of this model has had so far. An estimate, and meant to miss rather
//! than to accuse. Pure.

use crate::domain::generation::Truncated;

/// Bytes per token before anything is known; English prose has between 4 and 5.
const USUAL: f64 = 4.0;
/// Shorter prompts say little: the template's tokens are among theirs.
const LEAST_BYTES: u64 = 400;
/// How many times more tokens than were read the text must have had, by the estimate: once it is learnt, and before.
const SURPLUS: f64 = 1.5;
const SURPLUS_UNLEARNT: f64 = 3.0;
const ENOUGH_SAMPLES: u32 = 3;

/// How many bytes a token of one model has.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Ratio {
    bytes_per_token: f64,
    samples: u32,
}

impl Default for Ratio {
    fn default() -> Self {
        Self { bytes_per_token: USUAL, samples: 0 }
    }
}

impl Ratio {
    /// Learns from a prompt that was read whole.
    pub fn learn(&mut self, bytes: u64, tokens: u64) {
        if bytes < LEAST_BYTES || tokens == 0 {
            return;
        }
        let seen = number(bytes) / number(tokens);
        let weight = if self.samples < ENOUGH_SAMPLES { 0.5 } else { 0.1 };
        self.bytes_per_token += (seen - self.bytes_per_token) * weight;
        self.samples = self.samples.saturating_add(1);
    }

    /// What a cut did, if one shows: `bytes` of text of which `tokens` were read into a context of `context` tokens.
    #[must_use]
    pub fn cut(&self, bytes: u64, tokens: u64, context: u32) -> Option<Truncated> {
        let surplus = if self.samples < ENOUGH_SAMPLES { SURPLUS_UNLEARNT } else { SURPLUS };
        let expected = number(bytes) / self.bytes_per_token;
        let after_a_cut = tokens.abs_diff(u64::from(context) / 2) <= u64::from(context / 64).max(16);
        let found = after_a_cut && expected > f64::from(context) && expected >= surplus * number(tokens);
        found.then(|| Truncated { prompt_tokens: whole(expected), kept_tokens: tokens })
    }
}

#[expect(clippy::cast_precision_loss, reason = "an estimate; 2^53 bytes is far off")]
fn number(value: u64) -> f64 {
    value as f64
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a quotient of two counts: finite and not negative")]
fn whole(value: f64) -> u64 {
    value.round() as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn learnt(bytes_per_token: u64) -> Ratio {
        let mut ratio = Ratio::default();
        for _ in 0..40 {
            ratio.learn(1000 * bytes_per_token, 1000);
        }
        ratio
    }

    #[test]
    fn the_cut_that_was_measured_is_found() {
        let cut = learnt(5).cut(30_010, 2051, 4096).expect("a cut");
        assert_eq!((cut.kept_tokens, cut.prompt_tokens.abs_diff(6002) < 100), (2051, true), "{cut:?}");
        assert!(Ratio::default().cut(30_010, 2051, 4096).is_some(), "a large surplus shows without learning");
        assert!(Ratio::default().cut(20_000, 2051, 4096).is_none(), "a small one does not");
    }

    #[test]
    fn what_may_be_whole_is_not_called_cut() {
        let ratio = learnt(5);
        for (bytes, tokens, context, why) in [
            (10_255, 2051, 4096, "exactly its tokens"),
            (20_000, 2051, 4096, "long words, but it fits"),
            (60_000, 3000, 4096, "not where a cut leaves it"),
            (60_000, 2051, 32_768, "a larger context"),
            (60_000, 12, 4096, "only what no cache held was counted"),
            (0, 0, 4096, "nothing"),
            (0, 0, 0, "nothing at all"),
        ] {
            assert_eq!(ratio.cut(bytes, tokens, context), None, "{why}");
        }
    }

    #[test]
    fn learning_follows_the_model_and_ignores_what_says_little() {
        let mut ratio = learnt(3);
        assert!((ratio.bytes_per_token - 3.0).abs() < 0.1);
        let before = ratio;
        ratio.learn(LEAST_BYTES - 1, 1);
        ratio.learn(10_000, 0);
        assert_eq!(ratio, before);
    }
}
