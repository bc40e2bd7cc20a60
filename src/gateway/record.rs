//! What one generation cost and how it ended: metrics and a row of the request log, written exactly once.
//!
//! A [`Record`] that is dropped before it was told of an end was cancelled: the client left.

use std::time::{Duration, Instant};

use crate::domain::blame::Blame;
use crate::domain::clock::Clock;
use crate::domain::generation::{Delta, Dialect, Draft, Finish, Usage};
use crate::domain::id::{ModelName, RequestId};
use crate::telemetry::Outcome;
use crate::telemetry::labels::Operation;
use crate::telemetry::metrics::{Generation, Metrics};
use crate::usage::{Row, UsageLog};

/// Where a record goes.
#[derive(Clone)]
pub struct Ledger {
    pub metrics: Metrics,
    pub usage: UsageLog,
    pub clock: Clock,
}

/// The running account of one generation.
pub struct Record {
    ledger: Ledger,
    id: RequestId,
    dialect: Dialect,
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
    /// How it ended, and what failed.
    end: Option<(Outcome, Option<&'static str>)>,
}

impl Record {
    pub fn open(draft: &Draft, ledger: Ledger) -> Self {
        Self {
            id: draft.id.clone(),
            dialect: draft.dialect,
            streamed: draft.streamed,
            prompt_bytes: draft.ask.prompt.text.len(),
            answer_bytes: 0,
            started: ledger.clock.now(),
            started_at_ms: ledger.clock.unix_ms(),
            model: None,
            backend: None,
            asked: None,
            queued: None,
            ttft: None,
            usage: Usage::default(),
            end: None,
            ledger,
        }
    }

    /// The model is known and exists.
    pub fn model(&mut self, model: &ModelName) {
        self.model = Some(model.clone());
        self.asked = Some(self.ledger.clock.now());
    }

    /// A backend has accepted.
    pub fn accepted(&mut self, backend: &str) {
        let queued = self.elapsed();
        self.queued = Some(queued);
        self.backend = Some(backend.to_owned());
        self.ledger.metrics.queued(backend, queued);
    }

    /// A piece of the answer has come.
    pub fn piece(&mut self, delta: &Delta) {
        self.answer_bytes += delta.text.len() + delta.thinking.len();
        if self.ttft.is_none() {
            self.ttft = Some(self.elapsed());
            if let (Some(backend), Some(model), Some(after)) = (&self.backend, &self.model, self.since_asked()) {
                self.ledger.metrics.first_token(backend, model.as_str(), after);
            }
        }
    }

    pub fn done(&mut self, finish: &Finish) {
        self.usage = finish.usage;
        self.end.get_or_insert((Outcome::Ok, None));
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
        let (Some(backend), Some(model), Some(duration)) = (&self.backend, &self.model, self.since_asked()) else { return };
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
