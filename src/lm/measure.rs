//! How fast a model runs here: what `bench/` compares with other engines.

use std::path::Path;
use std::time::{Duration, Instant};

use serde::Serialize;

use crate::gguf::Header;

use super::device::Device;
use super::error::{Error, Result};
use super::{Cache, Model};

/// Tokens of the prompt, and tokens generated one after the other behind it.
pub const PROMPT_TOKENS: usize = 512;
pub const GENERATED_TOKENS: usize = 64;

/// From one token of the prompt to the next: a number that shares no factor with the size of a vocabulary.
const PROMPT_STEP: usize = 7_919;

/// Times of one run, and the rates they amount to.
#[derive(Debug, Clone, Serialize)]
pub struct Measurement {
    pub device: String,
    /// Reading the header and taking the weights into use.
    pub load_s: f64,
    pub prompt_tokens: usize,
    pub prefill_s: f64,
    pub prefill_tokens_per_s: f64,
    pub generated_tokens: usize,
    pub decode_s: f64,
    pub decode_tokens_per_s: f64,
}

/// Loads the model at `path`, reads a prompt of [`PROMPT_TOKENS`] and generates [`GENERATED_TOKENS`] greedily.
pub fn measure(path: &Path, threads: Option<usize>) -> Result<Measurement> {
    let device = Device::cpu(threads);
    let begun = Instant::now();
    let header = Header::read_file(path).map_err(|error| Error::Header { key: path.display().to_string(), why: error.to_string() })?;
    let model = Model::load(path, &header, &device)?;
    let load = begun.elapsed();
    let mut cache = model.new_cache(PROMPT_TOKENS + GENERATED_TOKENS)?;
    let prompt = prompt(&model);
    // The first pass finds caches cold and threads asleep.
    model.forward(&prompt[..32], &mut cache)?;
    cache.clear();
    let begun = Instant::now();
    let logits = model.forward(&prompt, &mut cache)?;
    let prefill = begun.elapsed();
    let begun = Instant::now();
    generate(&model, logits, &mut cache)?;
    let decode = begun.elapsed();
    Ok(Measurement {
        device: device.describe(),
        load_s: load.as_secs_f64(),
        prompt_tokens: PROMPT_TOKENS,
        prefill_s: prefill.as_secs_f64(),
        prefill_tokens_per_s: rate(PROMPT_TOKENS, prefill),
        generated_tokens: GENERATED_TOKENS,
        decode_s: decode.as_secs_f64(),
        decode_tokens_per_s: rate(GENERATED_TOKENS, decode),
    })
}

/// Any tokens do: the work is the same.
fn prompt(model: &Model) -> Vec<u32> {
    let vocab_size = u32::try_from(model.config().vocab_size).unwrap_or(u32::MAX);
    (0..vocab_size.max(1)).cycle().step_by(PROMPT_STEP).take(PROMPT_TOKENS).collect()
}

fn generate(model: &Model, mut logits: Vec<f32>, cache: &mut Cache) -> Result<()> {
    for _ in 0..GENERATED_TOKENS {
        logits = model.forward(&[largest(&logits)], cache)?;
    }
    Ok(())
}

/// The index of the largest of some logits; of several, the first.
#[must_use]
pub fn largest(logits: &[f32]) -> u32 {
    let mut best = 0;
    for (index, logit) in logits.iter().enumerate() {
        if *logit > logits[best] {
            best = index;
        }
    }
    u32::try_from(best).unwrap_or(u32::MAX)
}

#[expect(clippy::cast_precision_loss, reason = "a few hundred tokens")]
fn rate(tokens: usize, time: Duration) -> f64 {
    tokens as f64 / time.as_secs_f64()
}
