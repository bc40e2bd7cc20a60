//! How often requests may start: so many in a second and so many in a minute, both with a burst.
//!
//! Two meters, because both bounds hold. Asking changes nothing, so that a request that another bound refuses costs nothing here.

use super::meter::{Meter, Rate};
use super::refusal::{Bound, Measure, Scope};
use crate::domain::allowance::Allowance;

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Requests {
    second: Meter,
    minute: Meter,
}

/// The rate of a second, if there is one. A burst of nothing would refuse everybody for ever, so it is one.
fn second(allowance: &Allowance) -> Option<Rate> {
    let most = allowance.requests_per_second?;
    Some(Rate::per_second(most.into(), allowance.burst.unwrap_or(most).max(1).into()))
}

fn minute(allowance: &Allowance) -> Option<Rate> {
    let most = allowance.requests_per_minute?;
    Some(Rate::per_minute(most.into(), allowance.burst.unwrap_or(most).max(1).into()))
}

impl Requests {
    /// How these bounds stand for one more request.
    pub fn bounds(&self, scope: Scope, allowance: &Allowance, now_ns: u64) -> impl Iterator<Item = Bound> {
        let both = [
            (Measure::RequestsPerSecond, second(allowance), self.second, allowance.requests_per_second),
            (Measure::RequestsPerMinute, minute(allowance), self.minute, allowance.requests_per_minute),
        ];
        both.into_iter().filter_map(move |(measure, rate, meter, limit)| {
            let mut bound = Bound::of_meter(scope, measure, &meter, rate?, 1, now_ns);
            if limit == Some(0) {
                bound.close();
            }
            Some(bound)
        })
    }

    /// A request starts.
    pub fn take(&mut self, allowance: &Allowance, now_ns: u64) {
        if let Some(rate) = second(allowance) {
            self.second.add(rate, 1, now_ns);
        }
        if let Some(rate) = minute(allowance) {
            self.minute.add(rate, 1, now_ns);
        }
    }

    /// To be called before the allowance changes.
    pub fn catch_up(&mut self, allowance: &Allowance, now_ns: u64) {
        self.second.catch_up(second(allowance), now_ns);
        self.minute.catch_up(minute(allowance), now_ns);
    }

    pub fn is_idle(&self, allowance: &Allowance, now_ns: u64) -> bool {
        second(allowance).is_none_or(|rate| self.second.is_empty(rate, now_ns))
            && minute(allowance).is_none_or(|rate| self.minute.is_empty(rate, now_ns))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::meter::Wait;
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    fn worst(requests: &Requests, allowance: &Allowance, now_ns: u64) -> Wait {
        requests.bounds(Scope::Key, allowance, now_ns).map(|bound| bound.wait).find(|wait| *wait != Wait::Free).unwrap_or(Wait::Free)
    }

    #[test]
    fn both_rates_hold_and_the_burst_is_shared() {
        let allowance = Allowance { requests_per_second: Some(2), requests_per_minute: Some(60), burst: Some(4), ..Allowance::default() };
        let mut requests = Requests::default();
        for _ in 0..4 {
            assert_eq!(worst(&requests, &allowance, 0), Wait::Free);
            requests.take(&allowance, 0);
        }
        assert_eq!(worst(&requests, &allowance, 0), Wait::For(Duration::from_millis(500)));
        assert_eq!(worst(&requests, &allowance, SECOND / 2), Wait::For(Duration::from_millis(500)), "the minute allows one a second");
        assert_eq!(worst(&requests, &allowance, SECOND), Wait::Free);
        assert!(!requests.is_idle(&allowance, SECOND) && requests.is_idle(&allowance, 4 * SECOND));
    }

    #[test]
    fn nothing_allowed_is_nothing_admitted_and_no_bound_is_no_bound() {
        let none = Allowance { requests_per_minute: Some(0), ..Allowance::default() };
        assert_eq!(worst(&Requests::default(), &none, 0), Wait::Never);
        let mut free = Requests::default();
        free.take(&Allowance::default(), 0);
        assert_eq!((free, free.bounds(Scope::Key, &Allowance::default(), 0).count()), (Requests::default(), 0));
    }
}
