//! How many requests a runner takes at a time: as configured, or found out.
//!
//! What is not configured starts at one, Ollama's own default. When all known slots are busy and requests wait, now and then one
//! more is sent. Its first token tells: if all the earlier ones were still generating, there is a slot more than was known; if one
//! of them had ended, there may be none. After that it is left alone for a while, longer each time. Never more than this one probe
//! is in flight beyond the slots.

use std::time::Duration;

use super::{At, Id};

/// Time before a second probe; it doubles up to the configured one.
const FIRST_PAUSE: Duration = Duration::from_secs(30);
/// No more than this is ever found out.
const MOST: u32 = 64;

#[derive(Debug)]
pub(super) struct Slots {
    configured: Option<u32>,
    learnt: u32,
    probe: Option<Probe>,
    /// No probe before this.
    not_before: At,
    pause: Duration,
}

#[derive(Debug)]
struct Probe {
    id: Id,
    /// One of those before it has ended.
    undecided: bool,
}

impl Default for Slots {
    fn default() -> Self {
        Self { configured: None, learnt: 1, probe: None, not_before: At::ZERO, pause: FIRST_PAUSE }
    }
}

impl Slots {
    pub(super) fn configure(&mut self, slots: Option<u32>) {
        self.configured = slots.map(|slots| slots.max(1));
    }

    pub(super) fn known(&self) -> u32 {
        self.configured.unwrap_or(self.learnt)
    }

    pub(super) fn is_learnt(&self) -> bool {
        self.configured.is_none()
    }

    /// Whether one more than known may be sent now. `generating`: how many have given a token.
    pub(super) fn may_probe(&self, now: At, in_flight: u32, generating: u32) -> bool {
        let idle = self.configured.is_none() && self.probe.is_none() && self.learnt < MOST;
        idle && in_flight == self.learnt && generating == in_flight && now >= self.not_before
    }

    pub(super) fn probing(&mut self, id: Id) {
        self.probe = Some(Probe { id, undecided: true });
    }

    /// A request's first token came.
    pub(super) fn first_token(&mut self, now: At, id: Id, longest_pause: Duration) {
        let Some(probe) = self.probe.take_if(|probe| probe.id == id) else { return };
        if probe.undecided {
            self.learnt += 1;
            self.pause = FIRST_PAUSE;
        } else {
            self.failed(now, longest_pause);
        }
    }

    /// A request ended, the probe or one before it.
    pub(super) fn ended(&mut self, now: At, id: Id, longest_pause: Duration) {
        if self.probe.take_if(|probe| probe.id == id).is_some() {
            self.failed(now, longest_pause);
        } else if let Some(probe) = &mut self.probe {
            probe.undecided = false;
        }
    }

    fn failed(&mut self, now: At, longest_pause: Duration) {
        self.pause = self.pause.min(longest_pause);
        self.not_before = now + self.pause;
        self.pause = self.pause.saturating_mul(2);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONGEST: Duration = Duration::from_mins(10);

    fn at(s: u64) -> At {
        Duration::from_secs(s)
    }

    #[test]
    fn configured_slots_are_never_probed() {
        let mut slots = Slots::default();
        slots.configure(Some(4));
        assert_eq!(slots.known(), 4);
        assert!(!slots.may_probe(at(0), 4, 4));
        slots.configure(Some(0));
        assert_eq!(slots.known(), 1, "a backend without slots would serve nobody");
    }

    #[test]
    fn a_first_token_beside_the_others_proves_a_slot() {
        let mut slots = Slots::default();
        assert!(!slots.may_probe(at(0), 1, 0), "the first has given nothing: it may still be loading");
        assert!(slots.may_probe(at(0), 1, 1));
        slots.probing(7);
        assert!(!slots.may_probe(at(0), 2, 2), "one probe at a time");
        slots.first_token(at(1), 7, LONGEST);
        assert_eq!(slots.known(), 2);
        assert!(slots.may_probe(at(1), 2, 2), "and the next is looked for at once");
    }

    #[test]
    fn a_first_token_after_another_ended_proves_nothing_and_rests_longer_each_time() {
        let mut slots = Slots::default();
        let mut now = at(0);
        for pause in [30, 60, 120, 240, 480, 600, 600] {
            assert!(slots.may_probe(now, 1, 1));
            slots.probing(7);
            slots.ended(now, 3, LONGEST);
            slots.first_token(now, 7, LONGEST);
            assert_eq!(slots.known(), 1);
            assert!(!slots.may_probe(now + at(pause - 1), 1, 1));
            now += at(pause);
        }
    }

    #[test]
    fn a_probe_that_ends_without_a_token_proves_nothing() {
        let mut slots = Slots::default();
        slots.probing(7);
        slots.ended(at(0), 7, LONGEST);
        assert_eq!(slots.known(), 1);
        assert!(!slots.may_probe(at(29), 1, 1) && slots.may_probe(at(30), 1, 1));
    }
}
