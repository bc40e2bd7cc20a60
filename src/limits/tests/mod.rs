//! The limits as others use them, with a clock that stands still until it is moved.

mod load;

use std::time::Duration;

use proptest::prelude::*;
use tokio_util::sync::CancellationToken;

use super::*;
use crate::domain::allowance::Allowance;
use crate::domain::clock::Clock;
use crate::domain::principal::{Principal, Role};
use crate::storage::Storage;
use crate::telemetry::Metrics;

/// A Tuesday, 2025-06-10T12:00:00Z.
const NOON: i64 = 1_749_556_800_000;

struct World {
    limits: Limits,
    writer: BudgetWriter,
    metrics: Metrics,
    clock: Clock,
    storage: Storage,
    _folder: tempfile::TempDir,
}

async fn world(config: Config) -> World {
    let folder = tempfile::tempdir().expect("a folder");
    let storage = Storage::open(folder.path(), &crate::storage::Config::default()).await.expect("opened");
    let (metrics, clock) = (Metrics::default(), Clock::fake(NOON));
    let (limits, writer) = Limits::new(config, &storage, metrics.clone(), clock.clone()).await.expect("loaded");
    World { limits, writer, metrics, clock, storage, _folder: folder }
}

fn keys(allowance: Allowance) -> Config {
    Config { keys: allowance, ..Config::default() }
}

fn holder(key: &str, tenant: &str) -> Principal {
    Principal { key_id: Some(key.into()), tenant: tenant.into(), ..Principal::anonymous(Role::User) }
}

fn estimate(prompt_tokens: u64, predict_tokens: u64) -> Estimate {
    Estimate { prompt_tokens, predict_tokens, ..Estimate::default() }
}

fn none() -> Allowance {
    Allowance::default()
}

/// Lets in and ends a request that uses what was estimated.
fn spend(limits: &Limits, who: &Principal, ask: &Estimate) {
    limits.admit(who, ask).expect("let in").settle(ask.prompt_tokens, ask.predict_tokens);
}

#[tokio::test]
async fn whoever_waits_as_long_as_told_is_let_in_and_not_earlier() {
    let cases = [
        (Kind::RequestRate, Allowance { requests_per_second: Some(3), ..none() }),
        (Kind::RequestRate, Allowance { requests_per_minute: Some(7), burst: Some(2), ..none() }),
        (Kind::PromptTokensRate, Allowance { prompt_tokens_per_minute: Some(1_000), ..none() }),
        (Kind::GeneratedTokensRate, Allowance { generated_tokens_per_minute: Some(999), ..none() }),
        (Kind::DailyBudget, Allowance { tokens_per_day: Some(1_000), ..none() }),
        (Kind::MonthlyBudget, Allowance { tokens_per_month: Some(1_000), ..none() }),
        (
            Kind::MonthlyBudget,
            Allowance { tokens_per_month: Some(1_000), requests_per_second: Some(2), tokens_per_day: Some(600), ..none() },
        ),
    ];
    let (who, ask) = (holder("k", "t"), estimate(150, 150));
    for (kind, allowance) in cases {
        for scope in [Scope::Key, Scope::Tenant, Scope::Global] {
            let config = match scope {
                Scope::Key => keys(allowance.clone()),
                Scope::Tenant => Config { tenants: [("t".to_owned(), allowance.clone())].into(), ..Config::default() },
                _ => Config { global: allowance.clone(), ..Config::default() },
            };
            let World { limits, clock, metrics, .. } = &world(config).await;
            let refusal = loop {
                match limits.admit(&who, &ask) {
                    Ok(mut reservation) => reservation.settle(150, 150),
                    Err(refusal) if refusal.kind == kind => break refusal,
                    Err(refusal) => clock.advance(refusal.retry_after.expect("a time")),
                }
            };
            let wait = refusal.retry_after.expect("a time");
            assert_eq!((refusal.kind, refusal.scope), (kind, scope), "{refusal}");
            clock.advance(wait.saturating_sub(Duration::from_millis(1)));
            assert!(wait < Duration::from_millis(1) || limits.admit(&who, &ask).is_err(), "too early: {refusal}");
            clock.advance(Duration::from_millis(1).min(wait));
            drop(limits.admit(&who, &ask).unwrap_or_else(|again| panic!("{refusal}, and then {again}")));
            let counted = format!("arriero_limit_refusals_total{{kind=\"{}\",scope=\"{}\"}}", kind.as_str(), scope.as_str());
            assert!(metrics.render().contains(&counted), "{counted}");
        }
    }
}

