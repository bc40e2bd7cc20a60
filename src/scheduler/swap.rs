//! When a backend changes from one model to another.
//!
//! Ollama binds a request for a loaded model to it at once and makes a load wait until the old model is idle, so a steady stream
//! for A starves B for ever; and it evicts whatever it likes to make room. So nothing is asked for B while A has requests in flight
//! unless both are known to fit: A's waiting requests are held back, what is in flight ends, then B goes. To keep that from
//! happening all the time, A keeps the backend for a while; to keep B from waiting too long, not for longer than a while.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use super::At;
use super::config::Config;
use super::order::seconds;
use crate::domain::generation::Priority;

/// Sets of models that are remembered to fit together.
const MOST_SETS: usize = 32;
/// How many times its loading time a model stays, at least.
const LOADS_WORTH: f64 = 4.0;

/// What may be loaded together on one backend.
#[derive(Debug, Default)]
pub(super) struct Room {
    pub max_loaded: Option<u32>,
    /// `Some(false)`: any models fit. `Some(true)`: one at a time.
    pub exclusive: Option<bool>,
    seen: VecDeque<BTreeSet<Arc<str>>>,
}

impl Room {
    /// These were loaded at the same time.
    pub(super) fn saw(&mut self, models: &BTreeSet<Arc<str>>) {
        if models.len() < 2 || self.seen.iter().any(|set| models.is_subset(set)) {
            return;
        }
        self.seen.retain(|set| !set.is_subset(models));
        self.seen.push_back(models.clone());
        if self.seen.len() > MOST_SETS {
            self.seen.pop_front();
        }
    }

    /// Whether all of these are known to fit. One alone always does.
    pub(super) fn fits(&self, models: &BTreeSet<Arc<str>>) -> bool {
        if models.len() <= 1 || self.exclusive == Some(false) {
            return true;
        }
        if self.exclusive == Some(true) {
            return false;
        }
        match self.max_loaded {
            Some(most) => models.len() <= most as usize,
            None => self.seen.iter().any(|set| models.is_subset(set)),
        }
    }
}

/// The model that has the backend.
#[derive(Debug, Clone, Copy)]
pub(super) struct Holder {
    /// Since when it serves. `None`: it is still being loaded.
    pub since: Option<At>,
    /// The highest class that waits for it. `None`: nothing does.
    pub waiting: Option<Priority>,
    /// Time until what is in flight has ended, in seconds.
    pub drain_s: f64,
}

/// The model that would have it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Claim {
    pub class: Priority,
    /// When the oldest request for it came.
    pub oldest: At,
    /// Time to load it, in seconds.
    pub load_s: f64,
    /// Time to serve one request, in seconds.
    pub service_s: f64,
}

/// Whether the holder's waiting requests are to be held back so that the claimant can be loaded.
#[must_use]
pub(super) fn must_yield(now: At, holder: &Holder, claim: &Claim, config: &Config) -> bool {
    let Some(since) = holder.since else { return false };
    let Some(class) = holder.waiting else { return true };
    let residence = residence(claim.load_s, config);
    let drained = now + seconds(holder.drain_s);
    // It ends with its last answer, so the last request is the one that still fits in.
    if drained.saturating_sub(since) >= residence {
        return true;
    }
    let served = drained + seconds(claim.load_s + claim.service_s);
    let pressing = served >= claim.oldest + config.swap_within.min(config.max_wait.of(claim.class));
    (pressing || claim.class > class) && now.saturating_sub(since) >= residence / 2
}

/// How long a model keeps a backend while others wait that take this long to load.
#[must_use]
pub(super) fn residence(load_s: f64, config: &Config) -> Duration {
    let longest = config.max_residence.max(config.min_residence);
    seconds(load_s * LOADS_WORTH).clamp(config.min_residence, longest)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(models: &[&str]) -> BTreeSet<Arc<str>> {
        models.iter().map(|&m| m.into()).collect()
    }

    #[test]
    fn unknown_pairs_do_not_fit_and_seen_ones_do() {
        let mut room = Room::default();
        assert!(room.fits(&set(&["a"])) && !room.fits(&set(&["a", "b"])));
        room.saw(&set(&["a", "b"]));
        room.saw(&set(&["b", "c"]));
        assert!(room.fits(&set(&["a", "b"])) && room.fits(&set(&["b", "c"])));
        assert!(!room.fits(&set(&["a", "c"])) && !room.fits(&set(&["a", "b", "c"])), "pairs say nothing of three");
        room.saw(&set(&["a", "b", "c"]));
        assert_eq!(room.seen.len(), 1, "the larger set says it all");
        assert!(room.fits(&set(&["a", "c"])));
    }

    #[test]
    fn what_is_configured_counts_for_more_than_what_was_seen() {
        let mut room = Room { max_loaded: Some(2), ..Room::default() };
        room.saw(&set(&["a", "b", "c"]));
        assert!(room.fits(&set(&["a", "d"])) && !room.fits(&set(&["a", "b", "c"])));
        room.exclusive = Some(true);
        assert!(!room.fits(&set(&["a", "d"])));
        room.exclusive = Some(false);
        assert!(room.fits(&set(&["a", "b", "c", "d"])));
    }

    #[test]
    fn remembered_sets_are_bounded() {
        let mut room = Room::default();
        for n in 0..100 {
            room.saw(&set(&[&format!("a{n}"), &format!("b{n}")]));
        }
        assert_eq!(room.seen.len(), MOST_SETS);
    }

    fn holder(since_s: Option<u64>, waiting: Option<Priority>) -> Holder {
        Holder { since: since_s.map(Duration::from_secs), waiting, drain_s: 0.3 }
    }

    fn claim(class: Priority, oldest_s: u64, load_s: f64) -> Claim {
        Claim { class, oldest: Duration::from_secs(oldest_s), load_s, service_s: 0.3 }
    }

    fn yields(now_s: f64, holder: &Holder, claim: &Claim) -> bool {
        must_yield(seconds(now_s), holder, claim, &Config::default())
    }

    #[test]
    fn a_model_keeps_the_backend_for_its_time_and_not_longer() {
        let (a, b) = (holder(Some(100), Some(Priority::Normal)), claim(Priority::Normal, 106, 1.5));
        assert!(!yields(107.6, &a, &b), "the last request may still end within the time");
        assert!(yields(107.7, &a, &b));
        assert!(yields(100.0, &holder(Some(100), None), &b), "nothing waits for it: at once");
        assert!(!yields(500.0, &holder(None, None), &b), "never while it is being loaded");
    }

    #[test]
    fn one_that_has_waited_long_shortens_it_but_not_below_half() {
        let a = holder(Some(100), Some(Priority::Normal));
        let b = claim(Priority::Normal, 95, 1.5);
        assert!(!yields(103.9, &a, &b) && yields(104.0, &a, &b));
    }

    #[test]
    fn a_higher_class_waits_for_half_of_it() {
        let a = holder(Some(100), Some(Priority::Batch));
        assert!(!yields(103.9, &a, &claim(Priority::High, 103, 1.5)));
        assert!(yields(104.0, &a, &claim(Priority::High, 103, 1.5)));
        assert!(!yields(104.0, &a, &claim(Priority::Batch, 103, 1.5)));
    }

    #[test]
    fn what_is_slow_to_load_is_swapped_more_rarely_within_a_bound() {
        assert_eq!(residence(1.5, &Config::default()), Duration::from_secs(8));
        assert_eq!(residence(10.0, &Config::default()), Duration::from_secs(40));
        assert_eq!(residence(300.0, &Config::default()), Duration::from_mins(2));
    }
}
