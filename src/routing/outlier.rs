//! Sends a whole backend away, with all its models, while it cannot be reached or only fails.
//!
//! A breaker knows one model; a server that is gone fails them all, and each breaker would have to find out by itself. After its
//! time one request at a time tries; when one gets its first token, the backend is back. Its share of the work grows from a
//! little to the whole over the slow start, counted from the end of the ejection: caches are cold, models not loaded. No clock
//! in here.

use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::gate::{Gate, Standing, Ticket};

/// When a backend is sent away, and how it comes back.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Times in a row that it could not be reached.
    pub consecutive_unreachable: u32,
    /// Failures of any kind in a row, of whichever model.
    pub consecutive_failures: u32,
    /// How long it is sent away the first time.
    #[serde(with = "crate::domain::span")]
    pub eject_for: Duration,
    /// The longest it is sent away.
    #[serde(with = "crate::domain::span")]
    pub longest_ejection: Duration,
    /// How long its share of the work grows after that.
    #[serde(with = "crate::domain::span")]
    pub slow_start: Duration,
    /// The share it begins with, above 0, at most 1.
    pub slow_start_share: f64,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            consecutive_unreachable: 3,
            consecutive_failures: 10,
            eject_for: Duration::from_secs(1),
            longest_ejection: Duration::from_secs(30),
            slow_start: Duration::from_secs(10),
            slow_start_share: 0.1,
        }
    }
}

/// What a failure says of the backend as a whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// Nothing answers there.
    Unreachable,
    /// It answers, and fails.
    Failed,
    /// It works; it was the request, or there was too much to do.
    None,
}

impl Fault {
    /// From the word that `backends::Error::kind` gives.
    #[must_use]
    pub fn of(kind: &str) -> Self {
        match kind {
            "unreachable" => Self::Unreachable,
            "failed" | "protocol" | "stalled" => Self::Failed,
            _ => Self::None,
        }
    }
}

/// What is known of a backend as a whole.
#[derive(Debug, Clone, Default)]
pub struct Outlier {
    gate: Gate,
    unreachable: u32,
    failures: u32,
    /// When its last ejection ended or ends.
    back_at: Option<Instant>,
}

impl Outlier {
    #[must_use]
    pub fn standing(&self, now: Instant) -> Standing {
        self.gate.standing(now)
    }

    #[must_use]
    pub fn admits(&self, now: Instant) -> bool {
        self.gate.admits(now)
    }

    /// Failures in a row.
    #[must_use]
    pub fn failures(&self) -> u32 {
        self.failures
    }

    /// Its share of the work: 1, or less during the slow start.
    #[must_use]
    pub fn share(&self, now: Instant, config: &Config) -> f64 {
        let Some(back_at) = self.back_at else { return 1.0 };
        let since = now.saturating_duration_since(back_at);
        if since >= config.slow_start {
            return 1.0;
        }
        let begin = config.slow_start_share.clamp(0.01, 1.0);
        begin + (1.0 - begin) * since.as_secs_f64() / config.slow_start.as_secs_f64()
    }

    pub fn enter(&mut self, now: Instant) -> Ticket {
        self.gate.enter(now)
    }

    /// The attempt ended without saying anything of the backend.
    pub fn leave(&mut self, ticket: Ticket) {
        self.gate.leave(ticket);
    }

    /// It generates. `true` when that brings it back.
    pub fn works(&mut self, ticket: Ticket, now: Instant) -> bool {
        let back = self.gate.pass(ticket, now);
        if self.gate.standing(now) == Standing::Closed {
            (self.unreachable, self.failures) = (0, 0);
            self.gate.settle(now);
        }
        back
    }

    /// It failed. `dice`: 0 up to 1. `true` when that sends it away.
    pub fn failed(&mut self, ticket: Ticket, fault: Fault, now: Instant, dice: f64, config: &Config) -> bool {
        if fault == Fault::None || !self.gate.hears(ticket) {
            self.gate.leave(ticket);
            return false;
        }
        self.failures = self.failures.saturating_add(1);
        self.unreachable = if fault == Fault::Unreachable { self.unreachable.saturating_add(1) } else { 0 };
        let enough = self.unreachable >= config.consecutive_unreachable.max(1) || self.failures >= config.consecutive_failures.max(1);
        if !enough && self.gate.standing(now) == Standing::Closed {
            return false;
        }
        let until = now + self.gate.penalty(config.eject_for, config.longest_ejection, dice);
        self.gate.shut(now, until);
        self.back_at = Some(until);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn fail(outlier: &mut Outlier, fault: Fault, now: Instant) -> bool {
        let ticket = outlier.enter(now);
        outlier.failed(ticket, fault, now, 0.0, &Config::default())
    }

    fn works(outlier: &mut Outlier, now: Instant) -> bool {
        let ticket = outlier.enter(now);
        outlier.works(ticket, now)
    }

    #[test]
    fn unreachable_thrice_or_failed_ten_times_sends_it_away() {
        let now = Instant::now();
        let mut gone = Outlier::default();
        assert_eq!([0; 3].map(|_| fail(&mut gone, Fault::Unreachable, now)), [false, false, true]);
        assert_eq!(gone.standing(now), Standing::Open { until: now + SECOND });
        let mut sick = Outlier::default();
        for _ in 0..9 {
            assert!(!fail(&mut sick, Fault::Failed, now));
        }
        assert!(fail(&mut sick, Fault::Failed, now));
    }

    #[test]
    fn anything_that_works_in_between_begins_the_count_anew() {
        let now = Instant::now();
        let mut outlier = Outlier::default();
        for _ in 0..20 {
            fail(&mut outlier, Fault::Unreachable, now);
            fail(&mut outlier, Fault::Unreachable, now);
            works(&mut outlier, now);
        }
        assert!(outlier.admits(now) && outlier.failures() == 0);
        for _ in 0..100 {
            assert!(!fail(&mut outlier, Fault::None, now), "a refused request or a full queue says nothing against it");
        }
    }

    #[test]
    fn it_comes_back_one_by_one_and_slowly() {
        let (now, config) = (Instant::now(), Config::default());
        let mut outlier = Outlier::default();
        for _ in 0..3 {
            fail(&mut outlier, Fault::Unreachable, now);
        }
        let back = now + SECOND;
        let first = outlier.enter(back);
        assert!(!outlier.admits(back), "one at a time");
        assert!(outlier.works(first, back));
        assert!(outlier.admits(back));
        let shares: Vec<f64> = [0, 5, 10, 99].map(|s| outlier.share(back + SECOND * s, &config)).into();
        assert_eq!(shares, [0.1, 0.55, 1.0, 1.0]);
        assert!((Outlier::default().share(now, &config) - 1.0).abs() < f64::EPSILON);
    }

    #[test]
    fn a_failed_return_is_one_failure_and_lasts_longer() {
        let now = Instant::now();
        let mut outlier = Outlier::default();
        for _ in 0..3 {
            fail(&mut outlier, Fault::Unreachable, now);
        }
        let back = now + SECOND;
        assert!(fail(&mut outlier, Fault::Failed, back));
        assert_eq!(outlier.standing(back), Standing::Open { until: back + SECOND * 2 });
    }

    #[test]
    fn one_that_says_nothing_frees_the_place() {
        let now = Instant::now();
        let mut outlier = Outlier::default();
        for _ in 0..3 {
            fail(&mut outlier, Fault::Unreachable, now);
        }
        let back = now + SECOND;
        assert!(!fail(&mut outlier, Fault::None, back));
        assert!(outlier.admits(back));
    }
}
