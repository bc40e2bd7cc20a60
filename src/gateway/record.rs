//! What one generation cost and how it ended: metrics and a row of the request log, written exactly once.
//!
//! A [`Record`] that is dropped before it was told of an end was cancelled: the client left.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::collection::{Collecting, Collection};
use crate::domain::blame::Blame;
use crate::domain::clock::Clock;
use crate::domain::generation::{Change, Delta, Dialect, Draft, Finish, Priority, Usage};
use crate::domain::id::{ModelName, RequestId};
use crate::domain::principal::Principal;
use crate::telemetry::Outcome;
use crate::telemetry::labels::Operation;
use crate::telemetry::metrics::{Generation, Metrics};
use crate::usage::{Row, UsageLog};

use super::about::About;

/// Where a record goes.
#[derive(Clone)]
pub struct Ledger {
    pub metrics: Metrics,
    pub usage: UsageLog,
    pub collection: Collection,
    pub clock: Clock,
}

/// The running account of one generation.
pub struct Record {
    ledger: Ledger,
    id: RequestId,
    dialect: Dialect,
    principal: Arc<Principal>,
    class: Priority,
    streamed: bool,
    prompt_bytes: usize,
    answer_bytes: usize,
    started: Instant,
    started_at_ms: i64,
    model: Option<ModelName>,
    backend: Option<String>,
    /// When the backend that answers was asked.
    asked: Option<Instant>,
    /// From the start to the acceptance by a backend.
    queued: Option<Duration>,
    /// From the start to the first piece.
    ttft: Option<Duration>,
    usage: Usage,
    /// What the caches did, where one was asked.
    cache: Option<&'static str>,
    /// How often a backend was asked.
    attempts: u32,
    /// What is kept of it to learn from, where that may be.
    collecting: Option<Box<Collecting>>,
    /// What was changed in the request.
    changed: Vec<Change>,
    /// How it ended, and what failed.
    end: Option<(Outcome, Option<&'static str>)>,
}

impl Record {
    pub fn open(draft: &Draft, ledger: Ledger) -> Self {
        let class = draft.principal.priority(draft.control.priority);
        let mut record = Self::of(draft.id.clone(), Arc::clone(&draft.principal), class, ledger);
        (record.dialect, record.streamed, record.prompt_bytes) = (draft.dialect, draft.streamed, draft.ask.prompt.text.len());
        record.collecting = record.ledger.collection.begin(draft, record.started_at_ms);
        record
    }

    /// For a client that comes back to an answer. Its events count as its own.
    pub fn again(who: &Principal, id: &RequestId, ledger: Ledger) -> Self {
        let mut record = Self::of(id.clone(), Arc::new(who.clone()), who.default_priority, ledger);
        record.streamed = true;
        record
    }

    fn of(id: RequestId, principal: Arc<Principal>, class: Priority, ledger: Ledger) -> Self {
        Self {
            id,
            principal,
            class,
            dialect: Dialect::Native,
            streamed: false,
            prompt_bytes: 0,
            answer_bytes: 0,
            started: ledger.clock.now(),
            started_at_ms: ledger.clock.unix_ms(),
            model: None,
            backend: None,
            asked: None,
            queued: None,
            ttft: None,
            usage: Usage::default(),
            cache: None,
            attempts: 0,
            collecting: None,
            changed: Vec::new(),
            end: None,
            ledger,
        }
    }

    /// The model is known.
    pub fn model(&mut self, model: &ModelName) {
        self.model = Some(model.clone());
    }

    /// A backend has accepted, and was asked at this moment, or another request's answer is given.
    pub fn accepted(&mut self, about: &About) {
        let asked = about.asked_at.unwrap_or_else(|| self.ledger.clock.now()).max(self.started);
        self.asked = Some(asked);
        let queued = asked.saturating_duration_since(self.started);
        self.queued = Some(queued);
        self.model = Some(about.model.clone());
        self.backend = Some(about.backend.clone());
        self.cache = about.cache.is_asked().then_some(about.cache.status);
        self.attempts = about.attempts;
        if self.collecting.is_some() {
            self.changed.clone_from(&about.changed);
        }
        // Another's answer is not this caller's to give away, and one that was made before teaches nothing new.
        self.collecting.take_if(|_| about.attempts == 0 || !about.cache.is_made());
        if about.attempts > 0 {
            self.ledger.metrics.queued(&about.backend, queued);
        }
    }