#[tokio::test]
async fn a_place_is_free_again_when_a_reservation_is_dropped() {
    let World { limits, metrics, .. } = &world(keys(Allowance { concurrent_requests: Some(2), ..none() })).await;
    let (who, ask) = (holder("k", "t"), estimate(1, 1));
    let first = limits.admit(&who, &ask).expect("the first");
    let _second = limits.admit(&who, &ask).expect("the second");
    let refusal = limits.admit(&who, &ask).expect_err("full");
    assert_eq!((refusal.kind, refusal.limit, refusal.remaining), (Kind::Concurrency, 2, 0));
    let _other = limits.admit(&holder("other", "t"), &ask).expect("another key has its own places");
    assert!(metrics.render().contains("arriero_limit_reservations 3"));
    drop(first);
    drop(limits.admit(&who, &ask).expect("a place"));
    assert!(metrics.render().contains("arriero_limit_reservations 2"));
}

#[tokio::test]
async fn sizes_that_waiting_does_not_change_are_refused_without_a_time() {
    let allowance =
        Allowance { max_prompt_tokens: Some(10), max_num_predict: Some(20), max_num_ctx: Some(30), tokens_per_day: Some(100), ..none() };
    let World { limits, .. } = &world(keys(allowance)).await;
    let who = holder("k", "t");
    for (kind, ask) in [
        (Kind::PromptTooLarge, estimate(11, 1)),
        (Kind::NumPredictTooLarge, Estimate { num_predict: Some(21), ..estimate(1, 1) }),
        (Kind::NumCtxTooLarge, Estimate { num_ctx: Some(31), ..estimate(1, 1) }),
    ] {
        let refusal = limits.admit(&who, &ask).expect_err("too large");
        assert_eq!((refusal.kind, refusal.retry_after), (kind, None), "{refusal}");
        assert_eq!(limits.caps(&who, &ask).expect_err("too large"), refusal);
    }
    let reservation = limits.admit(&who, &estimate(10, 1_000_000)).expect("bounded by num_predict, it fits the day");
    assert_eq!(reservation.caps(), Caps { num_predict: Some(20), num_ctx: None });
    let View { accounts } = limits.usage(&who);
    assert_eq!(accounts[0].reserved_tokens, 30);
}

#[tokio::test]
async fn who_is_refused_pays_nothing_anywhere() {
    let config = Config {
        keys: Allowance { requests_per_minute: Some(100), concurrent_requests: Some(5), ..none() },
        global: Allowance { tokens_per_day: Some(10), ..none() },
        ..Config::default()
    };
    let World { limits, .. } = &world(config).await;
    let who = holder("k", "t");
    let before = limits.usage(&who);
    for _ in 0..50 {
        assert_eq!(limits.admit(&who, &estimate(20, 0)).expect_err("too much").kind, Kind::DailyBudget);
    }
    let after = limits.usage(&who);
    assert_eq!((after.accounts[0].running, &after.accounts[2].quotas), (0, &before.accounts[2].quotas));
    drop(limits.admit(&who, &estimate(1, 0)).expect("fits"));
    assert_eq!(limits.usage(&who).accounts[0].quotas[0].remaining, 99, "one, not fifty-one");
}

#[tokio::test]
async fn a_stream_that_was_cut_is_charged_for_what_it_used_and_one_that_never_began_for_nothing() {
    let World { limits, .. } = &world(keys(Allowance { tokens_per_day: Some(1_000), ..none() })).await;
    let (who, ask) = (holder("k", "t"), estimate(100, 500));
    drop(limits.admit(&who, &ask).expect("let in"));
    assert_eq!(limits.usage(&who).accounts[0].tokens_today, 0);
    let mut cut = limits.admit(&who, &ask).expect("let in");
    (0..=7).for_each(|tokens| cut.generated(tokens));
    drop(cut);
    assert_eq!(limits.usage(&who).accounts[0].tokens_today, 107);
    let mut whole = limits.admit(&who, &ask).expect("let in");
    whole.generated(3);
    whole.settle(90, 4);
    drop(whole);
    assert_eq!(limits.usage(&who).accounts[0].tokens_today, 201);
}

