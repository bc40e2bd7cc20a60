//! Which backend has already read the beginning of a prompt.
//!
//! A server keeps what it computed for earlier prompts: one that begins the same way is answered sooner there. [`Prefixes`] remembers,
//! as hashes only, which beginnings each backend has seen and has not yet let go of, tells for a new request who holds the most of
//! it and what that saves, and corrects itself by what backends report afterwards. Sessions stay where they were.
//!
//! Promises: bounded in every direction, reaching a bound is counted; deciding is pure ([`PrefixIndex`]), and wrong memory only costs
//! time, never an answer. Does not choose a backend: that is `routing`'s.

mod chain;
mod index;
mod sessions;
mod speed;
#[cfg(test)]
mod tests;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::domain::generation::{Timing, Usage};
use crate::domain::id::ModelName;
use crate::telemetry::Metrics;

pub use chain::Chain;
pub use index::{Observed, PrefixIndex, Verdict, Warm};
pub use speed::Speed;

/// Bounds on what is remembered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Whether beginnings are remembered at all.
    pub enabled: bool,
    /// Text that one hash stands for, in bytes.
    pub block_bytes: usize,
    /// Blocks of one prompt that are looked at; what follows is not remembered.
    pub max_prompt_blocks: usize,
    /// Blocks remembered in all; beyond, the prompts that were used longest ago are forgotten.
    pub max_blocks: usize,
    /// Tokens of different prompts that one backend is believed to keep for one model; beyond, the oldest prompts count as lost.
    pub max_warm_tokens: u64,
    /// Sessions whose backend is remembered.
    pub max_sessions: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            enabled: true,
            block_bytes: 256,
            max_prompt_blocks: 1024,
            max_blocks: 200_000,
            // Measured by users of llama-server (8 GiB for each runner): six conversations of 12,500 tokens stay, nine do not.
            max_warm_tokens: 80_000,
            max_sessions: 10_000,
        }
    }
}

/// The index, shared. Cheap to clone. Every method takes a lock for microseconds and never waits otherwise.
#[derive(Debug, Clone)]
pub struct Prefixes {
    index: Arc<Mutex<PrefixIndex>>,
    metrics: Metrics,
    config: Arc<Config>,
}

impl Prefixes {
    #[must_use]
    pub fn new(config: Config, metrics: Metrics) -> Self {
        let index = Arc::new(Mutex::new(PrefixIndex::new(config.clone())));
        Self { index, metrics, config: Arc::new(config) }
    }

    #[must_use]
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Who holds the most of this prompt, best first.
    #[must_use]
    pub fn longest(&self, chain: &Chain) -> Vec<Warm> {
        if self.config.enabled { self.lock().longest(chain) } else { Vec::new() }
    }

    /// A backend was given this prompt, of about so many tokens.
    pub fn insert(&self, backend: &str, chain: &Chain, tokens: u64) {
        if self.config.enabled {
            let (evicted, blocks) = {
                let mut index = self.lock();
                (index.insert(backend, chain, tokens), index.blocks())
            };
            self.metrics.prefix_blocks(blocks, evicted);
        }
    }

    /// A backend has answered. `predicted` is what [`Prefixes::longest`] said of it before it was asked.
    pub fn observed(&self, backend: &str, chain: &Chain, predicted: Option<&Warm>, usage: &Usage, timing: &Timing) -> Option<Observed> {
        if !self.config.enabled {
            return None;
        }
        let (observed, blocks) = {
            let mut index = self.lock();
            (index.observed(backend, chain, predicted, usage, timing), index.blocks())
        };
        self.metrics.prefix_blocks(blocks, observed.evicted);
        self.metrics.prefix_observed(backend, observed.verdict.as_str(), observed.cached_tokens, observed.saved);
        Some(observed)
    }

    /// What a backend held for a model is gone: it was unloaded or loaded anew.
    pub fn forget(&self, backend: &str, model: &ModelName) {
        self.lock().forget(backend, model);
    }

    /// A backend is gone, or was started anew.
    pub fn forget_backend(&self, backend: &str) {
        self.lock().forget_backend(backend);
    }

    /// A session was served there. The caller puts the tenant into its name.
    pub fn stick(&self, session: &str, backend: &str) {
        self.lock().stick(session, backend);
    }

    /// Where a session was served last.
    #[must_use]
    pub fn where_is(&self, session: &str) -> Option<Arc<str>> {
        self.lock().where_is(session)
    }

    /// The time that so many warm tokens save there. `None` until its speed is known.
    #[must_use]
    pub fn saves(&self, backend: &str, model: &ModelName, tokens: u64) -> Option<Duration> {
        self.lock().saves(backend, model, tokens)
    }

    fn lock(&self) -> MutexGuard<'_, PrefixIndex> {
        self.index.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
