//! Who is let in: no more requests, bytes or seconds than the queue can honestly promise.

use std::time::Duration;

use super::At;
use super::config::Config;
use super::order::seconds;
use super::refusal::Refusal;

/// No answer asks to come back sooner.
const SOONEST: Duration = Duration::from_millis(100);

/// The part of the time to a deadline that an expected wait may fill.
const PRUDENCE: f64 = 0.9;

/// What waits now, the newcomer included.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Load {
    pub waiting: usize,
    pub bytes: usize,
    /// Those of the newcomer.
    pub own_bytes: usize,
}

/// What is expected of the newcomer, in seconds. `None`: nothing is known, and nothing is held against it.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Outlook {
    pub wait_s: Option<f64>,
    pub service_s: Option<f64>,
}

/// Whether there is no room, and what the one who asks is told. `turn_s`: expected time until one more place falls free.
pub(super) fn room(load: &Load, turn_s: Option<f64>, config: &Config) -> Result<(), Refusal> {
    let retry_after = seconds(turn_s.unwrap_or(1.0)).max(SOONEST);
    let ahead = load.waiting.saturating_sub(1);
    if load.waiting > config.max_waiting {
        return Err(Refusal::Full { ahead, most: config.max_waiting, retry_after });
    }
    if load.bytes > config.max_waiting_bytes {
        let (own_bytes, most_bytes) = (load.own_bytes, config.max_waiting_bytes);
        return Err(Refusal::TooLarge { ahead, ahead_bytes: load.bytes.saturating_sub(own_bytes), own_bytes, most_bytes, retry_after });
    }
    Ok(())
}

/// Whether a request that came at `now` can be served in time.
pub(super) fn in_time(now: At, outlook: &Outlook, patience: Duration, deadline: Option<At>) -> Result<(), Refusal> {
    let left = deadline.map(|deadline| deadline.saturating_sub(now).saturating_sub(seconds(outlook.service_s.unwrap_or_default())));
    // A little less than what is left: one that just misses its deadline took a slot from one that would not have.
    let left = left.map(|left| left.mul_f64(PRUDENCE));
    let allowed = left.map_or(patience, |left| left.min(patience));
    let Some(eta) = outlook.wait_s.map(seconds) else { return Ok(()) };
    match eta.checked_sub(allowed) {
        Some(excess) if !excess.is_zero() => Err(Refusal::TooLate { eta, retry_after: excess.max(SOONEST) }),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: At = Duration::from_secs(100);

    fn s(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn there_is_room_up_to_and_including_the_bounds() {
        let config = Config { max_waiting: 2, max_waiting_bytes: 10, ..Config::default() };
        let load = |waiting, bytes| Load { waiting, bytes, own_bytes: 9 };
        assert_eq!(room(&load(2, 10), None, &config), Ok(()));
        let full = room(&load(3, 10), Some(2.5), &config);
        assert_eq!(full, Err(Refusal::Full { ahead: 2, most: 2, retry_after: Duration::from_millis(2_500) }));
        let heavy = room(&load(1, 11), Some(0.0), &config);
        let too_large = Refusal::TooLarge { ahead: 0, ahead_bytes: 2, own_bytes: 9, most_bytes: 10, retry_after: SOONEST };
        assert_eq!(heavy, Err(too_large));
    }

    #[test]
    fn a_wait_beyond_patience_or_deadline_is_refused_at_once() {
        let outlook = Outlook { wait_s: Some(5.0), service_s: Some(2.0) };
        assert_eq!(in_time(NOW, &outlook, s(5), None), Ok(()));
        assert_eq!(in_time(NOW, &outlook, s(3), None), Err(Refusal::TooLate { eta: s(5), retry_after: s(2) }));
        assert_eq!(in_time(NOW, &outlook, s(60), Some(s(108))), Ok(()));
        assert_eq!(
            in_time(NOW, &outlook, s(60), Some(s(107))),
            Err(Refusal::TooLate { eta: s(5), retry_after: Duration::from_millis(500) })
        );
        assert!(in_time(NOW, &outlook, s(60), Some(s(1))).is_err(), "a deadline that passed");
    }

    #[test]
    fn nothing_known_is_nothing_held_against_it() {
        assert_eq!(in_time(NOW, &Outlook::default(), s(1), Some(s(101))), Ok(()));
    }
}
