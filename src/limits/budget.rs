//! Tokens of a day and of a calendar month, in UTC.
//!
//! A generation is charged to the day and the month in which it was let in. Budgets are hard: a request is let in only when its
//! whole estimate still fits beside what was used and what running requests have reserved; only an estimate that was too small can
//! go beyond. What is used is counted whether or not there is a budget, so that one that is set later begins with the truth.

use std::time::Duration;

use jiff::Timestamp;
use jiff::civil::Date;
use jiff::tz::TimeZone;

use super::meter::Wait;
use super::refusal::{Bound, Measure, Quota, Scope};
use super::tokens::Amount;
use crate::domain::allowance::Allowance;

const DAY_MS: i64 = 86_400_000;

/// What a budget is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Calendar {
    Day,
    Month,
}

impl Calendar {
    /// The number of the period that a time (milliseconds since 1970) lies in: days since 1970, or months since the year 0.
    pub fn period(self, unix_ms: i64) -> i64 {
        match self {
            Self::Day => unix_ms.div_euclid(DAY_MS),
            Self::Month => {
                let time = Timestamp::from_millisecond(unix_ms).unwrap_or(Timestamp::UNIX_EPOCH);
                let day = TimeZone::UTC.to_datetime(time).date();
                i64::from(day.year()) * 12 + i64::from(day.month()) - 1
            }
        }
    }

    /// When a period ends, in milliseconds since 1970.
    pub fn end_ms(self, period: i64) -> i64 {
        match self {
            Self::Day => period.saturating_add(1).saturating_mul(DAY_MS),
            Self::Month => first_of_month_ms(period.saturating_add(1)).unwrap_or(i64::MAX),
        }
    }
}

fn first_of_month_ms(month: i64) -> Option<i64> {
    let year = i16::try_from(month.div_euclid(12)).ok()?;
    let first = Date::new(year, i8::try_from(month.rem_euclid(12)).ok()? + 1, 1).ok()?;
    Some(TimeZone::UTC.to_timestamp(first.at(0, 0, 0, 0)).ok()?.as_millisecond())
}

/// What was used in one period.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Spent {
    period: i64,
    used: u64,
    /// Estimates of requests that run.
    held: u64,
}

impl Spent {
    /// Goes on to the period of now. A clock that was set back a little must not give the same day twice; one that was wrong by more
    /// than a period must not close a budget for years.
    fn roll(&mut self, calendar: Calendar, unix_ms: i64) {
        let now = calendar.period(unix_ms);
        if now != self.period && now != self.period - 1 {
            *self = Self { period: now, used: 0, held: 0 };
        }
    }

    fn at(mut self, calendar: Calendar, unix_ms: i64) -> Self {
        self.roll(calendar, unix_ms);
        self
    }

    fn settle(&mut self, period: i64, held: u64, used: u64) {
        if self.period == period {
            self.held = self.held.saturating_sub(held);
            self.used = self.used.saturating_add(used);
        }
    }
}

/// The periods that a request was let in.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Stamp {
    day: i64,
    month: i64,
}

/// What the database keeps of a budget.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Saved {
    /// Days since 1970.
    pub day: i64,
    pub day_tokens: u64,
    /// Months since the year 0.
    pub month: i64,
    pub month_tokens: u64,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Budget {
    day: Spent,
    month: Spent,
}

impl Budget {
    pub fn load(saved: Saved) -> Self {
        Self {
            day: Spent { period: saved.day, used: saved.day_tokens, held: 0 },
            month: Spent { period: saved.month, used: saved.month_tokens, held: 0 },
        }
    }

    pub fn save(&self) -> Saved {
        Saved { day: self.day.period, day_tokens: self.day.used, month: self.month.period, month_tokens: self.month.used }
    }

    /// How these bounds stand for a request with this estimate.
    pub fn bounds(&self, scope: Scope, allowance: &Allowance, ask: Amount, unix_ms: i64) -> impl Iterator<Item = Bound> {
        let both = [
            (Measure::TokensPerDay, Calendar::Day, self.day, allowance.tokens_per_day),
            (Measure::TokensPerMonth, Calendar::Month, self.month, allowance.tokens_per_month),
        ];
        both.into_iter().filter_map(move |(measure, calendar, spent, limit)| {
            let (limit, spent) = (limit?, spent.at(calendar, unix_ms));
            let remaining = limit.saturating_sub(spent.used.saturating_add(spent.held));
            let left_ms = calendar.end_ms(spent.period).saturating_sub(unix_ms);
            let reset = Duration::from_millis(u64::try_from(left_ms).unwrap_or(0));
            let wait = match ask.total() {
                asked if asked > limit || limit == 0 => Wait::Never,
                // Even who expects to use nothing uses something.
                asked if asked.max(1) > remaining => Wait::For(reset),
                _ => Wait::Free,
            };
            let window = (calendar == Calendar::Day).then_some(Duration::from_hours(24));
            Some(Bound { quota: Quota { scope, measure, limit, remaining, reset, window }, wait })
        })
    }

    pub fn reserve(&mut self, ask: Amount, unix_ms: i64) -> Stamp {
        self.day.roll(Calendar::Day, unix_ms);
        self.month.roll(Calendar::Month, unix_ms);
        self.day.held = self.day.held.saturating_add(ask.total());
        self.month.held = self.month.held.saturating_add(ask.total());
        Stamp { day: self.day.period, month: self.month.period }
    }

    /// Puts what was used in the place of what was reserved. A period that is over is left as it was.
    pub fn settle(&mut self, stamp: Stamp, reserved: Amount, used: Amount) {
        self.day.settle(stamp.day, reserved.total(), used.total());
        self.month.settle(stamp.month, reserved.total(), used.total());
    }

    /// Tokens used today and this month.
    pub fn used(&self, unix_ms: i64) -> (u64, u64) {
        (self.day.at(Calendar::Day, unix_ms).used, self.month.at(Calendar::Month, unix_ms).used)
    }

    /// Tokens that running requests have reserved.
    pub fn held(&self) -> u64 {
        self.month.held.max(self.day.held)
    }

    pub fn is_idle(&self, unix_ms: i64) -> bool {
        self.used(unix_ms) == (0, 0)
    }
}

#[cfg(test)]
#[path = "budget_tests.rs"]
mod tests;
