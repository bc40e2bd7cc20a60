//! The door that breaker and outlier ejection share: open to all, shut until a moment, then open to one at a time.
//!
//! ```text
//!             shut                    its time is over              the one passes
//! Closed ────────────> Open ──────────────────────────> HalfOpen ──────────────────> Closed
//!   (all may enter)      ^   (nobody)        (one at a time)  │
//!                        └─────────────────────────────────────┘ the one fails: shut again, longer
//! ```
//!
//! The names are a circuit breaker's: closed means that requests pass. Whoever enters gets a [`Ticket`] and brings it back. What
//! is told with a ticket from before the last change is not heard: it says nothing of how things are now. No clock in here.

use std::time::{Duration, Instant};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    Closed,
    /// Nobody enters before this moment.
    Open {
        until: Instant,
    },
    HalfOpen {
        /// Whether the one is on its way.
        probing: bool,
    },
}

/// The right to try, and what it was when it was given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ticket {
    era: u64,
    probe: bool,
}

#[derive(Debug, Clone, Default)]
pub struct Gate {
    /// When it was shut, until when; and whether the one is on its way since.
    shut: Option<Shut>,
    /// Counts the changes between closed and open.
    era: u64,
    /// How often it was shut in a row.
    times: u32,
    /// For how long it was shut the last time.
    lasted: Duration,
    closed_at: Option<Instant>,
}

#[derive(Debug, Clone, Copy)]
struct Shut {
    until: Instant,
    probing: bool,
}

impl Gate {
    #[must_use]
    pub fn standing(&self, now: Instant) -> Standing {
        match self.shut {
            None => Standing::Closed,
            Some(Shut { until, probing: false }) if now < until => Standing::Open { until },
            Some(Shut { probing, .. }) => Standing::HalfOpen { probing },
        }
    }

    #[must_use]
    pub fn admits(&self, now: Instant) -> bool {
        matches!(self.standing(now), Standing::Closed | Standing::HalfOpen { probing: false })
    }

    /// Enters, be it allowed or not: when all are shut, one has to be tried.
    pub fn enter(&mut self, now: Instant) -> Ticket {
        let probe = self.standing(now) == Standing::HalfOpen { probing: false };
        if let (true, Some(shut)) = (probe, &mut self.shut) {
            shut.probing = true;
        }
        Ticket { era: self.era, probe }
    }

    /// Whether what is told with this ticket counts.
    #[must_use]
    pub fn hears(&self, ticket: Ticket) -> bool {
        ticket.era == self.era
    }

    /// Gives a ticket back without a verdict: the next one may try.
    pub fn leave(&mut self, ticket: Ticket) {
        if let (true, true, Some(shut)) = (ticket.probe, self.hears(ticket), &mut self.shut) {
            shut.probing = false;
        }
    }

    /// It went well. `true` when that closes the gate.
    pub fn pass(&mut self, ticket: Ticket, now: Instant) -> bool {
        if !self.hears(ticket) || self.shut.is_none() {
            return false;
        }
        self.shut = None;
        self.era += 1;
        self.closed_at = Some(now);
        true
    }

    /// Lets nobody in until then.
    pub fn shut(&mut self, now: Instant, until: Instant) {
        self.lasted = until.saturating_duration_since(now);
        self.shut = Some(Shut { until, probing: false });
        self.era += 1;
        self.times = self.times.saturating_add(1);
    }

    /// Forgets how often it was shut once it has been closed for as long as it was shut the last time.
    pub fn settle(&mut self, now: Instant) {
        if self.shut.is_none() && self.closed_at.is_none_or(|at| now.saturating_duration_since(at) >= self.lasted) {
            self.times = 0;
        }
    }

