//! What can go wrong between the gateway and a backend.

use std::time::Duration;

use crate::domain::blame::{Blame, Retry};
use crate::domain::span;

/// A failed attempt. Says what failed and why; what a client is told of it is decided in `api`.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("the backend does not have the model `{model}`")]
    ModelNotFound { model: String },
    /// The backend refuses the request for what it says, e.g. an option it does not take.
    #[error("the backend refused the request: {message}")]
    Refused { status: u16, message: String },
    /// The backend cannot honour a field of the request (yet).
    #[error("`{field}` cannot be honoured: {why}")]
    Unsupported { field: &'static str, why: String },
    #[error("the prompt has {prompt_tokens} tokens, {over} more than the context of {context_tokens} leaves room for", over = (prompt_tokens + 1).saturating_sub(*context_tokens))]
    ContextTooLong { prompt_tokens: u64, context_tokens: u64 },
    #[error("the model needs {needed_bytes} bytes of memory, {available_bytes} are available")]
    OutOfMemory { needed_bytes: u64, available_bytes: u64 },
    #[error("the backend cannot be reached: {message}")]
    Unreachable { message: String },
    #[error("the backend is overloaded: {message}")]
    Overloaded { message: String, retry_after: Option<Duration> },
    /// The backend answered with a failure of its own (5xx, or an error in the middle of its answer).
    #[error("the backend failed: {message}")]
    Failed { status: Option<u16>, message: String },
    /// The backend broke its own protocol: garbage, a line without end, an end without a final object.
    #[error("the backend's answer is not what its protocol says: {message}")]
    Protocol { message: String },
    /// Nothing came for this long.
    #[error("the backend was silent for {} while {stage}", span::format(*silent))]
    Stalled { stage: &'static str, silent: Duration },
    /// The server is known to be stuck on this model: it is not asked until it has been cured.
    #[error("the backend is stuck on the model `{model}`: {why}")]
    Wedged { model: String, why: String },
    #[error("the backend is shutting down")]
    Closed,
}

impl Error {
    #[must_use]
    pub fn blame(&self) -> Blame {
        match self {
            Self::ModelNotFound { .. } | Self::Refused { .. } | Self::Unsupported { .. } | Self::ContextTooLong { .. } => Blame::Client,
            Self::OutOfMemory { .. } | Self::Closed => Blame::Gateway,
            _ => Blame::Upstream,
        }
    }

    #[must_use]
    pub fn retry(&self) -> Retry {
        match self {
            Self::Refused { .. } | Self::ContextTooLong { .. } => Retry::Never,
            Self::Overloaded { retry_after: Some(after), .. } => Retry::After(*after),
            _ => Retry::Elsewhere,
        }
    }

    /// A short word from a closed set, for metrics and stored rows.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::ModelNotFound { .. } => "model_not_found",
            Self::Refused { .. } => "refused",
            Self::Unsupported { .. } => "unsupported",
            Self::ContextTooLong { .. } => "context_too_long",
            Self::OutOfMemory { .. } => "out_of_memory",
            Self::Unreachable { .. } => "unreachable",
            Self::Overloaded { .. } => "overloaded",
            Self::Failed { .. } => "failed",
            Self::Protocol { .. } => "protocol",
            Self::Stalled { .. } => "stalled",
            Self::Wedged { .. } => "wedged",
            Self::Closed => "closed",
        }
    }
}
