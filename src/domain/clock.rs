//! What time it is: the wall clock for what is stored and shown, the steady clock for what is measured.
//!
//! Everything that needs the time takes a [`Clock`], so that a test can hold it still and move it. This is the only file that
//! asks the system for the wall time. It does not sleep: waiting is tokio's.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Tells the time. Cheap to clone; the clones of a fake clock move together.
#[derive(Debug, Clone, Default)]
pub struct Clock(Option<Arc<Fake>>);

#[derive(Debug)]
struct Fake {
    started_unix_ms: i64,
    started: Instant,
    advanced_ns: AtomicU64,
}

impl Clock {
    /// The clock of the machine.
    #[must_use]
    pub fn system() -> Self {
        Self(None)
    }

    /// A clock that stands at `unix_ms` until it is moved by [`Clock::advance`].
    #[must_use]
    pub fn fake(unix_ms: i64) -> Self {
        Self(Some(Arc::new(Fake { started_unix_ms: unix_ms, started: Instant::now(), advanced_ns: AtomicU64::new(0) })))
    }

    /// Moves a fake clock on. The machine's clock goes by itself: on it this does nothing.
    pub fn advance(&self, by: Duration) {
        if let Some(fake) = &self.0 {
            fake.advanced_ns.fetch_add(nanoseconds(by), Ordering::SeqCst);
        }
    }

    /// Wall time in milliseconds since 1970-01-01T00:00:00Z. May jump, when someone sets the machine's clock.
    #[must_use]
    pub fn unix_ms(&self) -> i64 {
        match &self.0 {
            None => system_unix_ms(),
            Some(fake) => fake.started_unix_ms.saturating_add(milliseconds(fake.advanced())),
        }
    }

    /// Wall time as RFC 3339 in UTC, to the millisecond.
    #[must_use]
    pub fn rfc3339(&self) -> String {
        jiff::Timestamp::from_millisecond(self.unix_ms()).unwrap_or(jiff::Timestamp::UNIX_EPOCH).to_string()
    }

    /// Steady time: only differences mean something.
    #[must_use]
    pub fn now(&self) -> Instant {
        match &self.0 {
            None => Instant::now(),
            Some(fake) => fake.started + fake.advanced(),
        }
    }
}

impl Fake {
    fn advanced(&self) -> Duration {
        Duration::from_nanos(self.advanced_ns.load(Ordering::SeqCst))
    }
}

#[expect(clippy::disallowed_methods, reason = "the one place where wall time comes from")]
fn system_unix_ms() -> i64 {
    match SystemTime::now().duration_since(UNIX_EPOCH) {
        Ok(since) => milliseconds(since),
        Err(before) => -milliseconds(before.duration()),
    }
}

fn milliseconds(span: Duration) -> i64 {
    i64::try_from(span.as_millis()).unwrap_or(i64::MAX)
}

fn nanoseconds(span: Duration) -> u64 {
    u64::try_from(span.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fake_clock_stands_until_moved_and_its_clones_move_with_it() {
        let clock = Clock::fake(1_000);
        let other = clock.clone();
        let before = other.now();
        assert_eq!(other.unix_ms(), 1_000);
        clock.advance(Duration::from_millis(250));
        assert_eq!(other.unix_ms(), 1_250);
        assert_eq!(other.rfc3339(), "1970-01-01T00:00:01.25Z");
        assert_eq!(other.now() - before, Duration::from_millis(250));
    }

    #[test]
    fn the_machines_clock_is_past_2020_and_cannot_be_moved() {
        let clock = Clock::system();
        let before = clock.unix_ms();
        assert!(before > 1_577_836_800_000);
        clock.advance(Duration::from_hours(24 * 365));
        assert!(clock.unix_ms() - before < 24 * 3_600_000);
    }
}
