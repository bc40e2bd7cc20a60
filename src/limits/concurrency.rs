//! How many requests run or wait at the same time.

use std::time::Duration;

use super::meter::Wait;
use super::refusal::{Bound, Measure, Quota, Scope};
use crate::domain::allowance::Allowance;

/// When a running request ends cannot be foreseen, so whoever is refused is asked back this soon. It is the only time told that is
/// a guess.
pub const GUESS: Duration = Duration::from_secs(1);

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Running(u32);

impl Running {
    /// How the bound stands for one more request.
    pub fn bound(self, scope: Scope, allowance: &Allowance) -> Option<Bound> {
        let limit = allowance.concurrent_requests?;
        let remaining = limit.saturating_sub(self.0);
        let wait = match (limit, remaining) {
            (0, _) => Wait::Never,
            (_, 0) => Wait::For(GUESS),
            _ => Wait::Free,
        };
        let reset = if self.0 == 0 { Duration::ZERO } else { GUESS };
        let measure = Measure::ConcurrentRequests;
        Some(Bound { quota: Quota { scope, measure, limit: limit.into(), remaining: remaining.into(), reset, window: None }, wait })
    }

    pub fn take(&mut self) {
        self.0 = self.0.saturating_add(1);
    }

    pub fn give_back(&mut self) {
        self.0 = self.0.saturating_sub(1);
    }

    pub fn count(self) -> u32 {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn as_many_as_allowed_and_none_leaks_whatever_the_order(limit in 1_u32..10, steps in prop::collection::vec(any::<bool>(), 0..200)) {
            let allowance = Allowance { concurrent_requests: Some(limit), ..Allowance::default() };
            let (mut running, mut model) = (Running::default(), 0);
            for comes in steps {
                if comes {
                    let free = running.bound(Scope::Key, &allowance).expect("bounded").wait == Wait::Free;
                    prop_assert_eq!(free, model < limit);
                    if free {
                        running.take();
                        model += 1;
                    }
                } else if model > 0 {
                    running.give_back();
                    model -= 1;
                }
                prop_assert_eq!(running.count(), model);
            }
        }
    }

    #[test]
    fn a_bound_that_was_lowered_holds_back_until_enough_have_ended() {
        let mut running = Running::default();
        (0..3).for_each(|_| running.take());
        let bound = |running: Running, most| {
            let allowance = Allowance { concurrent_requests: Some(most), ..Allowance::default() };
            running.bound(Scope::Key, &allowance).expect("bounded").wait
        };
        assert_eq!((bound(running, 2), bound(running, 4), bound(running, 0)), (Wait::For(GUESS), Wait::Free, Wait::Never));
        assert_eq!(running.bound(Scope::Key, &Allowance::default()), None);
    }
}
