//! How slow a backend is now: the exponentially weighted mean of its times to the first token, which jumps at once to a slow one.
//!
//! The peak EWMA of Finagle and linkerd (`com.twitter.finagle.loadbalancer.PeakEwma`): an observation above the value replaces
//! it, one below pulls it down with a weight that depends on the time since the last one. Unlike there, a value that is not
//! renewed goes to a resting value and not to zero: to zero, everybody would go to a backend that was idle. No clock in here.

use std::time::{Duration, Instant};

/// One figure in seconds.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct PeakEwma {
    /// The value and when it was observed.
    seen: Option<(f64, Instant)>,
}

impl PeakEwma {
    /// Takes an observation in. `decay`: after this time without another one, an old value counts 1/e.
    pub fn observe(&mut self, seconds: f64, now: Instant, decay: Duration) {
        let value = match self.seen {
            Some((old, at)) if seconds < old => {
                let keep = kept(at, now, decay);
                old * keep + seconds * (1.0 - keep)
            }
            _ => seconds,
        };
        self.seen = Some((value, now));
    }

    /// Forgets what was and begins with this.
    pub fn restart(&mut self, seconds: f64, now: Instant) {
        self.seen = Some((seconds, now));
    }

    /// The value now, on its way to `rest`; `rest` when nothing was observed.
    #[must_use]
    pub fn value(&self, now: Instant, decay: Duration, rest: f64) -> f64 {
        self.seen.map_or(rest, |(value, at)| rest + (value - rest) * kept(at, now, decay))
    }

    #[must_use]
    pub fn is_known(&self) -> bool {
        self.seen.is_some()
    }
}

/// The share of an old value that still counts.
fn kept(at: Instant, now: Instant, decay: Duration) -> f64 {
    let age = now.saturating_duration_since(at).as_secs_f64();
    if decay.is_zero() { 0.0 } else { (-age / decay.as_secs_f64()).exp() }
}

/// A mean that forgets: each observation counts this much.
const MEAN_WEIGHT: f64 = 0.1;

/// A slow mean of observations, whenever they came.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Mean(Option<f64>);

impl Mean {
    pub fn observe(&mut self, seconds: f64) {
        self.0 = Some(self.0.map_or(seconds, |mean| mean + (seconds - mean) * MEAN_WEIGHT));
    }

    #[must_use]
    pub fn value(&self) -> Option<f64> {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const DECAY: Duration = Duration::from_secs(10);

    fn near(a: f64, b: f64) {
        assert!((a - b).abs() < 1e-9, "{a} is not {b}");
    }

    #[test]
    fn a_slow_observation_counts_at_once_and_a_fast_one_little_by_little() {
        let start = Instant::now();
        let mut ewma = PeakEwma::default();
        near(ewma.value(start, DECAY, 0.5), 0.5);
        assert!(!ewma.is_known());
        ewma.observe(0.1, start, DECAY);
        ewma.observe(2.0, start, DECAY);
        near(ewma.value(start, DECAY, 0.5), 2.0);
        ewma.observe(0.1, start, DECAY);
        near(ewma.value(start, DECAY, 0.5), 2.0);
        ewma.observe(0.1, start + DECAY, DECAY);
        near(ewma.value(start + DECAY, DECAY, 0.5), 2.0 / std::f64::consts::E + 0.1 * (1.0 - 1.0 / std::f64::consts::E));
    }

    #[test]
    fn what_is_not_renewed_goes_to_rest() {
        let start = Instant::now();
        let mut ewma = PeakEwma::default();
        ewma.observe(4.0, start, DECAY);
        near(ewma.value(start + DECAY, DECAY, 1.0), 1.0 + 3.0 / std::f64::consts::E);
        assert!(ewma.value(start + DECAY * 20, DECAY, 1.0) < 1.001);
        ewma.restart(0.2, start);
        near(ewma.value(start, DECAY, 1.0), 0.2);
    }

    #[test]
    fn without_a_decay_only_the_last_counts() {
        let start = Instant::now();
        let mut ewma = PeakEwma::default();
        ewma.observe(4.0, start, Duration::ZERO);
        ewma.observe(1.0, start, Duration::ZERO);
        assert!(ewma.value(start, Duration::ZERO, 0.0).abs() < 1e-9);
    }

    #[test]
    fn the_mean_follows_slowly() {
        let mut mean = Mean::default();
        assert_eq!(mean.value(), None);
        mean.observe(1.0);
        mean.observe(2.0);
        near(mean.value().expect("known"), 1.1);
    }

    proptest! {
        #[test]
        fn the_value_stays_between_the_least_and_the_most(
            steps in proptest::collection::vec((0.0_f64..100.0, 0_u64..20_000), 1..50), rest in 0.0_f64..100.0,
        ) {
            let (mut ewma, mut now) = (PeakEwma::default(), Instant::now());
            for (seconds, ms) in &steps {
                now += Duration::from_millis(*ms);
                ewma.observe(*seconds, now, DECAY);
            }
            let low = steps.iter().map(|(s, _)| *s).fold(rest, f64::min);
            let high = steps.iter().map(|(s, _)| *s).fold(rest, f64::max);
            let value = ewma.value(now + Duration::from_secs(1), DECAY, rest);
            prop_assert!(value >= low - 1e-9 && value <= high + 1e-9);
            // The last one is never hidden: a slow one counts in full.
            prop_assert!(ewma.value(now, DECAY, rest) >= steps.last().expect("one").0 - 1e-9);
        }
    }
}
