//! Answers to questions that mean the same.
//!
//! A question is turned into a vector by an embedding model, and may be answered with what was answered to one whose vector is
//! near enough. Off by default, since it can be wrong: it holds only where it is configured, only within one [`Scope`] (tenant,
//! model, system prompt, options), only past the guards ([`Features`]), and a share of its hits is checked against a real
//! generation; when too many were false the [`Threshold`] rises by itself.
//!
//! Promises: exact search, bounded by entries a scope and bytes in all, no entry older than configured; texts are not kept, only what the
//! guards take from them. Generic over what is kept. It asks no model itself: vectors come in, and the caller checks the hits it is
//! told to check.

mod config;
mod flat;
mod guards;
mod judge;
mod lists;
mod scope;
mod store;
#[cfg(test)]
mod tests;
mod threshold;
mod tokens;
mod words;

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::domain::id::ModelName;
use crate::domain::principal;
use crate::telemetry::Metrics;

pub use config::{Config, Route};
pub use guards::{Features, Guard};
pub use judge::judge;
pub use scope::Scope;
pub use threshold::{Share, Threshold};

use store::{Kept, NotFound, Store};

/// An answer to a question that means the same.
#[derive(Debug)]
pub struct Hit<V> {
    pub value: Arc<V>,
    /// The cosine of the two questions.
    pub similarity: f32,
    pub age: Duration,
    /// Whether the caller is to generate as well, compare ([`judge`]) and tell what it found ([`Semantic::judged`]).
    pub check: bool,
}

/// Why there is no hit.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Miss {
    /// Nothing is kept in this scope.
    Empty,
    /// Nothing is similar enough.
    Below,
    /// Something is similar enough, but asks for something else.
    Guarded(Guard),
    /// The question is longer than an embedding model reads, or has no words.
    Unfit,
    /// The vector has no direction.
    NoVector,
}

impl Miss {
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Empty => "empty",
            Self::Below => "below_threshold",
            Self::Guarded(Guard::Numbers) => "guard_numbers",
            Self::Guarded(Guard::Negation) => "guard_negation",
            Self::Guarded(Guard::Opposites) => "guard_opposites",
            Self::Guarded(Guard::Names) => "guard_names",
            Self::Guarded(Guard::Code) => "guard_code",
            Self::Guarded(Guard::Words) => "guard_words",
            Self::Unfit => "unfit",
            Self::NoVector => "no_vector",
        }
    }
}

/// What is to be dropped.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Purge {
    All,
    Tenant(String),
    ModelDigest(String),
}

/// The cache. Cheap to clone; clones share it.
pub struct Semantic<V> {
    shared: Arc<Shared<V>>,
}

struct Shared<V> {
    config: Config,
    metrics: Metrics,
    state: Mutex<State<V>>,
}

struct State<V> {
    store: Store<V>,
    threshold: Threshold,
    /// Parts of a check that are due.
    due: f64,
}

impl<V> Clone for Semantic<V> {
    fn clone(&self) -> Self {
        Self { shared: Arc::clone(&self.shared) }
    }
}

impl<V> fmt::Debug for Semantic<V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Semantic").field("config", &self.shared.config).finish_non_exhaustive()
    }
}

impl<V> Semantic<V> {
    #[must_use]
    pub fn new(config: Config, metrics: Metrics) -> Self {
        let threshold = Threshold::new(config.threshold, config.false_hit_budget);
        metrics.semantic_threshold(threshold.value(), 0.0, 0.0, 1.0);
        let state = Mutex::new(State { store: Store::new(), threshold, due: 0.0 });
        Self { shared: Arc::new(Shared { config, metrics, state }) }
    }

    /// The embedding model to ask for vectors, when the cache holds for this route and model.
    #[must_use]
    pub fn applies(&self, route: Route, model: &ModelName) -> Option<&str> {
        let config = &self.shared.config;
        let holds = config.routes.contains(&route) && config.models.iter().any(|pattern| principal::matches(pattern, model));
        config.model.as_deref().filter(|_| holds)
    }

    /// The model that gives the vectors, where there is such a cache anywhere.
    #[must_use]
    pub fn embedding_model(&self) -> Option<ModelName> {
        let config = &self.shared.config;
        ModelName::parse(config.model.as_deref().filter(|_| !config.routes.is_empty())?).ok()
    }

    /// Whether a question can be looked up at all; asking for its vector is wasted otherwise.
    #[must_use]
    pub fn fits(&self, text: &str) -> bool {
        text.len() <= self.shared.config.max_prompt_bytes && !Features::of(text).is_empty()
    }

