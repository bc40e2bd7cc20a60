//! How much was used of a rate: the one measure behind requests and tokens.
//!
//! A leaky bucket read as a meter (the algorithm known as GCRA; ITU-T I.371, annex A): what is used raises the level, time lowers
//! it at the rate, and there is room while the level stays below the burst. All in whole numbers, so nothing is lost to rounding.
//! The level is of what was *used*, so a rate may change at any time without the meter forgetting. No clock: time comes in.

use std::time::Duration;

const SECOND: u64 = 1_000_000_000;

/// So many in a time, and so many at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    /// How many in a period.
    amount: u64,
    /// The period, in nanoseconds.
    period_ns: u64,
    /// How many may come at once.
    burst: u64,
}

/// When there is room.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wait {
    /// Now.
    Free,
    /// After this long, if nobody else takes it.
    For(Duration),
    /// However long one waits.
    Never,
}

impl Rate {
    pub fn per_second(amount: u64, burst: u64) -> Self {
        Self { amount, period_ns: SECOND, burst }
    }

    pub fn per_minute(amount: u64, burst: u64) -> Self {
        Self { amount, period_ns: 60 * SECOND, burst }
    }

    pub fn burst(self) -> u64 {
        self.burst
    }

    /// The time in which as much as may come at once is made good.
    pub fn window(self) -> Option<Duration> {
        self.time_for(self.scaled(self.burst))
    }

    fn scaled(self, amount: u64) -> u128 {
        u128::from(amount) * u128::from(self.period_ns)
    }

    /// How long it takes for this much of a level to go.
    fn time_for(self, scaled: u128) -> Option<Duration> {
        let nanoseconds = scaled.div_ceil(u128::from((self.amount > 0).then_some(self.amount)?));
        Some(Duration::from_nanos(u64::try_from(nanoseconds).unwrap_or(u64::MAX)))
    }
}

/// What was used and has not yet been made good by time.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Meter {
    /// In units × nanoseconds of the rate's period.
    level: u128,
    /// Nanoseconds of the steady clock.
    at_ns: u64,
}

impl Meter {
    fn level(&self, rate: Rate, now_ns: u64) -> u128 {
        let gone = u128::from(now_ns.saturating_sub(self.at_ns)) * u128::from(rate.amount);
        self.level.saturating_sub(gone)
    }

    /// When this much more fits below the burst.
    pub fn wait(&self, rate: Rate, amount: u64, now_ns: u64) -> Wait {
        if amount > rate.burst {
            return Wait::Never;
        }
        let after = self.level(rate, now_ns).saturating_add(rate.scaled(amount));
        match after.saturating_sub(rate.scaled(rate.burst)) {
            0 => Wait::Free,
            above => rate.time_for(above).map_or(Wait::Never, Wait::For),
        }
    }

    /// How many whole ones fit now.
    pub fn room(&self, rate: Rate, now_ns: u64) -> u64 {
        let free = rate.scaled(rate.burst).saturating_sub(self.level(rate, now_ns));
        u64::try_from(free / u128::from(rate.period_ns)).unwrap_or(u64::MAX)
    }

    /// By how many the level is above the burst: what was used although there was no room.
    pub fn debt(&self, rate: Rate, now_ns: u64) -> u64 {
        let above = self.level(rate, now_ns).saturating_sub(rate.scaled(rate.burst));
        u64::try_from(above.div_ceil(u128::from(rate.period_ns))).unwrap_or(u64::MAX)
    }

    /// How long until nothing of what was used is left on the meter.
    pub fn until_empty(&self, rate: Rate, now_ns: u64) -> Duration {
        rate.time_for(self.level(rate, now_ns)).unwrap_or(Duration::MAX)
    }

    pub fn is_empty(&self, rate: Rate, now_ns: u64) -> bool {
        self.level(rate, now_ns) == 0
    }

    /// Uses this much, whether there is room or not.
    pub fn add(&mut self, rate: Rate, amount: u64, now_ns: u64) {
        self.set(self.level(rate, now_ns).saturating_add(rate.scaled(amount)), now_ns);
    }

    /// Gives back this much.
    pub fn remove(&mut self, rate: Rate, amount: u64, now_ns: u64) {
        self.set(self.level(rate, now_ns).saturating_sub(rate.scaled(amount)), now_ns);
    }

    /// Brings the level to now, before the rate changes.
    pub fn catch_up(&mut self, rate: Option<Rate>, now_ns: u64) {
        self.set(rate.map_or(0, |rate| self.level(rate, now_ns)), now_ns);
    }

