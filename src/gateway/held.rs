//! Everything that is held for a backend at work on one request, given back in the right way however that work ends.

use std::time::{Duration, Instant};

use crate::backends;
use crate::domain::generation::Usage;
use crate::models::InFlight;
use crate::routing::Attempt;
use crate::scheduler::Permit;

/// How far the work has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// Nothing has come of it yet: the model is loaded, or reads the prompt.
    Silent,
    Speaking,
    Over,
}

/// A place at a backend, and what is to be told of the work there. Dropped before it was told of an end, the client has left: the
/// place then stays booked until the backend can have noticed.
pub struct Held {
    permit: Permit,
    attempt: Option<Attempt>,
    phase: Phase,
    began: Instant,
    /// How long the place stays booked after the client left while nothing had come, and later.
    booked: (Duration, Duration),
    _in_flight: InFlight,
}

impl Held {
    pub fn new(permit: Permit, attempt: Attempt, in_flight: InFlight, booked: (Duration, Duration), now: Instant) -> Self {
        let attempt = Some(if permit.loads() { attempt.cold() } else { attempt });
        Self { permit, attempt, phase: Phase::Silent, began: now, booked, _in_flight: in_flight }
    }

    pub fn permit(&self) -> &Permit {
        &self.permit
    }

    /// When the backend was asked.
    pub fn began(&self) -> Instant {
        self.began
    }

    /// The first thing has come.
    pub fn speaks(&mut self, now: Instant) {
        if self.phase == Phase::Silent {
            self.phase = Phase::Speaking;
            let after = now.saturating_duration_since(self.began);
            self.permit.first_token(after);
            if let Some(attempt) = &mut self.attempt {
                attempt.first_token(after);
            }
        }
    }

    /// A piece has come.
    pub fn piece(&mut self) {
        self.permit.token();
    }

    /// The answer is whole.
    pub fn done(&mut self, usage: &Usage) {
        self.phase = Phase::Over;
        self.permit.finish(usage);
        if let Some(attempt) = self.attempt.take() {
            attempt.succeeded();
        }
    }

    /// The backend failed.
    pub fn failed(&mut self, error: &backends::Error) {
        self.phase = Phase::Over;
        self.permit.failed();
        if let Some(attempt) = self.attempt.take() {
            attempt.failed(error.kind(), error.retry(), error.blame());
        }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        match self.phase {
            Phase::Silent => self.permit.keep_booked(self.booked.0),
            Phase::Speaking => self.permit.keep_booked(self.booked.1),
            Phase::Over => {}
        }
    }
}