    /// How long to stay shut now: twice as long each time in a row, at most `longest`, and of that between half and the whole,
    /// as `dice` (0 up to 1) falls, so that many gates do not open together.
    #[must_use]
    pub fn penalty(&self, first: Duration, longest: Duration, dice: f64) -> Duration {
        let full = first.saturating_mul(2_u32.saturating_pow(self.times)).min(longest);
        full.mul_f64(1.0 - dice.clamp(0.0, 1.0) / 2.0)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn one_at_a_time_enters_after_a_while_and_closes_it() {
        let now = Instant::now();
        let mut gate = Gate::default();
        assert!(gate.admits(now));
        gate.shut(now, now + SECOND);
        assert!(!gate.admits(now));
        assert_eq!(gate.standing(now), Standing::Open { until: now + SECOND });
        let then = now + SECOND;
        assert!(gate.admits(then));
        let one = gate.enter(then);
        assert!(!gate.admits(then));
        gate.leave(one);
        assert!(gate.admits(then), "it left without a word");
        let one = gate.enter(then);
        assert!(gate.pass(one, then));
        assert_eq!(gate.standing(then), Standing::Closed);
    }

    #[test]
    fn what_began_before_a_change_is_not_heard() {
        let now = Instant::now();
        let mut gate = Gate::default();
        let early = gate.enter(now);
        gate.shut(now, now + SECOND);
        assert!(!gate.hears(early) && !gate.pass(early, now));
        let probe = gate.enter(now + SECOND);
        gate.leave(early);
        assert!(!gate.admits(now + SECOND), "only the probe gives its place back");
        gate.leave(probe);
        assert!(gate.admits(now + SECOND));
    }

    #[test]
    fn one_that_had_to_be_tried_while_shut_is_proof_too() {
        let now = Instant::now();
        let mut gate = Gate::default();
        gate.shut(now, now + SECOND);
        let forced = gate.enter(now);
        assert!(gate.pass(forced, now));
        assert!(gate.admits(now));
    }

    #[test]
    fn each_time_in_a_row_is_twice_as_long_up_to_a_bound() {
        let now = Instant::now();
        let mut gate = Gate::default();
        let seconds = |gate: &Gate, dice| gate.penalty(SECOND, SECOND * 10, dice).as_secs_f64();
        let mut spans = Vec::new();
        for _ in 0..6 {
            spans.push((seconds(&gate, 0.0), seconds(&gate, 1.0)));
            gate.shut(now, now + SECOND);
        }
        assert_eq!(spans, [(1.0, 0.5), (2.0, 1.0), (4.0, 2.0), (8.0, 4.0), (10.0, 5.0), (10.0, 5.0)]);
        let probe = gate.enter(now);
        gate.pass(probe, now);
        gate.settle(now);
        assert!(seconds(&gate, 0.0) > 9.0, "not calm for long enough");
        gate.settle(now + SECOND);
        assert!((seconds(&gate, 0.0) - 1.0).abs() < 1e-9);
    }

    proptest! {
        /// Whatever happens in whatever order, at most one probe of the current era is out.
        #[test]
        fn never_two_probes_at_once(steps in proptest::collection::vec((0_u8..6, 0_usize..8, 0_u64..1500), 1..200)) {
            let (mut gate, mut now, mut out) = (Gate::default(), Instant::now(), Vec::<Ticket>::new());
            for (what, which, ms) in steps {
                now += Duration::from_millis(ms);
                match what {
                    0 => gate.shut(now, now + SECOND),
                    1 if !out.is_empty() => gate.leave(out.swap_remove(which % out.len())),
                    2 if !out.is_empty() => { gate.pass(out.swap_remove(which % out.len()), now); }
                    _ if gate.admits(now) => out.push(gate.enter(now)),
                    _ => {}
                }
                let probes = out.iter().filter(|ticket| ticket.probe && gate.hears(**ticket)).count();
                prop_assert!(probes <= 1);
                // And none is lost: half-open and probing means that somebody out there holds it.
                if gate.standing(now) == (Standing::HalfOpen { probing: true }) {
                    prop_assert_eq!(probes, 1);
                }
            }
        }
    }
}
