//! How much memory a model needs, from its header alone.

use crate::gguf::{Header, TensorInfo};

use super::cache::{CHUNK, ring_slots};
use super::config::Config;

/// Bytes of the weights as they lie in the file. They are mapped from there: this much of the page cache is in use while the
/// model runs (on an accelerator: of its memory).
#[must_use]
pub fn weights_bytes(header: &Header) -> u64 {
    header.tensors.iter().map(|tensor: &TensorInfo| tensor.size_bytes).fold(0, u64::saturating_add)
}

/// Bytes of a cache for `tokens` tokens on the CPU: keys and values of half precision, in sliding layers for the window and one
/// chunk only.
#[must_use]
pub fn kv_bytes(config: &Config, tokens: usize) -> u64 {
    let slots = |layer| if config.is_sliding(layer) { ring_slots(config, tokens) } else { tokens };
    let slots = (0..config.block_count).map(|layer| slots(layer) as u64).fold(0, u64::saturating_add);
    slots.saturating_mul(config.kv_length() as u64).saturating_mul(2 * size_of::<u16>() as u64)
}

/// Bytes that one step needs beside weights and cache, about: the activations of a chunk and one row of logits.
#[must_use]
pub fn scratch_bytes(config: &Config) -> u64 {
    let widest = config.feed_forward_length.max(config.query_length()).max(config.embedding_length);
    (CHUNK * (4 * config.embedding_length + 4 * widest) * size_of::<f32>() + config.vocab_size * size_of::<f32>()) as u64
}
