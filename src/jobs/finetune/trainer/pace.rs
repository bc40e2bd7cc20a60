//! How fast a run goes, and how long it will take.

use std::time::{Duration, Instant};

use crate::domain::clock::Clock;

/// What this attempt took so far. Pauses do not count.
#[derive(Debug)]
pub(super) struct Pace {
    clock: Clock,
    begun: Instant,
    held: Duration,
    training: Duration,
    steps: u64,
    tokens: u64,
}

impl Pace {
    pub(super) fn new(clock: &Clock) -> Self {
        Self { clock: clock.clone(), begun: clock.now(), held: Duration::ZERO, training: Duration::ZERO, steps: 0, tokens: 0 }
    }

    /// The time of work since the attempt began.
    pub(super) fn worked(&self) -> Duration {
        (self.clock.now() - self.begun).saturating_sub(self.held)
    }

    /// Lets something take its time without counting it.
    pub(super) fn uncounted<R>(&mut self, pause: impl FnOnce() -> R) -> R {
        let begun = self.clock.now();
        let made = pause();
        self.held += self.clock.now() - begun;
        made
    }

    pub(super) fn step_made(&mut self, took: Duration, tokens: u64) {
        self.training += took;
        self.tokens += tokens;
        self.steps += 1;
    }

    /// Of steps that were made, evaluations aside; 0 before the first.
    pub(super) fn tokens_per_s(&self) -> f64 {
        per_second(self.tokens, self.training)
    }

    /// Of so many steps, with everything that happens between them as often as until now.
    pub(super) fn remaining(&self, steps: u64) -> Option<Duration> {
        let of_one = self.worked().as_secs_f64() / float(self.steps);
        Duration::try_from_secs_f64(of_one * float(steps)).ok().filter(|_| self.steps > 0)
    }
}

/// 0 where no time went by.
pub(super) fn per_second(count: u64, took: Duration) -> f64 {
    if took.is_zero() { 0.0 } else { float(count) / took.as_secs_f64() }
}

#[expect(clippy::cast_precision_loss, reason = "for people")]
fn float(count: u64) -> f64 {
    count as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_do_not_make_a_run_slower() {
        let clock = Clock::fake(0);
        let mut pace = Pace::new(&clock);
        assert_eq!((pace.remaining(3), pace.tokens_per_s()), (None, 0.0));
        clock.advance(Duration::from_secs(2));
        pace.step_made(Duration::from_secs(2), 100);
        pace.uncounted(|| clock.advance(Duration::from_hours(1)));
        clock.advance(Duration::from_secs(1));
        assert_eq!((pace.tokens_per_s(), pace.remaining(4)), (50.0, Some(Duration::from_secs(12))));
    }
}
