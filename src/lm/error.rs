//! What can go wrong between a model file and its logits.

use std::io;

/// Why a model cannot be loaded or run.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("the architecture `{architecture}` is not supported; these are: {supported}")]
    Architecture { architecture: String, supported: String },
    /// The header says something that contradicts itself or that no decoder can be built from.
    #[error("the model's header is not usable: `{key}` {why}")]
    Header { key: String, why: String },
    /// The model uses something that is not built (yet).
    #[error("the model needs {what}, which is not supported")]
    Unsupported { what: String },
    #[error("the tensor `{name}` is missing")]
    MissingTensor { name: String },
    #[error("the tensor `{name}` has the dimensions {found:?}, expected {expected:?}")]
    Shape { name: String, found: Vec<u64>, expected: Vec<u64> },
    #[error("the tensor `{name}` is stored as {kind}, which is not supported; these are: {supported}")]
    TensorKind { name: String, kind: &'static str, supported: &'static str },
    #[error("cannot read the model file: {0}")]
    Io(#[from] io::Error),
    #[error("the device `{name}` was asked for, but {why}")]
    Device { name: &'static str, why: String },
    #[error("the token {token} is outside the vocabulary of {vocab_size}")]
    Token { token: u32, vocab_size: usize },
    #[error("no tokens were given")]
    NoTokens,
    #[error("the cache has room for {capacity} tokens, {wanted} are needed")]
    CacheFull { capacity: usize, wanted: usize },
    #[error("the cache was made for another model")]
    ForeignCache,
    #[error("the accelerator failed: {0}")]
    Candle(#[from] candle_core::Error),
}

/// What the functions of `lm` answer.
pub type Result<T> = std::result::Result<T, Error>;
