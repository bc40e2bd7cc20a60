//! Why a generation gave no answer.

use std::sync::Arc;
use std::time::Duration;

use crate::backends;
use crate::domain::blame::{Blame, Retry};
use crate::domain::span;
use crate::{limits, scheduler};

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
    #[error("this key may not use the model `{model}`; it may use {}", allowed.join(", "))]
    ModelForbidden { model: String, allowed: Vec<String> },
    #[error("no backend can be reached: {}", reasons.join("; "))]
    NoBackend { reasons: Vec<String> },
    #[error("no backend that answers has the model `{model}`, and not all answer: {}", unasked.join("; "))]
    ModelUnasked { model: String, unasked: Vec<String> },
    #[error("the deadline of {} passed while {stage}", span::format(*allowed))]
    Deadline { stage: Stage, allowed: Duration },
    #[error("a deadline of {} is longer than the allowed {}", span::format(*asked), span::format(*most))]
    DeadlineTooLong { asked: Duration, most: Duration },
    #[error("the answer grew beyond {bound_bytes} bytes")]
    AnswerTooLarge { bound_bytes: usize },
    #[error("{stage} took longer than the allowed {}", span::format(*allowed))]
    TooSlow { stage: Stage, allowed: Duration },
    #[error(transparent)]
    Limited(#[from] limits::Refusal),
    #[error(transparent)]
    Queue(#[from] scheduler::Refusal),
    #[error("the request asks for a cached answer only, and there is none: {why}")]
    NotCached { why: &'static str },
    #[error("a model leaves memory for all its users, which only an operator may ask for")]
    UnloadForbidden,
    #[error("the key was revoked or has expired while its request ran")]
    KeyEnded,
    #[error("the generation was stopped")]
    Stopped,
    #[error("this answer has had {last} events, and Last-Event-ID names a later one")]
    EventAhead { last: u64 },
    #[error("no generation with the id `{id}` is kept")]
    NothingToResume { id: String },
    #[error("the first {missing} events of this answer are no longer kept")]
    ResumeGone { missing: u64 },
    #[error("a generation with the id `{id}` is running already")]
    IdInUse { id: String },
    #[error("{most} generations are kept for their clients already, and none of them has ended")]
    TooManyKept { most: usize },
    #[error("backend {backend}: {source}")]
    Backend { backend: String, source: backends::Error },
    /// The same failure, told to several who wait for one answer.
    #[error(transparent)]
    Shared(Arc<Error>),
}

fn did_you_mean(near: &[String]) -> String {
    if near.is_empty() { String::new() } else { format!("; did you mean {}?", near.join(", ")) }
}

/// What a generation was doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    Waiting,
    Loading,
    FirstToken,
    Generating,
}

impl std::fmt::Display for Stage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Waiting => "waiting for the first token",
            Self::Loading => "loading the model",
            Self::FirstToken => "reading the prompt",
            Self::Generating => "generating",
        })
    }
}

impl Error {
    #[must_use]
    pub fn blame(&self) -> Blame {
        match self {
            Self::ModelNotFound { .. }
            | Self::ModelMissing { .. }
            | Self::ModelForbidden { .. }
            | Self::DeadlineTooLong { .. }
            | Self::Deadline { .. }
            | Self::Limited(_)
            | Self::NotCached { .. }
            | Self::KeyEnded
            | Self::Stopped
            | Self::EventAhead { .. }
            | Self::UnloadForbidden
            | Self::NothingToResume { .. }
            | Self::IdInUse { .. }
            | Self::ResumeGone { .. } => Blame::Client,
            Self::NoBackend { .. } | Self::ModelUnasked { .. } | Self::TooSlow { .. } => Blame::Upstream,
            Self::AnswerTooLarge { .. } | Self::TooManyKept { .. } => Blame::Gateway,
            Self::Queue(refusal) => refusal.blame(),
            Self::Backend { source, .. } => source.blame(),
            Self::Shared(error) => error.blame(),
        }
    }

    #[must_use]
    pub fn retry(&self) -> Retry {
        match self {
            Self::NoBackend { .. } | Self::ModelUnasked { .. } | Self::Deadline { .. } | Self::TooSlow { .. } => Retry::Elsewhere,
            Self::Limited(refusal) => refusal.retry_after.map_or(Retry::Never, Retry::After),
            Self::Queue(refusal) => refusal.retry(),
            Self::Backend { source, .. } => source.retry(),
            Self::Shared(error) => error.retry(),
            _ => Retry::Never,
        }
    }

    /// Whether a backend failed in a way that another one may not.
    #[must_use]
    pub fn may_pass_elsewhere(&self) -> bool {
        matches!(self, Self::Backend { .. } | Self::TooSlow { .. }) && self.retry() != Retry::Never
    }

    /// Whether the backend never heard of the request: trying it elsewhere gives no server more work than was asked for.
    #[must_use]
    pub fn is_unheard(&self) -> bool {
        matches!(self, Self::Backend { source: backends::Error::Unreachable { .. }, .. })
    }

    /// A short word from a closed set, for metrics, rows and clients.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::ModelNotFound { .. } => "model_not_found",
            Self::ModelMissing { .. } => "model_missing",
            Self::ModelForbidden { .. } => "model_forbidden",
            Self::NoBackend { .. } | Self::ModelUnasked { .. } => "unreachable",
            Self::Deadline { .. } => "deadline",
            Self::DeadlineTooLong { .. } => "deadline_too_long",
            Self::AnswerTooLarge { .. } => "answer_too_large",
            Self::TooSlow { .. } => "too_slow",
            Self::Limited(_) => "limited",
            Self::Queue(refusal) => refusal.kind(),
            Self::NotCached { .. } => "not_cached",
            Self::KeyEnded => "key_ended",
            Self::Stopped => "stopped",
            Self::EventAhead { .. } => "event_id_invalid",
            Self::UnloadForbidden => "unload_forbidden",
            Self::NothingToResume { .. } => "generation_not_found",
            Self::ResumeGone { .. } => "resume_gone",
            Self::IdInUse { .. } => "id_in_use",
            Self::TooManyKept { .. } => "too_many_kept",
            Self::Backend { source, .. } => source.kind(),
            Self::Shared(error) => error.kind(),
        }
    }
}
