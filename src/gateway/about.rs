//! What is known of a generation when its answer begins.

use std::time::{Duration, Instant};

use crate::cache::key::Key;
use crate::domain::generation::{Change, NotApplied};
use crate::domain::id::ModelName;
use crate::limits::Standing;

/// Who answers, why, and what was done to the request on the way.
#[derive(Debug, Clone)]
pub struct About {
    pub backend: String,
    /// The name that was asked for, as the client (or the configured default) spelled it.
    pub asked: ModelName,
    /// The model that answers.
    pub model: ModelName,
    /// Which step of the fallback hierarchy that is; 0 is the first.
    pub step: usize,
    /// Why it is not the first.
    pub why: Option<String>,
    pub not_applied: Vec<NotApplied>,
    pub changed: Vec<Change>,
    pub cache: CacheOutcome,
    /// What is left of the caller's limits.
    pub standing: Option<Standing>,
    /// How often a backend was asked. 0: none was.
    pub attempts: u32,
    /// When the backend that answers was asked.
    pub asked_at: Option<Instant>,
}

/// What the caches did for an answer.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct CacheOutcome {
    /// `hit`, `semantic`, `joined`, `miss`, `refresh` or `bypass`.
    pub status: &'static str,
    /// Why, in a word from a closed set.
    pub why: &'static str,
    pub age: Option<Duration>,
    /// How alike the questions are, for an answer to a question that is not the same.
    pub similarity: Option<f32>,
    /// Under which the answer is kept, where it was found under one.
    pub key: Option<Key>,
}

impl CacheOutcome {
    #[must_use]
    pub fn new(status: &'static str, why: &'static str) -> Self {
        Self { status, why, age: None, similarity: None, key: None }
    }

    /// Whether the answer was made for this request.
    #[must_use]
    pub fn is_made(&self) -> bool {
        !["hit", "semantic", "joined"].contains(&self.status)
    }

    /// Whether a cache was asked at all.
    #[must_use]
    pub fn is_asked(&self) -> bool {
        self.status != "bypass"
    }
}
