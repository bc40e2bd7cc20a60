//! When a request of a tenant is due: one number that orders its requests by deadline, length and age together.
//!
//! A request is due some time after it came, the later the longer it is expected to take; the shift is at most the wait that lay
//! before it when it came and the time it takes itself, or the first long ones of a crowd would go before most of it. So short ones
//! overtake long ones, and a long one is overtaken only by what comes within that time: it cannot starve. Nothing known about length makes every shift equal, and the order that of arrival. A deadline pulls a request
//! forward to the last moment at which it can still be met. The number never changes, so a queue is a sorted set.

use std::time::Duration;

use super::At;

/// Room between the last moment to start and the deadline, in expected service times.
const SLACK: f64 = 1.25;

/// What is known of a request when it comes.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Arrival {
    pub at: At,
    /// Expected wait if all were served as they came, in seconds.
    pub wait_s: f64,
    /// Expected service time, in seconds. `None`: nothing is known.
    pub service_s: Option<f64>,
    /// How long it is expected to take, over the mean of those that came lately. `None`: nothing is known.
    pub relative: Option<f64>,
    pub deadline: Option<At>,
}

#[must_use]
pub(super) fn due(arrival: &Arrival) -> At {
    let shifted = arrival.at + seconds((arrival.wait_s + arrival.service_s.unwrap_or_default()) * rank(arrival));
    match arrival.deadline {
        Some(deadline) => shifted.min(last_start(deadline, arrival.service_s.unwrap_or_default()).max(arrival.at)),
        None => shifted,
    }
}

/// Where a request stands between the shortest (0) and the longest (1); a half when it is like all others.
fn rank(arrival: &Arrival) -> f64 {
    arrival.relative.map_or(0.5, |relative| {
        let cubed = relative * relative * relative;
        cubed / (1.0 + cubed)
    })
}

fn last_start(deadline: At, service_s: f64) -> At {
    deadline.saturating_sub(seconds(service_s * SLACK))
}

/// Seconds as a span; nonsense is none.
#[must_use]
pub(super) fn seconds(value: f64) -> Duration {
    Duration::try_from_secs_f64(value.min(1e9)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> At {
        Duration::from_millis(ms)
    }

    fn of(at_ms: u64, service_s: Option<f64>) -> Arrival {
        Arrival { at: at(at_ms), wait_s: 20.0, service_s, relative: service_s.map(|service| service / 2.0), deadline: None }
    }

    #[test]
    fn without_knowledge_or_differences_the_order_is_that_of_arrival() {
        assert!(due(&of(0, None)) < due(&of(1, None)));
        assert!(due(&of(0, Some(2.0))) < due(&of(1, Some(2.0))));
        assert!(due(&of(0, None)) < due(&of(1, Some(2.0))));
    }

    #[test]
    fn a_short_one_overtakes_long_ones_but_only_those_of_the_last_wait() {
        let long = due(&of(0, Some(10.0)));
        assert!(due(&of(12_000, Some(0.5))) < long);
        assert!(due(&of(30_001, Some(0.5))) > long, "by then the long one has waited long enough");
        let first = due(&Arrival { wait_s: 0.0, ..of(0, Some(9.0)) });
        assert!(
            due(&Arrival { wait_s: 9.0, ..of(1, Some(0.1)) }) < first,
            "with nothing before it, it lets pass what comes while it would run"
        );
        assert!(due(&Arrival { wait_s: 0.0, ..of(9_000, Some(0.1)) }) > first);
    }

    #[test]
    fn a_deadline_that_would_be_missed_pulls_forward_and_a_far_one_changes_nothing() {
        let free = due(&of(0, Some(2.0)));
        let near = due(&Arrival { deadline: Some(at(5_000)), ..of(0, Some(2.0)) });
        assert_eq!(near, at(2_500));
        assert_eq!(due(&Arrival { deadline: Some(at(90_000)), ..of(0, Some(2.0)) }), free);
        let earlier = due(&Arrival { deadline: Some(at(4_000)), ..of(10, Some(2.0)) });
        assert!(earlier < near, "the earliest deadline first");
        assert_eq!(due(&Arrival { deadline: Some(at(10)), ..of(500, Some(2.0)) }), at(500), "never before it came");
    }
}
