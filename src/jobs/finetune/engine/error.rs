//! Why a model cannot be trained.

use crate::lm;

/// What went wrong while the engine was being made.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("the model cannot be trained: {0}")]
    Model(#[from] lm::Error),
    #[error("the setting `{what}` cannot be used: {why}")]
    Setting { what: &'static str, why: String },
    #[error("nothing of the model is called `{pattern}`; its matrices are {known}")]
    NoTarget { pattern: String, known: String },
    #[error("the device failed: {0}")]
    Device(#[from] candle_core::Error),
}

pub type Result<T> = std::result::Result<T, Error>;
