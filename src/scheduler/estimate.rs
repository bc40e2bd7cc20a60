//! How long things take: learnt from what was finished, never from what was promised.
//!
//! [`Lengths`] predicts how much a request will generate, [`Speed`] how long a runner takes for it and for being loaded, and
//! [`Calibration`] corrects predicted waits by how earlier ones came out. All of it forgets slowly, all of it is bounded, and all
//! of it says `None` rather than guess before it has seen anything.

use std::sync::Arc;

use hashbrown::HashMap;

/// Weight of a new observation.
const GAIN: f64 = 0.1;
/// Observations after which an average is trusted: of a key more than that of its model, of a speed at all.
const TRUSTED: u32 = 3;
/// Keys whose lengths are remembered.
const MOST_KEYS: usize = 8_192;

/// A mean that forgets: exact over the first few, exponential after.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Mean {
    value: f64,
    seen: u32,
}

impl Mean {
    pub(super) fn add(&mut self, value: f64) {
        self.seen = self.seen.saturating_add(1);
        let gain = GAIN.max(1.0 / f64::from(self.seen));
        self.value += (value - self.value) * gain;
    }

    pub(super) fn get(&self) -> Option<f64> {
        (self.seen > 0).then_some(self.value)
    }
}

/// A line through observations, by least squares that forget: y = offset + slope · x, neither of them negative.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Line {
    x: Mean,
    y: Mean,
    xx: Mean,
    xy: Mean,
}

impl Line {
    pub(super) fn add(&mut self, x: f64, y: f64) {
        self.x.add(x);
        self.y.add(y);
        self.xx.add(x * x);
        self.xy.add(x * y);
    }

    pub(super) fn at(&self, x: f64) -> Option<f64> {
        let (mean_x, mean_y) = (self.x.get()?, self.y.get()?);
        let variance = self.xx.get()? - mean_x * mean_x;
        let through_zero = if mean_x > 0.0 { mean_y / mean_x } else { 0.0 };
        // With nearly equal observations the slope is noise; half of the time is then taken to grow with x.
        let slope = if variance > 0.01 * mean_x * mean_x && variance > 0.0 {
            ((self.xy.get()? - mean_x * mean_y) / variance).clamp(0.0, through_zero)
        } else {
            through_zero / 2.0
        };
        Some((mean_y + slope * (x - mean_x)).max(0.0))
    }
}

/// Model, key if one is meant, and size of the bound.
type Likeness = (Arc<str>, Option<Arc<str>>, u32);

/// How much is generated, by model, key and bound.
#[derive(Debug, Default)]
pub(super) struct Lengths {
    by_key: HashMap<Likeness, Mean>,
    /// By model: the part of its bound that an answer has.
    parts: HashMap<Arc<str>, Mean>,
}

impl Lengths {
    pub(super) fn finished(&mut self, model: &Arc<str>, key: Option<&Arc<str>>, num_predict: Option<u64>, generated: u64) {
        let value = float(generated).ln_1p();
        if let Some(most) = num_predict.filter(|most| *most > 0) {
            if self.parts.len() >= MOST_KEYS {
                self.parts.clear();
            }
            self.parts.entry(model.clone()).or_default().add((float(generated) / float(most)).min(1.0));
        }
        if let Some(key) = key {
            self.slot(model, Some(key), size(num_predict)).add(value);
        }
        self.slot(model, None, size(num_predict)).add(value);
    }

    /// Tokens, about half of the time fewer, never more than the bound. Of a bound like none that was seen, answers are taken to
    /// have the part that they had of other bounds: by that short ones are told from long ones before either was seen.
    pub(super) fn predict(&self, model: &Arc<str>, key: Option<&Arc<str>>, num_predict: Option<u64>) -> Option<f64> {
        let of = |key: Option<&Arc<str>>| self.by_key.get(&(model.clone(), key.cloned(), size(num_predict)));
        let own = key.and_then(|key| of(Some(key))).filter(|mean| mean.seen >= TRUSTED);
        let seen = own.or_else(|| of(None)).and_then(Mean::get).map(|mean| mean.exp() - 1.0);
        let by_part = || Some(self.parts.get(model)?.get()? * float(num_predict?));
        let length = seen.or_else(by_part)?;
        Some(num_predict.map_or(length, |most| length.min(float(most))))
    }

    fn slot(&mut self, model: &Arc<str>, key: Option<&Arc<str>>, size: u32) -> &mut Mean {
        if self.by_key.len() >= MOST_KEYS {
            // Any will do: those in use come back with the next request.
            let mut keep = 0;
            self.by_key.retain(|_, _| {
                keep += 1;
                keep % 2 == 0
            });
        }
        self.by_key.entry((model.clone(), key.cloned(), size)).or_default()
    }
}