#[tokio::test]
async fn only_a_rate_that_clears_in_time_is_worth_waiting_for() {
    let allowance = Allowance { requests_per_second: Some(1), concurrent_requests: Some(2), tokens_per_day: Some(50), ..none() };
    let World { limits, clock, .. } = &world(keys(allowance)).await;
    let (who, ask) = (holder("k", "t"), estimate(1, 1));
    let Admission::Now(_held) = limits.admit_before(&who, &ask, clock.now()) else { panic!("there is room") };
    let until = clock.now() + Duration::from_secs(1);
    match limits.admit_before(&who, &ask, until) {
        Admission::Later { at, .. } => assert_eq!(at, until),
        other => panic!("{other:?}"),
    }
    assert!(matches!(limits.admit_before(&who, &ask, clock.now() + Duration::from_millis(999)), Admission::Refused(_)));
    clock.advance(Duration::from_secs(1));
    let Admission::Now(_held_too) = limits.admit_before(&who, &ask, until) else { panic!("it waited") };
    let later = until + Duration::from_hours(48);
    assert!(
        matches!(limits.admit_before(&who, &ask, later), Admission::Refused(refusal) if refusal.kind == Kind::RequestRate
        || refusal.kind == Kind::Concurrency),
        "a place that is taken is not a rate"
    );
    assert!(matches!(limits.admit_before(&holder("b", "t"), &estimate(51, 0), later), Admission::Refused(_)));
}

#[tokio::test]
async fn a_key_has_its_own_word_and_the_anonymous_have_theirs() {
    let config = Config {
        keys: Allowance { requests_per_minute: Some(1), ..none() },
        anonymous: Allowance { requests_per_minute: Some(2), ..none() },
        ..Config::default()
    };
    let World { limits, .. } = &world(config).await;
    let quota = |who: &Principal| {
        drop(limits.admit(who, &estimate(0, 0)).expect("the first"));
        limits.usage(who).accounts[0].quotas[0].limit
    };
    let own = Allowance { requests_per_minute: Some(9), ..none() };
    assert_eq!(quota(&holder("a", "t")), 1);
    assert_eq!(quota(&Principal { allowance: own.into(), ..holder("b", "t") }), 9);
    assert_eq!(quota(&Principal::anonymous(Role::User)), 2);
}

#[tokio::test]
async fn limits_change_while_requests_run_and_nothing_is_forgotten() {
    let World { limits, clock, .. } = &world(Config::default()).await;
    let (who, ask) = (holder("k", "t"), estimate(40, 0));
    let running: Vec<_> = (0..3).map(|_| limits.admit(&who, &ask).expect("unbounded")).collect();
    spend(limits, &who, &ask);
    limits.reconfigure(keys(Allowance { tokens_per_day: Some(100), concurrent_requests: Some(10), ..none() }));
    let refusal = limits.admit(&who, &ask).expect_err("160 of 100");
    assert_eq!((refusal.kind, refusal.remaining), (Kind::DailyBudget, 0));
    drop(running);
    drop(limits.admit(&who, &ask).expect("40 of 100, since what ran used nothing"));
    limits.reconfigure(keys(Allowance { requests_per_minute: Some(1), ..none() }));
    spend(limits, &who, &ask);
    assert!(limits.admit(&who, &ask).is_err());
    limits.reconfigure(keys(Allowance { requests_per_minute: Some(60), ..none() }));
    clock.advance(Duration::from_secs(1));
    assert_eq!(limits.usage(&who).accounts[0].quotas[0].remaining, 59, "at the old rate until it is seen to have changed");
}

#[tokio::test]
async fn budgets_survive_a_restart_and_a_kill_without_a_goodbye() {
    let budget = Allowance { tokens_per_day: Some(1_000), tokens_per_month: Some(1_500), ..none() };
    let World { limits, writer, metrics, clock, storage, _folder } = world(keys(budget.clone())).await;
    let who = holder("k", "t");
    spend(&limits, &who, &estimate(300, 100));
    let stop = CancellationToken::new();
    let running = std::pin::pin!(writer.run(stop.clone()));
    // Killed: the writer is dropped where it stands, after as long as it promises.
    let _ = tokio::time::timeout(Duration::from_secs(1), running).await;
    let unsettled = limits.admit(&who, &estimate(200, 0)).expect("let in");
    let again = |clock: Clock| Limits::new(keys(budget.clone()), &storage, metrics.clone(), clock);
    let (limits, writer) = again(clock.clone()).await.expect("loaded");
    assert_eq!(limits.usage(&who).accounts[0].tokens_today, 400);
    assert_eq!(limits.usage(&who).accounts[2].tokens_this_month, 400);
    drop(unsettled);

    // Told to stop: everything is written, the last word included.
    spend(&limits, &who, &estimate(600, 0));
    stop.cancel();
    writer.run(stop).await;
    let (limits, _writer) = again(clock.clone()).await.expect("loaded");
    assert_eq!(limits.admit(&who, &estimate(1, 0)).expect_err("spent").kind, Kind::DailyBudget);
    clock.advance(Duration::from_hours(12));
    assert_eq!(limits.admit(&who, &estimate(501, 0)).expect_err("of the month").kind, Kind::MonthlyBudget);
    drop(limits.admit(&who, &estimate(500, 0)).expect("a new day"));
}

