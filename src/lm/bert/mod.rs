//! Texts as vectors: sentence encoders of the BERT family, such as all-MiniLM-L6-v2.
//!
//! A folder holds `config.json`, `tokenizer.json` and `model.safetensors`, as Hugging Face lays them out. Promises: the vector of a text is
//! the mean over its tokens with length 1, the same that `sentence-transformers` and Ollama give but for rounding; text beyond the model's
//! positions is cut off, as they do. It does not queue: that is `backends::embedded`'s.

mod config;
mod encoder;
#[cfg(test)]
mod tests;
mod wordpiece;

use std::path::Path;

use super::device::{Device, Kind};
use super::{Error, Result};

pub use config::Config;

use encoder::{Encoder, Weights};
use wordpiece::WordPiece;

/// Files of a model's folder.
const CONFIG: &str = "config.json";
const TOKENIZER: &str = "tokenizer.json";
const WEIGHTS: &str = "model.safetensors";

/// A loaded encoder. Shared by reference: it keeps nothing of a text.
#[derive(Debug)]
pub struct Embedder {
    config: Config,
    tokenizer: WordPiece,
    encoder: Encoder,
    parameters: u64,
    size_bytes: u64,
}

impl Embedder {
    /// Takes the model of a folder into use.
    ///
    /// # Errors
    /// When a file is missing or broken, or the model is not of the supported family.
    pub fn open(folder: &Path, device: &Device) -> Result<Self> {
        let config = Config::read(&folder.join(CONFIG))?;
        let tokenizer = WordPiece::read(&folder.join(TOKENIZER), config.vocab_size)?;
        let path = folder.join(WEIGHTS);
        let size_bytes = std::fs::metadata(&path)?.len();
        let device = match &device.0 {
            Kind::Cpu { .. } => candle_core::Device::Cpu,
            Kind::Accelerator { device, .. } => device.clone(),
        };
        let tensors = candle_core::safetensors::load(&path, &device)?;
        let parameters = tensors.values().filter(|tensor| tensor.dtype().is_float()).map(|tensor| tensor.elem_count() as u64).sum();
        let encoder = Encoder::load(&config, &Weights::new(tensors), device)?;
        Ok(Self { config, tokenizer, encoder, parameters, size_bytes })
    }

    #[must_use]
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Number of weights.
    #[must_use]
    pub fn parameters(&self) -> u64 {
        self.parameters
    }

    /// Size of the weights' file.
    #[must_use]
    pub fn size_bytes(&self) -> u64 {
        self.size_bytes
    }

    /// The vector of a text, of length 1. Takes milliseconds: call it where blocking is allowed.
    ///
    /// # Errors
    /// Only what the device answers.
    pub fn embed(&self, text: &str) -> Result<Vec<f32>> {
        self.encoder.embed(&self.tokenizer.tokens(text, self.config.max_position_embeddings))
    }
}

/// What loading takes at most, before anything is loaded: the weights, once as read and once in use.
///
/// # Errors
/// When there is no file of weights.
pub fn needed_bytes(folder: &Path) -> Result<u64> {
    Ok(std::fs::metadata(folder.join(WEIGHTS)).map_err(Error::Io)?.len().saturating_mul(2))
}
