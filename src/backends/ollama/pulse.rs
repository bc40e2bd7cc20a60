//! When a server last said something of an answer: proof that it generates, at no cost to it.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::time::Instant;

/// The time of the last sign of life. Cheap to beat from any number of answers.
#[derive(Debug)]
pub struct Pulse {
    start: Instant,
    /// Milliseconds from `start`, plus one. 0: none yet.
    last_ms: AtomicU64,
}

impl Pulse {
    #[must_use]
    pub fn new() -> Self {
        Self { start: Instant::now(), last_ms: AtomicU64::new(0) }
    }

    pub fn beat(&self) {
        let now = u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX - 1);
        self.last_ms.store(now + 1, Ordering::Relaxed);
    }

    /// Whether there was a beat within this time.
    #[must_use]
    pub fn within(&self, span: Duration) -> bool {
        let last = self.last_ms.load(Ordering::Relaxed);
        last > 0 && self.start + Duration::from_millis(last - 1) + span >= Instant::now()
    }
}

impl Default for Pulse {
    fn default() -> Self {
        Self::new()
    }
}
