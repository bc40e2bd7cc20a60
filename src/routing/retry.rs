//! How often and how soon a failed request is tried again.
//!
//! A retry costs a token. Each request that comes brings a tenth of one, so that when everything fails, a backend in trouble gets
//! at most a tenth more than was asked, however many attempts one request may make. Requests that come seldom bring more, or a
//! gateway with one user would never retry; what they bring beyond the tenth is paid back when more come. Only what has not given
//! its first byte is tried again: that is the caller's to know. No clock in here.

use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

/// How often and how soon.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Attempts of one request on one model, the first one included.
    pub max_attempts: u32,
    /// Retries in relation to requests, 0 to 1.
    pub budget: f64,
    /// Retries that may be saved up.
    pub burst: u32,
    /// Retries a second that are allowed however few requests come.
    pub floor_per_second: f64,
    /// Longest pause before the first retry; it doubles with each.
    #[serde(with = "crate::domain::span")]
    pub backoff: Duration,
    /// Longest pause before any.
    #[serde(with = "crate::domain::span")]
    pub longest_backoff: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            max_attempts: 3,
            budget: 0.1,
            burst: 100,
            floor_per_second: 0.1,
            backoff: Duration::from_millis(50),
            longest_backoff: Duration::from_secs(2),
        }
    }
}

impl Config {
    /// The pause before retry number `retry` (0 is the first): anything up to a bound that doubles ("full jitter", Brooker 2015).
    /// `dice`: 0 up to 1.
    #[must_use]
    pub fn pause(&self, retry: u32, dice: f64) -> Duration {
        let bound = self.backoff.saturating_mul(2_u32.saturating_pow(retry)).min(self.longest_backoff);
        bound.mul_f64(dice.clamp(0.0, 1.0))
    }
}

/// What a budget grows by.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Terms {
    /// Tokens that a request brings.
    pub share: f64,
    /// Tokens that can be saved up.
    pub most: f64,
    /// Tokens a second that requests bring at the least.
    pub floor_per_second: f64,
}

/// A bucket of tokens that requests fill.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Budget {
    tokens: f64,
    /// What was advanced, and is kept from what the next requests bring. At most 1.
    owed: f64,
    last: Option<Instant>,
}

impl Budget {
    /// A request came.
    pub fn offered(&mut self, now: Instant, terms: &Terms) {
        let paid = self.owed.min(terms.share);
        self.owed -= paid;
        self.tokens = (self.tokens + terms.share - paid).min(terms.most);
        let due = match self.last.replace(now) {
            // The first one is not to go without.
            None if terms.floor_per_second > 0.0 => 1.0,
            None => 0.0,
            Some(last) => now.saturating_duration_since(last).as_secs_f64() * terms.floor_per_second,
        };
        let advance = due.min(1.0 - self.tokens).max(0.0);
        self.tokens += advance;
        self.owed = (self.owed + advance).min(1.0);
    }

    /// Takes a token, if there is one.
    pub fn take(&mut self) -> bool {
        // A hair less than 1 will do: ten tenths are not quite one.
        let enough = self.tokens >= 1.0 - 1e-6;
        if enough {
            self.tokens = (self.tokens - 1.0).max(0.0);
        }
        enough
    }

    #[must_use]
    pub fn tokens(&self) -> f64 {
        self.tokens
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const TERMS: Terms = Terms { share: 0.1, most: 100.0, floor_per_second: 0.1 };

    fn retries(gaps: impl Iterator<Item = Duration>, wanted_each: u32) -> (u32, u32) {
        let (mut now, mut budget, mut offered, mut retried) = (Instant::now(), Budget::default(), 0, 0);
        for gap in gaps {
            now += gap;
            budget.offered(now, &TERMS);
            offered += 1;
            retried += (0..wanted_each).map(|_| u32::from(budget.take())).sum::<u32>();
        }
        (offered, retried)
    }

    #[test]
    fn retries_are_a_tenth_of_what_is_offered() {
        let (offered, retried) = retries(std::iter::repeat_n(Duration::from_millis(10), 10_000), 2);
        assert!((990..=1000).contains(&retried), "{retried} of {offered}");
    }

    #[test]
    fn who_comes_seldom_may_retry_each_time() {
        assert_eq!(retries(std::iter::repeat_n(Duration::from_secs(11), 50), 1), (50, 50));
        assert_eq!(retries(std::iter::once(Duration::ZERO), 1), (1, 1), "the very first one");
    }

    #[test]
    fn without_a_floor_there_is_nothing_but_the_share() {
        let terms = Terms { floor_per_second: 0.0, ..TERMS };
        let mut budget = Budget::default();
        budget.offered(Instant::now(), &terms);
        assert!(!budget.take());
    }

    #[test]
    fn what_is_saved_is_bounded() {
        let (mut budget, now) = (Budget::default(), Instant::now());
        (0..100_000).for_each(|_| budget.offered(now, &TERMS));
        assert_eq!((0..1000).filter(|_| budget.take()).count(), 100);
    }

    #[test]
    fn pauses_double_up_to_a_bound_and_are_jittered() {
        let config = Config::default();
        let whole: Vec<u128> = [0, 1, 2, 5, 40].map(|n| config.pause(n, 1.0).as_millis()).into();
        assert_eq!(whole, [50, 100, 200, 1600, 2000]);
        assert_eq!(config.pause(3, 0.0), Duration::ZERO);
        assert_eq!(config.pause(0, 0.5), Duration::from_millis(25));
    }

    proptest! {
        /// However requests come: a tenth of them, and what the floor allows over the time.
        #[test]
        fn no_pattern_gets_more(gaps in proptest::collection::vec(0_u64..5_000, 10..400), wanted in 0_u32..4) {
            let seconds = Duration::from_millis(gaps.iter().sum()).as_secs_f64();
            let (offered, retried) = retries(gaps.into_iter().map(Duration::from_millis), wanted);
            prop_assert!(f64::from(retried) <= f64::from(offered) * 0.1 + seconds * 0.1 + 1.0);
        }

        /// R8: with ten or more requests at more than one a second, no more than 1.1 attempts for each.
        #[test]
        fn a_busy_gateway_makes_no_more_than_a_tenth_more(gaps in proptest::collection::vec(0_u64..100, 100..2000)) {
            let (offered, retried) = retries(gaps.into_iter().map(Duration::from_millis), 2);
            prop_assert!(f64::from(offered + retried) <= f64::from(offered) * 1.1 + 1e-6, "{retried} of {offered}");
        }
    }
}