#[tokio::test]
async fn a_full_disk_delays_budgets_and_loses_none() {
    let World { limits, writer, metrics, clock, storage, _folder } = world(Config::default()).await;
    for n in 0..2_000 {
        spend(&limits, &holder(&format!("key-{n}"), "t"), &estimate(1, 0));
    }
    storage.limit_pages(1).await;
    let stop = CancellationToken::new();
    let mut running = Box::pin(writer.run(stop.clone()));
    let _ = tokio::time::timeout(Duration::from_millis(700), &mut running).await;
    assert!(!metrics.render().contains("arriero_limit_budget_write_failures_total 0"));
    storage.limit_pages(1_000_000).await;
    stop.cancel();
    running.await;
    let (limits, _) = Limits::new(Config::default(), &storage, metrics, clock).await.expect("loaded");
    assert_eq!(limits.all(10, |_| None, &Allowance::default()).1, 2_002);
    assert_eq!(limits.usage(&holder("key-7", "t")).accounts[1].tokens_today, 2_000);
}

#[tokio::test]
async fn beyond_the_bound_on_accounts_newcomers_share_one_and_idle_ones_make_room() {
    let config = Config { max_accounts: 4, ..keys(Allowance { concurrent_requests: Some(1), ..none() }) };
    let World { limits, metrics, clock, .. } = &world(config).await;
    let ask = estimate(0, 0);
    let held: Vec<_> = (0..3).map(|n| limits.admit(&holder(&format!("k{n}"), "t"), &ask)).collect();
    assert!(held.iter().all(Result::is_ok));
    assert_eq!(limits.admit(&holder("k3", "t"), &ask).expect_err("shared with k2").kind, Kind::Concurrency);
    assert!(!metrics.render().contains("arriero_limit_accounts_shared_total 0"));
    drop(held);
    clock.advance(Duration::from_secs(2));
    let _a = limits.admit(&holder("k8", "t"), &ask).expect("room");
    let _b = limits.admit(&holder("k9", "t"), &ask).expect("room");
    assert!(limits.all(100, |_| None, &Allowance::default()).0.iter().any(|account| &*account.name == "k9"));
}

#[tokio::test]
async fn a_rate_that_comes_while_requests_run_counts_what_they_use_and_wipes_out_nobody_elses() {
    let World { limits, .. } = &world(Config::default()).await;
    let who = holder("k", "t");
    let mut early = limits.admit(&who, &estimate(0, 1_000)).expect("unbounded");
    limits.reconfigure(keys(Allowance { generated_tokens_per_minute: Some(600), ..none() }));
    let _late = limits.admit(&who, &estimate(0, 500)).expect("fits");
    early.settle(0, 10);
    drop(early);
    assert_eq!(limits.usage(&who).accounts[0].quotas[0].remaining, 90);
}

#[tokio::test]
async fn debts_are_measured_until_they_are_paid() {
    let World { limits, writer, metrics, clock, .. } = world(keys(Allowance { generated_tokens_per_minute: Some(60), ..none() })).await;
    let mut long = limits.admit(&holder("k", "t"), &estimate(0, 10)).expect("fits");
    long.settle(0, 100);
    drop(long);
    let stop = CancellationToken::new();
    stop.cancel();
    writer.run(stop).await;
    assert!(metrics.render().contains("arriero_limit_debt_tokens 40\n"), "{}", metrics.render());
    clock.advance(Duration::from_secs(40));
    assert_eq!(limits.usage(&holder("k", "t")).accounts[0].debt_tokens, 0);
}

#[tokio::test]
async fn answers_tell_how_a_client_stands() {
    let allowance = Allowance { requests_per_minute: Some(60), concurrent_requests: Some(4), ..none() };
    let World { limits, .. } = &world(keys(allowance)).await;
    let reservation = limits.admit(&holder("k", "t"), &estimate(1, 1)).expect("let in");
    let tightest = reservation.standing().tightest().copied().expect("bounded");
    assert_eq!((tightest.measure, tightest.limit, tightest.remaining), (Measure::ConcurrentRequests, 4, 3));
    assert_eq!(reservation.standing().quotas().len(), 2);
    let free = world(Config::default()).await;
    assert!(free.limits.admit(&holder("k", "t"), &estimate(1, 1)).expect("let in").standing().headers().is_empty());
}

proptest! {
    #[test]
    fn a_refusal_speaks_plainly_whatever_its_numbers(limit in any::<u64>(), asked in any::<u64>()) {
        for kind in Kind::ALL {
            let text = refusal::Refusal::too_large(kind, Scope::Tenant, limit, asked).detail();
            prop_assert!(text.contains("this caller's tenant ") && text.len() < 200, "{}", text);
        }
    }
}