    fn set(&mut self, level: u128, now_ns: u64) {
        // Two threads may read the clock in one order and come here in the other.
        *self = Self { level, at_ns: self.at_ns.max(now_ns) };
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn never_more_than_rate_times_time_and_burst_in_any_window(
            amount in 1_u64..50, burst in 1_u64..20, steps in prop::collection::vec((0_u64..400_000_000, 1_u64..5), 1..200),
        ) {
            let rate = Rate::per_second(amount, burst);
            let (mut meter, mut now, mut admitted) = (Meter::default(), 0, Vec::new());
            for (pause, ask) in steps {
                now += pause;
                if meter.wait(rate, ask, now) == Wait::Free {
                    meter.add(rate, ask, now);
                    admitted.push((now, ask));
                }
            }
            for (n, (from, _)) in admitted.iter().enumerate() {
                let mut sum = 0;
                for (until, ask) in &admitted[n..] {
                    sum += ask;
                    let most = u128::from(burst) * u128::from(SECOND) + u128::from(until - from) * u128::from(amount);
                    prop_assert!(u128::from(sum) * u128::from(SECOND) <= most, "{sum} in {} ns", until - from);
                }
            }
        }

        #[test]
        fn who_waits_as_long_as_told_is_let_in_and_not_a_nanosecond_earlier(
            amount in 1_u64..1_000, burst in 1_u64..100, used in 0_u64..10_000, ask in 1_u64..100,
        ) {
            let rate = Rate::per_minute(amount, burst);
            let mut meter = Meter::default();
            meter.add(rate, used, 0);
            match meter.wait(rate, ask, 0) {
                Wait::Free => prop_assert!(used + ask <= burst),
                Wait::Never => prop_assert!(ask > burst),
                Wait::For(wait) => {
                    let then = u64::try_from(wait.as_nanos()).expect("short");
                    prop_assert_eq!(meter.wait(rate, ask, then), Wait::Free);
                    prop_assert_eq!(meter.wait(rate, ask, then - 1), Wait::For(Duration::from_nanos(1)));
                }
            }
        }

        #[test]
        fn what_is_given_back_at_once_leaves_exactly_what_was_used(reserved in 0_u64..1_000, used in 0_u64..1_000, burst in 1_u64..2_000) {
            let rate = Rate::per_minute(60, burst);
            let (mut meter, mut direct) = (Meter::default(), Meter::default());
            meter.add(rate, reserved, 5);
            meter.remove(rate, reserved.saturating_sub(used), 5);
            meter.add(rate, used.saturating_sub(reserved), 5);
            direct.add(rate, used, 5);
            prop_assert_eq!(meter, direct);
            prop_assert_eq!(meter.debt(rate, 5), used.saturating_sub(burst));
        }

        #[test]
        fn any_debt_is_paid_off_by_time(debt in 1_u64..1_000_000, amount in 1_u64..1_000) {
            let rate = Rate::per_minute(amount, amount);
            let mut meter = Meter::default();
            meter.add(rate, amount + debt, 0);
            prop_assert_eq!(meter.debt(rate, 0), debt);
            let paid = u64::try_from(meter.until_empty(rate, 0).as_nanos()).expect("short");
            prop_assert!(meter.is_empty(rate, paid) && !meter.is_empty(rate, paid - 1));
            prop_assert_eq!(meter.room(rate, paid), amount);
        }
    }

    #[test]
    fn a_rate_of_nothing_lets_nothing_in_for_ever() {
        let rate = Rate::per_minute(0, 1);
        let mut meter = Meter::default();
        meter.add(rate, 1, 0);
        assert_eq!(meter.wait(rate, 1, u64::MAX), Wait::Never);
        assert_eq!(meter.until_empty(rate, 0), Duration::MAX);
        assert_eq!(Meter::default().wait(Rate::per_second(5, 0), 1, 0), Wait::Never);
    }

    #[test]
    fn a_changed_rate_keeps_what_was_used_and_a_clock_that_stands_back_frees_nothing() {
        let (slow, fast) = (Rate::per_minute(60, 60), Rate::per_minute(600, 600));
        let mut meter = Meter::default();
        meter.add(slow, 60, 0);
        meter.catch_up(Some(slow), 30 * SECOND);
        assert_eq!(meter.room(fast, 30 * SECOND), 570);
        assert_eq!(meter.room(fast, 10 * SECOND), 570);
        meter.add(fast, 1, 10 * SECOND);
        assert_eq!(meter.room(fast, 30 * SECOND), 569);
        meter.catch_up(None, 30 * SECOND);
        assert!(meter.is_empty(slow, 30 * SECOND));
    }
}
