//! How fast both are on this machine now, in turns, so that whatever else runs meets both alike; and how much memory they take.

use std::time::{Duration, Instant};

use serde::Serialize;

use super::side::Side;
use super::text::Section;
use super::{Both, Error, Step, Work};
use crate::lm::measure::largest;
use crate::lm::memory;

/// Times each is measured; the best counts, because everything else on a machine only ever makes it slower.
const ROUNDS: u64 = 3;
const PROMPT_TOKENS: usize = 256;
const DECODED_TOKENS: usize = 24;

/// Rates of one model, and the memory it takes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct Speed {
    pub prefill_tokens_per_s: f64,
    pub decode_tokens_per_s: f64,
    pub weights_bytes: u64,
    /// Of the keys and values of one conversation as long as the window.
    pub cache_bytes: u64,
}

pub(super) fn run(work: &Work<'_>, sides: &Both<Side>, sections: &[Section]) -> Result<Both<Speed>, Error> {
    let text: String = sections.iter().map(|section| section.text.as_str()).collect();
    let room = sides.reference.model.config().context_length.min(sides.candidate.model.config().context_length);
    let mut prompt = sides.candidate.encode(&text);
    prompt.truncate(PROMPT_TOKENS.min(room.saturating_sub(DECODED_TOKENS).max(1)));
    let mut speeds = sides.as_ref().map(|side| Speed {
        weights_bytes: memory::weights_bytes(&side.header),
        cache_bytes: memory::kv_bytes(side.model.config(), work.spec.window),
        ..Speed::default()
    });
    for round in 0..ROUNDS {
        work.go_on(Step::Timing, round, ROUNDS)?;
        measure(&sides.reference, &prompt, &mut speeds.reference)?;
        measure(&sides.candidate, &prompt, &mut speeds.candidate)?;
    }
    Ok(speeds)
}

fn measure(side: &Side, prompt: &[u32], best: &mut Speed) -> Result<(), Error> {
    let run = Error::run(side.role);
    let mut cache = side.model.new_cache(prompt.len() + DECODED_TOKENS).map_err(&run)?;
    let begun = Instant::now();
    let mut logits = side.model.forward(prompt, &mut cache).map_err(&run)?;
    best.prefill_tokens_per_s = best.prefill_tokens_per_s.max(rate(prompt.len(), begun.elapsed()));
    let begun = Instant::now();
    for _ in 0..DECODED_TOKENS {
        logits = side.model.forward(&[largest(&logits)], &mut cache).map_err(&run)?;
    }
    best.decode_tokens_per_s = best.decode_tokens_per_s.max(rate(DECODED_TOKENS, begun.elapsed()));
    Ok(())
}

#[expect(clippy::cast_precision_loss, reason = "a few hundred tokens")]
fn rate(tokens: usize, time: Duration) -> f64 {
    tokens as f64 / time.as_secs_f64().max(1e-9)
}
