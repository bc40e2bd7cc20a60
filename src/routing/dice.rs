//! Chance for jitter: SplitMix64 (Steele, Lea, Flood 2014), seeded once. Not for secrets.

use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicU64, Ordering};

const STEP: u64 = 0x9E37_79B9_7F4A_7C15;

/// Rolls numbers; shared by reference.
#[derive(Debug)]
pub struct Dice(AtomicU64);

impl Dice {
    /// The same seed gives the same numbers.
    #[must_use]
    pub fn seeded(seed: u64) -> Self {
        Self(AtomicU64::new(seed))
    }

    /// A different row of numbers in each process.
    #[must_use]
    pub fn random() -> Self {
        Self::seeded(RandomState::new().hash_one(STEP))
    }

    /// A number from 0 up to, and without, 1.
    pub fn roll(&self) -> f64 {
        let mut z = self.0.fetch_add(STEP, Ordering::Relaxed).wrapping_add(STEP);
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        let high = u32::try_from((z ^ (z >> 31)) >> 32).unwrap_or_default();
        f64::from(high) / (f64::from(u32::MAX) + 1.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_lie_between_0_and_1_and_spread() {
        let dice = Dice::seeded(7);
        let rolls: Vec<f64> = (0..10_000).map(|_| dice.roll()).collect();
        assert!(rolls.iter().all(|n| (0.0..1.0).contains(n)));
        let mean = rolls.iter().sum::<f64>() / 10_000.0;
        assert!((mean - 0.5).abs() < 0.02, "{mean}");
        let again = Dice::seeded(7);
        assert!(rolls.iter().all(|n| (n - again.roll()).abs() < f64::EPSILON));
        assert!((Dice::random().roll() - Dice::random().roll()).abs() > 0.0);
    }
}
