//! Keeps requests from one model on one backend while they fail there.
//!
//! It opens after so many failures in a row, or when too large a share of the last seconds failed, or at once when the backend
//! says when to come back. It stays open for a time that doubles with each opening in a row, jittered; then one request at a time
//! tries, and its first token closes it. After that it is on probation: the next failure opens it again. No clock in here.

use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::gate::{Gate, Standing, Ticket};

/// When a breaker opens, and for how long.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Failures in a row that open it.
    pub consecutive: u32,
    /// Share of failures within `window` that opens it, 0 to 1.
    pub share: f64,
    /// What is looked back on for the share.
    #[serde(with = "crate::domain::span")]
    pub window: Duration,
    /// With fewer requests than this in the window the share means nothing.
    pub least_requests: u32,
    /// How long it stays open the first time.
    #[serde(with = "crate::domain::span")]
    pub open_for: Duration,
    /// The longest it stays open by itself.
    #[serde(with = "crate::domain::span")]
    pub longest_open: Duration,
    /// The longest `Retry-After` of a backend that is obeyed.
    #[serde(with = "crate::domain::span")]
    pub longest_retry_after: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            consecutive: 5,
            share: 0.5,
            window: Duration::from_secs(10),
            least_requests: 20,
            open_for: Duration::from_secs(1),
            longest_open: Duration::from_mins(1),
            longest_retry_after: Duration::from_mins(5),
        }
    }
}

/// The breaker of one model on one backend.
#[derive(Debug, Clone, Default)]
pub struct Breaker {
    gate: Gate,
    in_a_row: u32,
    window: Window,
}

impl Breaker {
    #[must_use]
    pub fn standing(&self, now: Instant) -> Standing {
        self.gate.standing(now)
    }

    #[must_use]
    pub fn admits(&self, now: Instant) -> bool {
        self.gate.admits(now)
    }

    pub fn enter(&mut self, now: Instant) -> Ticket {
        self.gate.enter(now)
    }

    /// The attempt ended without saying anything of the backend.
    pub fn leave(&mut self, ticket: Ticket) {
        self.gate.leave(ticket);
    }

    /// The first token came. `true` when that closes the breaker.
    pub fn first_token(&mut self, ticket: Ticket, now: Instant, config: &Config) -> bool {
        let closed = self.gate.pass(ticket, now);
        if closed {
            self.in_a_row = config.consecutive.saturating_sub(1);
            self.window = Window::default();
        }
        closed
    }

    /// The whole answer came. `true` when that closes the breaker.
    pub fn succeeded(&mut self, ticket: Ticket, now: Instant, config: &Config) -> bool {
        let closed = self.first_token(ticket, now, config);
        if self.gate.standing(now) == Standing::Closed {
            self.in_a_row = 0;
            self.window.add(now, config.window, true);
            self.gate.settle(now);
        }
        closed
    }

    /// It failed. `retry_after`: the backend said when to come back; `dice`: 0 up to 1. `true` when that opens the breaker.
    pub fn failed(&mut self, ticket: Ticket, now: Instant, retry_after: Option<Duration>, dice: f64, config: &Config) -> bool {
        // An attempt from before the last change says nothing of now, but a backend that says when to come back is always heard.
        if !self.gate.hears(ticket) && (retry_after.is_none() || self.gate.standing(now) != Standing::Closed) {
            return false;
        }
        self.in_a_row = self.in_a_row.saturating_add(1);
        self.window.add(now, config.window, false);
        let trying = self.gate.standing(now) != Standing::Closed;
        if !trying && retry_after.is_none() && !self.has_enough(now, config) {
            return false;
        }
        let told = retry_after.unwrap_or_default().min(config.longest_retry_after);
        let penalty = self.gate.penalty(config.open_for, config.longest_open, dice);
        self.gate.shut(now, now + penalty.max(told));
        true
    }

    fn has_enough(&self, now: Instant, config: &Config) -> bool {
        let (requests, failures) = self.window.count(now, config.window);
        let share = f64::from(failures) / f64::from(requests.max(1));
        self.in_a_row >= config.consecutive.max(1) || (requests >= config.least_requests.max(1) && share >= config.share)
    }
}

/// How finely the window moves on.
const CELLS: u32 = 10;

/// Requests and failures of the last while, in cells of a tenth of it.
#[derive(Debug, Clone, Default)]
struct Window {
    /// When the first cell of all began.
    start: Option<Instant>,
    /// By cell: its number since the start, requests, failures.
    cells: [(u64, u32, u32); CELLS as usize],
}

impl Window {
    fn add(&mut self, now: Instant, length: Duration, ok: bool) {
        let start = *self.start.get_or_insert(now);
        let number = number(start, now, length);
        let cell = &mut self.cells[usize::try_from(number % u64::from(CELLS)).unwrap_or_default()];
        if cell.0 != number {
            *cell = (number, 0, 0);
        }
        cell.1 = cell.1.saturating_add(1);
        cell.2 = cell.2.saturating_add(u32::from(!ok));
    }

    /// Requests and failures.
    fn count(&self, now: Instant, length: Duration) -> (u32, u32) {
        let Some(start) = self.start else { return (0, 0) };
        let oldest = (number(start, now, length) + 1).saturating_sub(u64::from(CELLS));
        let recent = self.cells.iter().filter(|cell| cell.0 >= oldest);
        recent.fold((0, 0), |sum, cell| (sum.0 + cell.1, sum.1 + cell.2))
    }
}

fn number(start: Instant, now: Instant, length: Duration) -> u64 {
    let cell_ms = (length.as_millis() / u128::from(CELLS)).max(1);
    u64::try_from(now.saturating_duration_since(start).as_millis() / cell_ms).unwrap_or(u64::MAX - 1)
}

#[cfg(test)]
#[path = "breaker_tests.rs"]
mod tests;