/// Bounds of one order of magnitude (of two) are alike. 0: unbounded.
fn size(num_predict: Option<u64>) -> u32 {
    num_predict.map_or(0, |most| 64 - most.leading_zeros() + 1)
}

/// What was measured of one request, in seconds and tokens.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Measured {
    pub first_token_s: Option<f64>,
    pub total_s: f64,
    /// Prompt tokens that were computed.
    pub prompt_tokens: Option<u64>,
    pub generated: Option<u64>,
    pub loaded: bool,
}

/// How fast a runner is.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Speed {
    first_token: Line,
    rest: Line,
    total: Mean,
    load: Mean,
}

impl Speed {
    pub(super) fn finished(&mut self, measured: &Measured) {
        if let (false, Some(first), Some(prompt)) = (measured.loaded, measured.first_token_s, measured.prompt_tokens) {
            self.first_token.add(float(prompt), first);
        }
        if let (Some(first), Some(generated)) = (measured.first_token_s, measured.generated) {
            self.rest.add(float(generated), (measured.total_s - first).max(0.0));
        }
        if !measured.loaded {
            self.total.add(measured.total_s);
        }
    }

    /// Whether it has seen enough to tell short answers from long ones.
    pub(super) fn is_trusted(&self) -> bool {
        self.rest.x.seen >= TRUSTED
    }

    /// The first token of a request that loaded the model came after this long.
    pub(super) fn loaded(&mut self, first_token_s: f64, prompt_tokens: u64) {
        self.load.add((first_token_s - self.first_token.at(float(prompt_tokens)).unwrap_or_default()).max(0.0));
    }

    /// Expected time for a request on its own, in seconds.
    pub(super) fn service_s(&self, prompt_tokens: u64, generated: Option<f64>) -> Option<f64> {
        let parts = generated.and_then(|tokens| Some(self.first_token.at(float(prompt_tokens))? + self.rest.at(tokens)?));
        parts.or_else(|| self.total.get())
    }

    /// Expected time to the first token of a loaded model, in seconds.
    pub(super) fn first_token_s(&self, prompt_tokens: u64) -> Option<f64> {
        self.first_token.at(float(prompt_tokens))
    }

    pub(super) fn load_s(&self) -> Option<f64> {
        self.load.get()
    }
}

/// How predicted waits came out.
#[derive(Debug, Clone, Copy)]
pub(super) struct Calibration(Mean);

impl Default for Calibration {
    /// A few waits that came out as predicted: the first one that did not is no reason to turn everything round.
    fn default() -> Self {
        Self(Mean { value: 0.0, seen: 4 })
    }
}

/// Waits below this say more about the clock than about the model, in seconds.
const WORTH_LEARNING_S: f64 = 0.05;

impl Calibration {
    /// What to multiply a prediction with; between a quarter and four.
    pub(super) fn factor(&self) -> f64 {
        self.0.get().unwrap_or_default().exp().clamp(0.25, 4.0)
    }

    /// A wait that was predicted, before correction, is over.
    pub(super) fn came_out(&mut self, predicted_s: f64, observed_s: f64) {
        if predicted_s >= WORTH_LEARNING_S && observed_s >= WORTH_LEARNING_S {
            self.0.add((observed_s / predicted_s).ln().clamp(-2.0, 2.0));
        }
    }
}

/// After how many seconds a free slot comes to a request that has this much work before it, in pieces of `turn_s`, when slots fall
/// free after `busy_s`.
#[must_use]
pub(super) fn wait_s(busy_s: &mut [f64], ahead_s: f64, turn_s: f64) -> f64 {
    busy_s.sort_by(f64::total_cmp);
    let (Some(&first), Some(&last)) = (busy_s.first(), busy_s.last()) else { return ahead_s };
    if turn_s > 0.0 && last - first <= 1.5 * turn_s {
        // The slots take turns: so many rounds, and then the one whose turn it is.
        let slots = float(busy_s.len() as u64);
        let pieces = (ahead_s / turn_s).round();
        let rounds = (pieces / slots).floor();
        return rounds * turn_s + busy_s.get(position(pieces - rounds * slots)).copied().unwrap_or(last);
    }
    // One slot is free long before another: the work flows into the early ones first.
    let (mut width, mut sum) = (0.0, ahead_s);
    for (n, &level) in busy_s.iter().enumerate() {
        width += 1.0;
        sum += level;
        if busy_s.get(n + 1).is_none_or(|&next| sum / width <= next) {
            return sum / width;
        }
    }
    ahead_s
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a whole number below the number of slots")]
fn position(value: f64) -> usize {
    value as usize
}

#[expect(clippy::cast_precision_loss, reason = "tokens and slots, far below 2^53")]
pub(super) fn float(value: u64) -> f64 {
    value as f64
}

#[cfg(test)]
#[path = "estimate_tests.rs"]
mod tests;