    /// A piece of the answer has come.
    pub fn piece(&mut self, delta: &Delta) {
        self.answer_bytes += delta.text.len() + delta.thinking.len();
        if let Some(collecting) = &mut self.collecting {
            collecting.piece(delta);
        }
        if self.ttft.is_none() {
            self.ttft = Some(self.elapsed());
            if let (Some(backend), Some(model), Some(after), 1..) = (&self.backend, &self.model, self.since_asked(), self.attempts) {
                self.ledger.metrics.first_token(backend, model.as_str(), after);
            }
        }
    }

    pub fn done(&mut self, finish: &Finish) {
        self.usage = finish.usage;
        self.end.get_or_insert((Outcome::Ok, None));
        if let (Some(collecting), Some(model)) = (self.collecting.take(), &self.model) {
            collecting.whole(model, &self.changed, finish);
        }
    }

    pub fn failed(&mut self, blame: Blame, kind: &'static str) {
        self.end.get_or_insert((Outcome::Failed(blame), Some(kind)));
    }

    pub fn queued(&self) -> Option<Duration> {
        self.queued
    }

    pub fn ttft(&self) -> Option<Duration> {
        self.ttft
    }

    /// Since the request came.
    pub fn elapsed(&self) -> Duration {
        self.ledger.clock.now().saturating_duration_since(self.started)
    }

    fn since_asked(&self) -> Option<Duration> {
        Some(self.ledger.clock.now().saturating_duration_since(self.asked?))
    }

    fn observe(&self, outcome: Outcome) {
        // Only what a backend did is a figure of that backend: an answer from a cache, or of another's request, is not.
        let (Some(backend), Some(model), Some(duration), 1..) = (&self.backend, &self.model, self.since_asked(), self.attempts) else {
            return;
        };
        let before_asking = self.elapsed().saturating_sub(duration);
        self.ledger.metrics.generation_finished(&Generation {
            backend,
            model: model.as_str(),
            operation: Operation::TextCompletion,
            outcome,
            duration,
            first_token: self.ttft.map(|ttft| ttft.saturating_sub(before_asking)),
            prompt_tokens: self.usage.prompt_tokens,
            completion_tokens: self.usage.completion_tokens,
        });
    }

    fn row(&self, outcome: Outcome, error_kind: Option<&'static str>) -> Row {
        let ms = |span: Duration| u64::try_from(span.as_millis()).unwrap_or(u64::MAX);
        Row {
            request_id: self.id.to_string(),
            started_at_ms: self.started_at_ms,
            dialect: self.dialect.as_str().into(),
            model: self.model.as_ref().map(ToString::to_string),
            backend: self.backend.clone(),
            outcome,
            error_kind: error_kind.map(Into::into),
            streamed: self.streamed,
            prompt_tokens: self.usage.prompt_tokens,
            completion_tokens: self.usage.completion_tokens,
            queued_ms: self.queued.map(ms),
            ttft_ms: self.ttft.map(ms),
            total_ms: ms(self.elapsed()),
            prompt_bytes: self.prompt_bytes as u64,
            answer_bytes: self.answer_bytes as u64,
            tenant: Some(self.principal.tenant.to_string()),
            key_id: self.principal.key_id.as_ref().map(ToString::to_string),
            priority: Some(self.class.as_str().into()),
            cache: self.cache.map(Into::into),
            cached_tokens: self.usage.cached_tokens,
            attempts: Some(u64::from(self.attempts)),
        }
    }
}

impl Drop for Record {
    fn drop(&mut self) {
        let (outcome, error_kind) = self.end.take().unwrap_or((Outcome::Cancelled, None));
        self.observe(outcome);
        self.ledger.usage.record(self.row(outcome, error_kind));
    }
}
