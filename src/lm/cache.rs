//! The keys and values of the tokens a sequence has so far.
//!
//! Layers that see everything keep every token; sliding layers may keep a ring of what they see and of the chunk being read.
//! Going back is possible as far as the rings still have what the next token would see.

use super::accelerated;
use super::config::Config;
use super::cpu;

/// Tokens that go through the decoder together at most. Between two chunks a caller can look whether it is still wanted.
pub const CHUNK: usize = 256;

/// The state of one sequence, made by [`super::Model::new_cache`] and used with the same model only.
#[derive(Debug)]
pub struct Cache {
    pub(super) model: u64,
    pub(super) capacity: usize,
    pub(super) stores: Stores,
    pub(super) extent: Extent,
}

#[derive(Debug)]
pub(super) enum Stores {
    Cpu(Vec<cpu::Store>),
    Accelerated(Vec<accelerated::Store>),
}

impl Cache {
    /// Tokens in it.
    #[must_use]
    pub fn len(&self) -> usize {
        self.extent.len
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Tokens it has room for.
    #[must_use]
    pub fn capacity(&self) -> usize {
        self.capacity
    }

    /// Forgets all tokens from `len` on. False, and nothing is forgotten: the sliding layers no longer have what the token at
    /// `len` would see, and the sequence has to be read again from the start ([`Cache::clear`]).
    #[must_use]
    pub fn truncate(&mut self, len: usize) -> bool {
        self.extent.truncate(len)
    }

    pub fn clear(&mut self) {
        self.extent.len = 0;
        self.extent.written = 0;
    }
}

/// Which tokens the rings still have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Extent {
    pub len: usize,
    /// The most tokens there were since the cache was empty: what is behind them has been overwritten.
    pub written: usize,
    /// What a token sees in sliding layers, and the slots they have. `None`: no layer keeps a ring.
    pub ring: Option<(usize, usize)>,
}

impl Extent {
    pub fn new(ring: Option<(usize, usize)>) -> Self {
        Self { len: 0, written: 0, ring }
    }

    pub fn grow(&mut self, tokens: usize) {
        self.len += tokens;
        // What is written now takes the place of what went back before.
        self.written = self.written.max(self.len);
    }

    pub fn truncate(&mut self, len: usize) -> bool {
        let kept = self.ring.is_none_or(|(window, slots)| {
            let first_seen = (len + 1).saturating_sub(window);
            let first_kept = self.written.saturating_sub(slots);
            first_seen >= first_kept
        });
        if len >= self.len {
            return true;
        }
        if len == 0 {
            self.len = 0;
            self.written = 0;
            return true;
        }
        if kept {
            self.len = len;
        }
        kept
    }
}

/// Slots of a sliding layer in a cache of this capacity: what the first token of a chunk sees, and the chunk.
pub(super) fn ring_slots(config: &Config, capacity: usize) -> usize {
    config.window.map_or(capacity, |window| capacity.min(window.size - 1 + CHUNK))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn without_rings_every_length_can_be_gone_back_to() {
        let mut extent = Extent::new(None);
        extent.grow(1000);
        assert!(extent.truncate(3));
        assert_eq!(extent.len, 3);
    }

    #[test]
    fn with_rings_only_so_far() {
        let mut extent = Extent::new(Some((4, 10)));
        extent.grow(20);
        assert!(!extent.truncate(12), "the token at 12 sees from 9 on, but 10 is the first that is kept");
        assert_eq!(extent.len, 20);
        assert!(extent.truncate(13));
        assert!(extent.truncate(0), "starting anew is always possible");
    }

    proptest! {
        /// A model of the rings: each slot knows which token was written to it last.
        #[test]
        fn what_a_truncation_allows_is_still_there(window in 1_usize..6, chunk in 1_usize..6, steps in prop::collection::vec((any::<bool>(), 0_usize..12), 1..40)) {
            let slots = window - 1 + chunk;
            let mut extent = Extent::new(Some((window, slots)));
            let mut last = vec![None; slots];
            for (back, amount) in steps {
                if back {
                    let to = extent.len.saturating_sub(amount);
                    if extent.truncate(to) {
                        prop_assert_eq!(extent.len, to);
                        for seen in (to + 1).saturating_sub(window)..to {
                            prop_assert_eq!(last[seen % slots], Some(seen));
                        }
                    }
                } else {
                    let count = amount.min(chunk);
                    for token in extent.len..extent.len + count {
                        last[token % slots] = Some(token);
                    }
                    extent.grow(count);
                }
            }
        }
    }
}
