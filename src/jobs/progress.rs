//! How far a job is, and when it will be done: pure.

use std::time::Duration;

use serde_json::{Value, json};

/// Shortest time from which a rate is made.
const SHORTEST: Duration = Duration::from_millis(500);

/// Estimates the rest from the rate since the step began.
#[derive(Debug, Clone, Default)]
pub struct Progress {
    first: Option<(u64, i64)>,
    last: Option<(u64, u64, String)>,
    step: u32,
}

impl Progress {
    /// A step begins.
    pub fn begin(&mut self, step: u32) {
        *self = Self { step, ..Self::default() };
    }

    pub fn at(&mut self, done: u64, total: u64, unit: &str, now_ms: i64) {
        self.first.get_or_insert((done, now_ms));
        self.last = Some((done.min(total), total, unit.chars().take(32).collect()));
    }

    /// For the row and for events; none before the first word of the kind.
    #[must_use]
    pub fn shown(&self, now_ms: i64) -> Option<Value> {
        let (done, total, unit) = self.last.as_ref()?;
        let mut shown = json!({"step": self.step, "done": done, "total": total, "unit": unit});
        if let Some(eta) = self.eta(now_ms) {
            shown["eta_ms"] = json!(u64::try_from(eta.as_millis()).unwrap_or(u64::MAX));
        }
        Some(shown)
    }

    /// Time until the step is done, at the rate it has had.
    #[must_use]
    pub fn eta(&self, now_ms: i64) -> Option<Duration> {
        let ((first, since_ms), (done, total, _)) = (self.first?, self.last.as_ref()?);
        let spent = Duration::from_millis(u64::try_from(now_ms.checked_sub(since_ms)?).ok()?);
        let gained = done.checked_sub(first).filter(|gained| *gained > 0)?;
        if spent < SHORTEST {
            return None;
        }
        let left_ms = u128::from(total.saturating_sub(*done)) * spent.as_millis() / u128::from(gained);
        Some(Duration::from_millis(u64::try_from(left_ms).unwrap_or(u64::MAX)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rest_takes_as_long_as_what_is_done() {
        let mut progress = Progress::default();
        assert_eq!(progress.shown(0), None);
        progress.begin(2);
        progress.at(100, 1_000, "bytes", 0);
        assert_eq!(progress.shown(5_000), Some(json!({"step": 2, "done": 100, "total": 1_000, "unit": "bytes"})));
        progress.at(300, 1_000, "bytes", 400);
        assert_eq!(progress.eta(400), None, "too early to tell");
        progress.at(400, 1_000, "bytes", 3_000);
        assert_eq!(progress.eta(3_000), Some(Duration::from_secs(6)));
        progress.at(2_000, 1_000, "bytes", 4_000);
        assert_eq!(progress.eta(4_000), Some(Duration::ZERO));
        progress.begin(3);
        assert_eq!(progress.shown(5_000), None);
    }

    #[test]
    fn nothing_is_too_large_and_no_clock_too_odd() {
        let mut progress = Progress::default();
        progress.at(0, u64::MAX, "x", i64::MAX);
        progress.at(1, u64::MAX, "x", i64::MAX);
        assert_eq!(progress.eta(i64::MIN), None);
        progress = Progress::default();
        progress.at(0, u64::MAX, "x", 0);
        progress.at(1, u64::MAX, "x", 0);
        assert_eq!(progress.eta(i64::MAX), Some(Duration::from_millis(u64::MAX)));
    }
}
