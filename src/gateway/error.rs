//! Why a generation gave no answer.

use std::time::Duration;

use crate::backends;
use crate::domain::blame::{Blame, Retry};

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("no backend has the model `{model}`{}", did_you_mean(near))]
    ModelNotFound {
        model: String,
        /// Names that may have been meant.
        near: Vec<String>,
        /// Backends that could not be asked whether they have it, each with the reason.
        unasked: Vec<String>,
    },
    #[error("the request names no model, and there is no default")]
    ModelMissing {
        /// What could have been named.
        known: Vec<String>,
    },
    #[error("no backend can be reached: {}", reasons.join("; "))]
    NoBackend { reasons: Vec<String> },
    #[error("the deadline of {allowed:?} passed while {stage}")]
    Deadline { stage: Stage, allowed: Duration },
    #[error("a deadline of {asked:?} is longer than the allowed {most:?}")]
    DeadlineTooLong { asked: Duration, most: Duration },
    #[error("the answer grew beyond {bound_bytes} bytes")]
    AnswerTooLarge { bound_bytes: usize },
    #[error("backend {backend}: {source}")]
    Backend { backend: String, source: backends::Error },
}

fn did_you_mean(near: &[String]) -> String {
    if near.is_empty() { String::new() } else { format!("; did you mean {}?", near.join(", ")) }
}

/// What a generation was doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    Waiting,
    Generating,
}

impl std::fmt::Display for Stage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Waiting => "waiting for the first token",
            Self::Generating => "generating",
        })
    }
}

impl Error {
    #[must_use]
    pub fn blame(&self) -> Blame {
        match self {
            Self::ModelNotFound { .. } | Self::ModelMissing { .. } | Self::DeadlineTooLong { .. } | Self::Deadline { .. } => Blame::Client,
            Self::NoBackend { .. } => Blame::Upstream,
            Self::AnswerTooLarge { .. } => Blame::Gateway,
            Self::Backend { source, .. } => source.blame(),
        }
    }

    #[must_use]
    pub fn retry(&self) -> Retry {
        match self {
            Self::NoBackend { .. } | Self::Deadline { .. } => Retry::Elsewhere,
            Self::Backend { source, .. } => source.retry(),
            _ => Retry::Never,
        }
    }

    /// A short word from a closed set, for metrics, rows and clients.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::ModelNotFound { .. } => "model_not_found",
            Self::ModelMissing { .. } => "model_missing",
            Self::NoBackend { .. } => "unreachable",
            Self::Deadline { .. } => "deadline",
            Self::DeadlineTooLong { .. } => "deadline_too_long",
            Self::AnswerTooLarge { .. } => "answer_too_large",
            Self::Backend { source, .. } => source.kind(),
        }
    }
}
