//! What is kept of answers, where, and for how long.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::cache::answer::Speed;
use crate::domain::id::ModelName;
use crate::domain::principal::matches;
use crate::domain::span;

/// Which answers are kept when the client expresses no wish.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Keep {
    /// Those that are the same each time: temperature 0 or a seed.
    #[default]
    Deterministic,
    Everything,
}

/// How long the answers of some models are given again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Ttl {
    /// Pattern of the models' names.
    pub model: String,
    #[serde(with = "span")]
    pub ttl: Duration,
}

/// What is kept, where, and for how long.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    pub enabled: bool,
    pub keep: Keep,
    /// Whether an answer made for one tenant is given to others.
    pub shared: bool,
    /// How fast a kept answer is given to a client that streams.
    pub replay: Speed,
    /// Size of the answers in memory.
    pub max_bytes: u64,
    /// Larger answers are not kept.
    pub max_answer_bytes: usize,
    /// Size of the answers in the database. 0: none are kept there.
    pub durable_max_bytes: u64,
    /// Older answers are not given again. Unset: at any age.
    #[serde(with = "span::option")]
    pub default_ttl: Option<Duration>,
    /// The same for some models; the first that matches holds.
    pub ttl: Vec<Ttl>,
    /// Answers and notes that may wait to be written to the database; more are dropped and counted.
    pub max_waiting: usize,
    /// The same in bytes of answers.
    pub max_waiting_bytes: u64,
    /// Answers that are written at once, at most.
    pub max_batch: usize,
    /// Longest time an answer waits for others.
    #[serde(with = "span")]
    pub flush_interval: Duration,
    /// Time between two searches for old answers.
    #[serde(with = "span")]
    pub prune_interval: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            enabled: true,
            keep: Keep::Deterministic,
            shared: false,
            replay: Speed::Full,
            max_bytes: 128 << 20,
            max_answer_bytes: 4 << 20,
            durable_max_bytes: 1 << 30,
            default_ttl: Some(Duration::from_hours(24)),
            ttl: Vec::new(),
            max_waiting: 10_000,
            max_waiting_bytes: 64 << 20,
            max_batch: 100,
            flush_interval: Duration::from_millis(250),
            prune_interval: Duration::from_mins(1),
        }
    }
}

impl Config {
    /// How long the answers of a model are given again; none: at any age.
    pub(super) fn ttl_of(&self, model: &ModelName) -> Option<Duration> {
        self.ttl.iter().find(|ttl| matches(&ttl.model, model)).map(|ttl| ttl.ttl).or(self.default_ttl)
    }
}
