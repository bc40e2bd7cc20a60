//! A database that cannot be written for a while: how long to pause, and when to say so.

use std::fmt::Display;
use std::time::{Duration, Instant};

use crate::domain::clock::Clock;

/// How often a lasting trouble is told again.
const TELL_EVERY: Duration = Duration::from_mins(1);
/// The longest pause between two attempts.
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

#[derive(Debug)]
pub(super) struct Trouble {
    clock: Clock,
    /// The pause between two batches when all is well.
    interval: Duration,
    state: Option<State>,
}

#[derive(Debug)]
struct State {
    since: Instant,
    told: Instant,
    failures: u32,
}

impl Trouble {
    pub(super) fn new(clock: Clock, interval: Duration) -> Self {
        Self { clock, interval, state: None }
    }

    pub(super) fn lasts(&self) -> bool {
        self.state.is_some()
    }

    /// How long to wait before the next attempt: longer with each failure, up to a bound.
    pub(super) fn pause(&self) -> Duration {
        let failures = self.state.as_ref().map_or(0, |state| state.failures);
        let longer = self.interval.saturating_mul(2_u32.saturating_pow(failures));
        longer.min(LONGEST_PAUSE.max(self.interval))
    }

    /// An attempt failed while this many rows wait.
    pub(super) fn again(&mut self, error: &impl Display, rows: usize) {
        if self.is_worth_telling() {
            tracing::error!(%error, rows, "the request log cannot be written; rows are kept and tried again");
        }
    }

    /// Notes a failure; whether it should be told.
    fn is_worth_telling(&mut self) -> bool {
        let now = self.clock.now();
        let Some(state) = &mut self.state else {
            self.state = Some(State { since: now, told: now, failures: 1 });
            return true;
        };
        state.failures = state.failures.saturating_add(1);
        let due = now.duration_since(state.told) >= TELL_EVERY;
        if due {
            state.told = now;
        }
        due
    }

    /// An attempt succeeded.
    pub(super) fn over(&mut self) {
        if let Some(state) = self.state.take() {
            let seconds = self.clock.now().duration_since(state.since).as_secs();
            tracing::info!(seconds, failures = state.failures, "the request log can be written again");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_told_at_first_and_then_once_a_minute() {
        let clock = Clock::fake(0);
        let mut trouble = Trouble::new(clock.clone(), Duration::from_millis(250));
        let mut told = 0;
        for _ in 0..125 {
            told += u32::from(trouble.is_worth_telling());
            clock.advance(Duration::from_secs(1));
        }
        assert_eq!(told, 3, "at 0, 60 and 120 seconds");
        trouble.over();
        assert!(trouble.is_worth_telling(), "a new trouble is told at once");
    }

    #[test]
    fn pauses_grow_to_a_bound_and_shrink_when_it_is_over() {
        let mut trouble = Trouble::new(Clock::fake(0), Duration::from_millis(250));
        let mut pauses = vec![trouble.pause()];
        for _ in 0..40 {
            trouble.is_worth_telling();
            pauses.push(trouble.pause());
        }
        assert!(pauses.is_sorted());
        assert_eq!((pauses[0], pauses[1], pauses[40]), (Duration::from_millis(250), Duration::from_millis(500), LONGEST_PAUSE));
        trouble.over();
        assert_eq!(trouble.pause(), Duration::from_millis(250));
        assert_eq!(Trouble::new(Clock::fake(0), Duration::from_mins(1)).pause(), Duration::from_mins(1));
    }
}
