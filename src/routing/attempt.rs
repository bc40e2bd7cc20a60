//! One attempt at one backend: the right to it, and the telling of what became of it.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use super::BreakerState;
use super::gate::Standing;
use super::router::{Router, lock};
use super::state::{Changes, Failure, State, Tickets};
use crate::domain::blame::{Blame, Retry};

/// An attempt that is under way. Dropped without a word it was cancelled: it counts for nothing, and the next one may try.
#[derive(Debug)]
#[must_use = "an attempt that is dropped counts as cancelled"]
pub struct Attempt {
    router: Router,
    backend: Box<str>,
    model: Box<str>,
    slot: Arc<Mutex<State>>,
    /// Taken by whoever tells the end.
    tickets: Option<Tickets>,
    began: Instant,
    cold: bool,
}

impl Attempt {
    pub(super) fn new(
        router: Router,
        backend: &str,
        model: &str,
        slot: Arc<Mutex<State>>,
        (tickets, forgot): (Tickets, bool),
        began: Instant,
    ) -> Self {
        if forgot {
            router.0.metrics.routing_forgot();
        }
        let attempt = Self { router, backend: backend.into(), model: model.into(), slot, tickets: Some(tickets), began, cold: false };
        // Most breakers are closed, and shown as such when they close.
        if lock(&attempt.slot).pair(&attempt.model).is_some_and(|pair| pair.breaker.standing(began) != Standing::Closed) {
            attempt.show_breaker();
        }
        attempt
    }

    /// The model was not loaded when the attempt began: its time to the first token is one of loading.
    pub fn cold(mut self) -> Self {
        self.cold = true;
        self
    }

    /// The first token came, this long after the backend was asked.
    pub fn first_token(&mut self, ttft: Duration) {
        let Some(tickets) = self.tickets else { return };
        let inner = &self.router.0;
        if !self.cold {
            inner.observe(&self.model, ttft);
        }
        let (now, config) = (inner.clock.now(), inner.config.load());
        let changes = lock(&self.slot).first_token(&self.model, tickets, ttft, self.cold, now, &config);
        self.tell(changes);
    }

    /// The whole answer came.
    pub fn succeeded(mut self) {
        let Some(tickets) = self.tickets.take() else { return };
        let inner = &self.router.0;
        let (now, config) = (inner.clock.now(), inner.config.load());
        let took = now.saturating_duration_since(self.began);
        let changes = lock(&self.slot).succeeded(&self.model, tickets, took, now, &config);
        self.tell(changes);
    }

    /// It failed, before the first token or after it. `kind`: what `backends::Error::kind` says.
    pub fn failed(mut self, kind: &'static str, retry: Retry, blame: Blame) {
        let Some(tickets) = self.tickets.take() else { return };
        let inner = &self.router.0;
        let (now, config) = (inner.clock.now(), inner.config.load());
        let failure = Failure { kind, retry, blame, usual_s: inner.usual_s(&self.model), dice: inner.dice.roll() };
        let changes = lock(&self.slot).failed(&self.model, tickets, &failure, now, &config);
        self.tell(changes);
        if changes.ejected || changes.opened {
            let (backend, model) = (&self.backend, &self.model);
            tracing::warn!(%backend, %model, kind, ejected = changes.ejected, "a backend is given a rest: it keeps failing");
        }
    }

    fn tell(&self, changes: Changes) {
        let metrics = &self.router.0.metrics;
        if changes.ejected {
            metrics.ejected(&self.backend);
        }
        if changes.ejected || changes.returned {
            metrics.backend_ejected(&self.backend, changes.ejected);
        }
        if changes.opened {
            metrics.breaker_opened(&self.backend, &self.model);
        }
        if changes.opened || changes.closed {
            self.show_breaker();
        }
    }

    fn show_breaker(&self) {
        let now = self.router.0.clock.now();
        let standing = lock(&self.slot).pair(&self.model).map(|pair| pair.breaker.standing(now));
        let state = standing.map_or(BreakerState::Closed, BreakerState::from);
        self.router.0.metrics.breaker(&self.backend, &self.model, state);
    }
}

impl Drop for Attempt {
    fn drop(&mut self) {
        if let Some(tickets) = self.tickets.take() {
            lock(&self.slot).cancelled(&self.model, tickets);
        }
    }
}

impl From<Standing> for BreakerState {
    fn from(standing: Standing) -> Self {
        match standing {
            Standing::Closed => Self::Closed,
            Standing::HalfOpen { .. } => Self::HalfOpen,
            Standing::Open { .. } => Self::Open,
        }
    }
}
