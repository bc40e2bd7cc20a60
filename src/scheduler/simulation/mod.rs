//! A world with clients and Ollama servers, in which the queue is the real one and time is a number.
//!
//! The servers do what a real one does: so many requests at a time for a loaded model, the rest in the order in which they came;
//! loading takes its time and throws out what does not fit. The queue is told no more than it would be told outside.

mod figures;
mod invariants;
mod world;

use std::time::Duration;

/// A small generator of numbers that look random (SplitMix64), so that a seed says everything.
#[derive(Debug, Clone)]
pub(super) struct Dice(u64);

impl Dice {
    pub(super) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ 0x5851_F42D_4C95_7F2D)
    }

    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    pub(super) fn below(&mut self, n: u64) -> u64 {
        self.next() % n.max(1)
    }

    /// From 0 to below 1.
    pub(super) fn share(&mut self) -> f64 {
        super::estimate::float(self.next() >> 11) / super::estimate::float(1 << 53)
    }

    pub(super) fn chance(&mut self, share: f64) -> bool {
        self.share() < share
    }

    pub(super) fn pick<'a, T>(&mut self, of: &'a [T]) -> &'a T {
        &of[usize::try_from(self.below(of.len() as u64)).expect("an index")]
    }

    /// Exponentially distributed.
    pub(super) fn exponential(&mut self, mean: f64) -> f64 {
        -(1.0 - self.share()).ln() * mean
    }
}

pub(super) fn s(seconds: f64) -> Duration {
    Duration::from_secs_f64(seconds)
}
