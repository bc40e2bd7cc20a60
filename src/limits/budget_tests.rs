use proptest::prelude::*;

use super::*;

fn ms(text: &str) -> i64 {
    text.parse::<Timestamp>().expect("a time").as_millisecond()
}

fn allowance(day: u64, month: u64) -> Allowance {
    Allowance { tokens_per_day: Some(day), tokens_per_month: Some(month), ..Allowance::default() }
}

fn amount(tokens: u64) -> Amount {
    Amount { prompt: tokens, generated: 0 }
}

fn waits(budget: &Budget, allowance: &Allowance, tokens: u64, now: i64) -> [Wait; 2] {
    let waits: Vec<_> = budget.bounds(Scope::Key, allowance, amount(tokens), now).map(|bound| bound.wait).collect();
    waits.try_into().expect("two budgets")
}

fn spend(budget: &mut Budget, tokens: u64, now: i64) {
    let stamp = budget.reserve(amount(tokens), now);
    budget.settle(stamp, amount(tokens), amount(tokens));
}

#[test]
fn months_end_when_the_calendar_says() {
    for (time, end) in [
        ("2024-02-10T00:00:00Z", "2024-03-01T00:00:00Z"),
        ("2024-02-29T23:59:59.999Z", "2024-03-01T00:00:00Z"),
        ("2023-02-28T23:59:59.999Z", "2023-03-01T00:00:00Z"),
        ("2100-02-28T12:00:00Z", "2100-03-01T00:00:00Z"),
        ("2025-12-31T23:59:59.999Z", "2026-01-01T00:00:00Z"),
        ("2025-04-30T00:00:00Z", "2025-05-01T00:00:00Z"),
        ("1969-12-31T00:00:00Z", "1970-01-01T00:00:00Z"),
    ] {
        let period = Calendar::Month.period(ms(time));
        assert_eq!(Calendar::Month.end_ms(period), ms(end), "{time}");
        assert_eq!(Calendar::Month.period(ms(end)), period + 1, "{time}");
    }
    assert_eq!(Calendar::Day.period(-1), -1);
    assert_eq!(Calendar::Day.end_ms(-1), 0);
    assert_eq!(Calendar::Day.end_ms(Calendar::Day.period(ms("2024-02-28T23:00:00Z"))), ms("2024-02-29T00:00:00Z"));
}

#[test]
fn a_day_and_a_month_begin_anew_at_midnight_and_not_before() {
    let allowance = allowance(100, 150);
    let (evening, midnight) = (ms("2024-02-28T23:59:59.999Z"), ms("2024-02-29T00:00:00Z"));
    let mut budget = Budget::default();
    spend(&mut budget, 100, evening);
    assert_eq!(waits(&budget, &allowance, 50, evening), [Wait::For(Duration::from_millis(1)), Wait::Free]);
    assert_eq!(waits(&budget, &allowance, 50, midnight), [Wait::Free; 2]);
    spend(&mut budget, 50, midnight);
    assert_eq!(budget.used(midnight), (50, 150));
    let leap_day = Wait::For(Duration::from_hours(24));
    assert_eq!(waits(&budget, &allowance, 1, midnight), [Wait::Free, leap_day], "2024 has a 29th of February");
    assert_eq!(waits(&budget, &allowance, 100, ms("2024-03-01T00:00:00Z")), [Wait::Free; 2]);
}

#[test]
fn running_requests_hold_their_estimate_and_what_was_never_used_comes_back() {
    let (allowance, now) = (allowance(100, 1_000), ms("2025-06-01T12:00:00Z"));
    let mut budget = Budget::default();
    let stamp = budget.reserve(amount(80), now);
    assert_ne!(waits(&budget, &allowance, 30, now)[0], Wait::Free);
    assert_eq!(waits(&budget, &allowance, 20, now)[0], Wait::Free);
    budget.settle(stamp, amount(80), amount(5));
    assert_eq!((budget.used(now), budget.held()), ((5, 5), 0));
    assert_eq!(waits(&budget, &allowance, 95, now)[0], Wait::Free);
    assert_eq!(waits(&budget, &allowance, 101, now)[0], Wait::Never, "more than a whole day's");
}

#[test]
fn a_generation_over_midnight_is_charged_to_the_day_it_began() {
    let (before, after) = (ms("2025-06-30T23:59:00Z"), ms("2025-07-01T00:01:00Z"));
    let mut budget = Budget::default();
    let stamp = budget.reserve(amount(10), before);
    let next = budget.reserve(amount(7), after);
    budget.settle(stamp, amount(10), amount(10));
    assert_eq!((budget.used(after), budget.held()), ((0, 0), 7));
    budget.settle(next, amount(7), amount(8));
    assert_eq!((budget.used(after), budget.held()), ((8, 8), 0));
}

#[test]
fn a_clock_set_back_gives_no_day_twice_and_a_wrong_one_locks_nobody_out() {
    let now = ms("2025-06-15T00:00:10Z");
    let mut budget = Budget::default();
    spend(&mut budget, 100, now);
    assert_eq!(budget.used(now - 60_000), (100, 100), "a minute back, before midnight");
    assert_eq!(budget.used(ms("2025-06-01T00:00:00Z")), (0, 100), "two weeks back");
    assert_eq!(budget.used(ms("1980-01-01T00:00:00Z")), (0, 0));
}

#[test]
fn what_is_saved_is_loaded_again_without_what_was_only_reserved() {
    let now = ms("2025-06-15T10:00:00Z");
    let mut budget = Budget::default();
    spend(&mut budget, 100, now);
    budget.reserve(amount(55), now);
    let loaded = Budget::load(budget.save());
    assert_eq!((loaded.used(now), loaded.held()), ((100, 100), 0));
}

proptest! {
    #[test]
    fn every_time_lies_before_the_end_of_its_period_and_not_before_the_last(unix_ms in -60_000_000_000_000_i64..200_000_000_000_000) {
        for calendar in [Calendar::Day, Calendar::Month] {
            let period = calendar.period(unix_ms);
            prop_assert!(calendar.end_ms(period - 1) <= unix_ms && unix_ms < calendar.end_ms(period));
        }
    }

    #[test]
    fn no_budget_is_overspent_when_estimates_hold(steps in prop::collection::vec((0_i64..20_000_000, 0_u64..60, 0_u64..60), 1..200)) {
        let allowance = allowance(100, 700);
        let (mut budget, mut now, mut of_day, mut of_month) = (Budget::default(), ms("2024-02-20T00:00:00Z"), (0, 0), (0, 0));
        for (pause, estimate, truth) in steps {
            now += pause;
            for (sum, calendar) in [(&mut of_day, Calendar::Day), (&mut of_month, Calendar::Month)] {
                if sum.0 != calendar.period(now) {
                    *sum = (calendar.period(now), 0);
                }
            }
            if waits(&budget, &allowance, estimate, now) == [Wait::Free; 2] {
                let stamp = budget.reserve(amount(estimate), now);
                budget.settle(stamp, amount(estimate), amount(truth.min(estimate)));
                of_day.1 += truth.min(estimate);
                of_month.1 += truth.min(estimate);
            }
            prop_assert!(of_day.1 <= 100 && of_month.1 <= 700);
            prop_assert_eq!(budget.used(now), (of_day.1, of_month.1));
        }
    }
}