    /// The answer to a question that means the same. `vector`: of the text, by the embedding model; need not be normalised.
    ///
    /// # Errors
    /// Why there is none.
    pub fn lookup(&self, scope: &Scope, text: &str, vector: &[f32], now: Instant) -> Result<Hit<V>, Miss> {
        let found = self.look(scope, text, vector, now);
        self.shared.metrics.semantic_lookup(found.as_ref().map_or_else(|miss| miss.as_str(), |_| "hit"));
        found
    }

    fn look(&self, scope: &Scope, text: &str, vector: &[f32], now: Instant) -> Result<Hit<V>, Miss> {
        let config = &self.shared.config;
        let (features, vector) = self.prepare(text, vector)?;
        let mut state = self.lock();
        let least = state.threshold.value();
        let found = state.store.find(scope, &features, &vector, least, config.ttl, now).map_err(|why| match why {
            NotFound::Empty => Miss::Empty,
            NotFound::Below => Miss::Below,
            NotFound::Guarded(guard) => Miss::Guarded(guard),
        })?;
        let check = found.similarity < threshold::SAME && state.check(config.check_share);
        Ok(Hit { value: found.value, similarity: found.similarity, age: found.age, check })
    }

    /// Keeps the answer to a question. `value_bytes`: about how much memory the value takes.
    ///
    /// # Errors
    /// Why it was not kept.
    pub fn store(&self, scope: &Scope, text: &str, vector: &[f32], value: Arc<V>, value_bytes: usize, now: Instant) -> Result<(), Miss> {
        let (features, vector) = self.prepare(text, vector)?;
        let mut state = self.lock();
        let left = state.store.put(&self.shared.config, scope, Kept { features, vector, value, value_bytes }, now);
        self.shared.metrics.semantic_evicted("expired", left.expired);
        self.shared.metrics.semantic_evicted("full", left.full);
        self.tell_size(&state);
        drop(state);
        Ok(())
    }

    /// A hit that was to be checked was right or not. Tells the threshold from now on.
    pub fn judged(&self, similarity: f32, ok: bool) -> f32 {
        let mut state = self.lock();
        let before = state.threshold.value();
        state.threshold.judged(similarity, ok);
        let (now, share) = (state.threshold.value(), state.threshold.share());
        drop(state);
        self.shared.metrics.semantic_checked(ok);
        self.shared.metrics.semantic_threshold(now, share.measured, share.lower, share.upper);
        if now > before {
            tracing::warn!(from = before, to = now, "too many false hits of the semantic cache: its threshold rises");
        }
        now
    }

    /// Drops what is too old. To be called now and then: lookups only pass over it.
    pub fn prune(&self, now: Instant) -> usize {
        let mut state = self.lock();
        let dropped = state.store.prune(self.shared.config.ttl, now);
        self.shared.metrics.semantic_evicted("expired", dropped);
        self.tell_size(&state);
        dropped
    }

    /// Drops what was asked for; tells how many entries that were.
    pub fn purge(&self, what: &Purge) -> usize {
        let mut state = self.lock();
        let dropped = state.store.purge(|scope| match what {
            Purge::All => true,
            Purge::Tenant(tenant) => scope.tenant() == tenant,
            Purge::ModelDigest(digest) => scope.model_digest() == digest,
        });
        self.shared.metrics.semantic_evicted("purged", dropped);
        self.tell_size(&state);
        dropped
    }

    /// Entries and bytes kept now.
    #[must_use]
    pub fn size(&self) -> (usize, usize) {
        let state = self.lock();
        (state.store.entries(), state.store.bytes())
    }

    /// The similarity a hit needs now, and the share of false hits that was measured at it.
    #[must_use]
    pub fn threshold(&self) -> (f32, Share) {
        let state = self.lock();
        (state.threshold.value(), state.threshold.share())
    }

    fn prepare(&self, text: &str, vector: &[f32]) -> Result<(Features, Vec<f32>), Miss> {
        if text.len() > self.shared.config.max_prompt_bytes {
            return Err(Miss::Unfit);
        }
        let features = Features::of(text);
        if features.is_empty() {
            return Err(Miss::Unfit);
        }
        flat::normalised(vector).map(|vector| (features, vector)).ok_or(Miss::NoVector)
    }

    fn tell_size(&self, state: &State<V>) {
        self.shared.metrics.semantic_size(state.store.entries(), state.store.bytes());
    }

    fn lock(&self) -> MutexGuard<'_, State<V>> {
        self.shared.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<V> State<V> {
    /// Whether this hit is one of those to be checked: every n-th.
    fn check(&mut self, share: f64) -> bool {
        self.due += share.clamp(0.0, 1.0);
        let check = self.due >= 1.0;
        if check {
            self.due -= 1.0;
        }
        check
    }
}
