//! When to ask a second backend although the first one has not failed: after the time by which most first tokens are there.
//!
//! The time is a quantile of the last times to the first token of the model, wherever it ran; below a number of observations there
//! is no hedging. Each hedge costs a token of a budget of its own. The loser is cancelled by the caller. Off by default: on a
//! machine that is the bottleneck, a second request only makes both slower. No clock in here.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Whether and when a second backend is asked.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    pub enabled: bool,
    /// The share of first tokens that are waited for, 0 to 1.
    pub quantile: f64,
    /// Observations without which there is no hedging.
    pub least_observations: usize,
    /// Never sooner than this.
    #[serde(with = "crate::domain::span")]
    pub least_delay: Duration,
    /// Hedges in relation to requests, 0 to 1.
    pub budget: f64,
    /// Hedges that may be saved up.
    pub burst: u32,
}

impl Default for Config {
    fn default() -> Self {
        Self { enabled: false, quantile: 0.95, least_observations: 20, least_delay: Duration::from_millis(20), budget: 0.05, burst: 20 }
    }
}

/// Observations that are kept.
const KEPT: usize = 256;

/// The last times to the first token.
#[derive(Debug, Clone, Default)]
pub struct Recent {
    seconds: Vec<f64>,
    next: usize,
}

impl Recent {
    pub fn observe(&mut self, seconds: f64) {
        if self.seconds.len() < KEPT {
            self.seconds.push(seconds);
        } else {
            self.seconds[self.next] = seconds;
        }
        self.next = (self.next + 1) % KEPT;
    }

    /// The value that this share of the observations does not exceed; `None` below `least` observations.
    #[must_use]
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::cast_precision_loss, reason = "an index below 256")]
    pub fn quantile(&self, share: f64, least: usize) -> Option<f64> {
        if self.seconds.is_empty() || self.seconds.len() < least {
            return None;
        }
        let rank = (self.seconds.len() as f64 * share.clamp(0.0, 1.0)).ceil() as usize;
        let mut sorted = self.seconds.clone();
        let (_, value, _) = sorted.select_nth_unstable_by(rank.clamp(1, self.seconds.len()) - 1, f64::total_cmp);
        Some(*value)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_quantile_needs_enough_observations() {
        let mut recent = Recent::default();
        assert_eq!(recent.quantile(0.95, 0), None);
        (1..20).for_each(|n| recent.observe(f64::from(n)));
        assert_eq!(recent.quantile(0.95, 20), None);
        recent.observe(20.0);
        assert_eq!([0.0, 0.5, 0.95, 1.0].map(|share| recent.quantile(share, 20)), [Some(1.0), Some(10.0), Some(19.0), Some(20.0)]);
    }

    #[test]
    fn old_observations_are_forgotten() {
        let mut recent = Recent::default();
        (0..KEPT).for_each(|_| recent.observe(9.0));
        (0..KEPT).for_each(|_| recent.observe(1.0));
        assert_eq!(recent.quantile(1.0, 1), Some(1.0));
    }

    proptest! {
        #[test]
        fn the_share_does_not_exceed_it(all in proptest::collection::vec(0.0_f64..10.0, 1..256), share in 0.0_f64..1.0) {
            let mut recent = Recent::default();
            for n in &all {
                recent.observe(*n);
            }
            let bound = recent.quantile(share, 1).expect("enough");
            let count = |holds: &dyn Fn(f64) -> bool| f64::from(u32::try_from(all.iter().filter(|n| holds(**n)).count()).expect("few"));
            let asked = count(&|_| true) * share;
            prop_assert!(count(&|n| n <= bound) >= asked - 1e-9);
            prop_assert!(count(&|n| n < bound) < asked.max(1.0));
        }
    }
}
