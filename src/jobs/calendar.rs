//! When a schedule's jobs are to be made: pure. Times are UTC.

use std::time::Duration;

use croner::Cron;
use jiff::Timestamp;
use jiff::tz::TimeZone;

use crate::storage::jobs::Missed;

/// Jobs that are made up for at most, after a long time without workers.
pub const MADE_UP_AT_MOST: usize = 100;

/// A run is missed when nobody was there this long.
const MISSED_AFTER: Duration = Duration::from_mins(1);

/// What a schedule does now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Due {
    /// For which times jobs are made.
    pub runs_ms: Vec<i64>,
    /// None: never again.
    pub next_at_ms: Option<i64>,
}

/// # Errors
/// What is wrong with a pattern of five fields, in words.
pub fn check(pattern: &str) -> Result<(), String> {
    parse(pattern).map(drop)
}

fn parse(pattern: &str) -> Result<Cron, String> {
    if pattern.len() > 100 || !(pattern.starts_with('@') || pattern.split_whitespace().count() == 5) {
        return Err("a pattern has five fields: minute, hour, day of the month, month, day of the week".to_owned());
    }
    pattern.parse::<Cron>().map_err(|error| error.to_string())
}

/// The first time of a pattern after this one.
#[must_use]
pub fn next(pattern: &str, after_ms: i64) -> Option<i64> {
    let after = Timestamp::from_millisecond(after_ms).ok()?.to_zoned(TimeZone::UTC);
    let next = parse(pattern).ok()?.find_next_occurrence(&after, false).ok()?;
    Some(next.timestamp().as_millisecond())
}

/// What a schedule that was to come at `next_at_ms` does now.
#[must_use]
pub fn due(pattern: &str, missed: Missed, next_at_ms: i64, now_ms: i64) -> Due {
    let mut runs_ms = Vec::new();
    let mut at_ms = Some(next_at_ms);
    while let Some(run) = at_ms.filter(|run| *run <= now_ms) {
        if runs_ms.len() == MADE_UP_AT_MOST {
            // What lies before these is out of reach, and counting it could take long.
            runs_ms.remove(0);
            at_ms = next(pattern, run.max(now_ms - 60_000));
        } else {
            at_ms = next(pattern, run);
        }
        runs_ms.push(run);
    }
    let is_missed = |run: i64| now_ms.saturating_sub(run) > i64::try_from(MISSED_AFTER.as_millis()).unwrap_or(i64::MAX);
    match missed {
        Missed::All => {}
        Missed::Once => runs_ms = runs_ms.pop().into_iter().collect(),
        Missed::Skip => runs_ms.retain(|run| !is_missed(*run)),
    }
    Due { runs_ms, next_at_ms: at_ms }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: i64 = 60_000;
    const HOUR: i64 = 60 * MINUTE;

    #[test]
    fn patterns_have_five_fields_that_mean_something() {
        for right in ["* * * * *", "0 3 * * 1-5", "*/15 8-18 1,15 * *", "@daily"] {
            assert_eq!(check(right), Ok(()), "{right}");
        }
        for wrong in ["", "* * * *", "* * * * * *", "61 * * * *", "x * * * *", &"* ".repeat(200)] {
            assert!(check(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn the_next_time_is_after_the_last_in_utc() {
        assert_eq!(next("0 3 * * *", 0), Some(3 * HOUR));
        assert_eq!(next("0 3 * * *", 3 * HOUR), Some(27 * HOUR));
        assert_eq!(next("0 0 30 2 *", 0), None, "there is no such day");
    }

    #[test]
    fn runs_that_nobody_was_there_for_follow_the_policy() {
        let due = |missed, now| due("0 * * * *", missed, HOUR, now);
        assert_eq!(due(Missed::Once, HOUR - 1), Due { runs_ms: vec![], next_at_ms: Some(HOUR) });
        for missed in [Missed::Skip, Missed::Once, Missed::All] {
            assert_eq!(due(missed, HOUR + 1), Due { runs_ms: vec![HOUR], next_at_ms: Some(2 * HOUR) }, "in time");
        }
        let late = 3 * HOUR + 30 * MINUTE;
        assert_eq!(due(Missed::Skip, late), Due { runs_ms: vec![], next_at_ms: Some(4 * HOUR) });
        assert_eq!(due(Missed::Once, late), Due { runs_ms: vec![3 * HOUR], next_at_ms: Some(4 * HOUR) });
        assert_eq!(due(Missed::All, late), Due { runs_ms: vec![HOUR, 2 * HOUR, 3 * HOUR], next_at_ms: Some(4 * HOUR) });
    }

    #[test]
    fn a_year_without_workers_is_made_up_for_within_the_bound() {
        let now = 365 * 24 * HOUR;
        let due = due("* * * * *", Missed::All, MINUTE, now);
        assert_eq!(due.runs_ms.len(), MADE_UP_AT_MOST);
        assert_eq!((due.runs_ms.last(), due.next_at_ms), (Some(&now), Some(now + MINUTE)));
    }
}
