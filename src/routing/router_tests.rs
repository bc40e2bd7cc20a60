use super::*;
use crate::domain::blame::{Blame, Retry};

const M: &str = "m:latest";

fn router() -> (Router, Clock) {
    let clock = Clock::fake(0);
    (Router::with_dice(Config::default(), Metrics::default(), clock.clone(), Dice::seeded(1)), clock)
}

fn candidates<'a>(names: &[&'a str]) -> Vec<Candidate<'a>> {
    names.iter().map(|backend| Candidate { backend, model: M, look: Look::default() }).collect()
}

fn fail(router: &Router, backend: &str, times: u32) {
    (0..times).for_each(|_| router.attempt(backend, M).failed("overloaded", Retry::Elsewhere, Blame::Upstream));
}

fn serve(router: &Router, backend: &str, model: &str, ttft_ms: u64) {
    let mut attempt = router.attempt(backend, model);
    attempt.first_token(Duration::from_millis(ttft_ms));
    attempt.succeeded();
}

fn has(router: &Router, line: &str) {
    let text = router.0.metrics.render();
    assert!(text.lines().any(|l| l == line), "no line `{line}` in\n{text}");
}

#[test]
fn the_faster_one_is_asked_and_equals_keep_their_order() {
    let (router, _) = router();
    assert_eq!(router.order(&candidates(&["a", "b"])), [0, 1]);
    serve(&router, "a", M, 900);
    serve(&router, "b", M, 100);
    assert_eq!(router.order(&candidates(&["a", "b"])), [1, 0]);
    assert!(router.order(&[]).is_empty() && router.choose(&[]).is_none());
}

#[test]
fn one_failure_makes_a_backend_look_slow() {
    let (router, clock) = router();
    serve(&router, "a", M, 100);
    serve(&router, "b", M, 200);
    fail(&router, "a", 1);
    assert_eq!(router.order(&candidates(&["a", "b"])), [1, 0]);
    clock.advance(Duration::from_mins(1));
    serve(&router, "b", M, 200);
    assert_eq!(router.order(&candidates(&["a", "b"])), [0, 1], "it is forgiven");
}

#[test]
fn an_open_breaker_is_not_now_and_one_tries_later() {
    let (router, clock) = router();
    fail(&router, "a", 5);
    assert_eq!(router.cost("a", M, &Look::default()), None);
    assert!(router.cost("a", "other:latest", &Look::default()).is_some(), "it is about one model");
    assert!(router.try_attempt("a", M).is_none() && router.opens_in("a", M) > Duration::ZERO);
    assert_eq!(router.order(&candidates(&["a", "b"])), [1]);
    clock.advance(Duration::from_secs(1));
    let probe = router.try_attempt("a", M).expect("one may try");
    has(&router, "arriero_breaker_state{backend=\"a\",gen_ai_request_model=\"m:latest\"} 1");
    assert_eq!(router.cost("a", M, &Look::default()), None, "the probe is taken");
    assert!(router.try_attempt("a", M).is_none());
    drop(probe);
    assert!(router.cost("a", M, &Look::default()).is_some(), "dropping it gave its place back");
    serve(&router, "a", M, 10);
    assert!(router.try_attempt("a", M).is_some() && router.try_attempt("a", M).is_some());
    has(&router, "arriero_breaker_opened_total{backend=\"a\",gen_ai_request_model=\"m:latest\"} 1");
    has(&router, "arriero_breaker_state{backend=\"a\",gen_ai_request_model=\"m:latest\"} 0");
}

#[test]
fn when_all_are_bad_the_least_bad_is_asked() {
    let (router, _) = router();
    fail(&router, "a", 5);
    router.attempt("b", M).failed("overloaded", Retry::After(Duration::from_secs(30)), Blame::Upstream);
    assert_eq!(router.order(&candidates(&["b", "a"])), [1], "the one that opens first");
    let (chosen, attempt) = router.choose(&candidates(&["b", "a"])).expect("never nobody");
    assert_eq!(chosen, 1);
    attempt.succeeded();
    assert!(router.try_attempt("a", M).is_some(), "its success is proof");
    let mut down = candidates(&["a", "b"]);
    fail(&router, "a", 5);
    down[0].look.up = false;
    assert_eq!(router.order(&down), [1], "one that is up before one that opens sooner");
}

#[test]
fn retry_after_is_obeyed() {
    let (router, clock) = router();
    router.attempt("a", M).failed("overloaded", Retry::After(Duration::from_secs(30)), Blame::Upstream);
    clock.advance(Duration::from_secs(29));
    assert!(router.try_attempt("a", M).is_none());
    clock.advance(Duration::from_secs(1));
    assert!(router.try_attempt("a", M).is_some());
}

#[test]
fn what_is_the_clients_fault_or_was_cancelled_counts_for_nothing() {
    let (router, _) = router();
    for _ in 0..50 {
        router.attempt("a", M).failed("refused", Retry::Never, Blame::Client);
        drop(router.attempt("a", M));
    }
    assert!(router.cost("a", M, &Look::default()).is_some());
    assert_eq!(router.view()[0].failures_in_a_row, 0);
}

#[test]
fn a_backend_that_cannot_be_reached_is_sent_away_with_all_its_models_and_returns_slowly() {
    let (router, clock) = router();
    (0..3).for_each(|_| router.attempt("a", M).failed("unreachable", Retry::Elsewhere, Blame::Upstream));
    assert_eq!(router.cost("a", "other:latest", &Look::default()), None);
    has(&router, "arriero_backend_ejections_total{backend=\"a\"} 1");
    has(&router, "arriero_backend_ejected{backend=\"a\"} 1");
    assert_eq!((router.view()[0].state, router.view()[0].models[0].why), ("ejected", Some("unreachable")));
    clock.advance(Duration::from_secs(1));
    assert_eq!(router.view()[0].state, "returning");
    let early = router.cost("a", M, &Look::default()).expect("one may try");
    serve(&router, "a", M, 500);
    has(&router, "arriero_backend_ejected{backend=\"a\"} 0");
    assert_eq!(router.view()[0].state, "slow_start");
    clock.advance(Duration::from_secs(10));
    assert!(router.cost("a", M, &Look::default()).expect("back") < early / 2.0);
    assert_eq!(router.view()[0].state, "ok");
}

#[test]
fn loading_is_learnt_apart_from_answering() {
    let (router, _) = router();
    serve(&router, "a", M, 100);
    let mut cold = router.attempt("a", M).cold();
    cold.first_token(Duration::from_secs(20));
    cold.succeeded();
    assert!(router.cost("a", M, &Look::default()).expect("open") < 1.0);
    assert!(router.cost("a", M, &Look { loaded: false, ..Look::default() }).expect("open") > 20.0);
    let view = &router.view()[0].models[0];
    assert_eq!((view.first_token_ms, view.load_ms), (Some(100.0), Some(20_000.0)));
}

#[test]
fn hedging_is_off_until_it_is_allowed_and_known() {
    let (router, _) = router();
    (0..100).for_each(|ms| serve(&router, "a", M, ms));
    router.offered();
    assert_eq!(router.hedge_after(M), None);
    assert!(!router.hedge_token());
    let mut config = Config::default();
    config.hedge.enabled = true;
    router.reconfigure(config);
    assert_eq!(router.hedge_after(M), Some(Duration::from_millis(94)));
    assert_eq!(router.hedge_after("unknown:latest"), None);
    (0..19).for_each(|_| router.offered());
    assert_eq!([router.hedge_token(), router.hedge_token()], [true, false]);
    has(&router, "arriero_hedges_total{outcome=\"allowed\"} 1");
}

#[test]
fn retries_are_counted() {
    let (router, _) = router();
    router.offered();
    assert_eq!([router.may_retry(), router.may_retry()], [true, false]);
    has(&router, "arriero_retries_total{outcome=\"refused\"} 1");
    assert!(router.backoff(0) <= Duration::from_millis(50) && router.max_attempts() == 3);
}

#[test]
fn models_beyond_the_bound_are_forgotten_and_counted() {
    let (router, clock) = router();
    router.reconfigure(Config { max_models: 2, ..Config::default() });
    for model in ["x:1", "y:1", "x:1", "z:1"] {
        clock.advance(Duration::from_secs(1));
        serve(&router, "a", model, 10);
    }
    let view = router.view();
    assert_eq!(view[0].models.iter().map(|model| model.model.as_str()).collect::<Vec<_>>(), ["x:1", "z:1"]);
    // Once for the backend, once for what is usual.
    has(&router, "arriero_routing_forgotten_total 2");
}

#[test]
fn an_attempt_that_outlives_its_backend_or_model_ends_in_peace() {
    let (router, _) = router();
    router.reconfigure(Config { max_models: 1, ..Config::default() });
    let mut gone = router.attempt("a", "x:1");
    let _other = router.attempt("a", "y:1");
    gone.first_token(Duration::from_millis(1));
    gone.failed("failed", Retry::Elsewhere, Blame::Upstream);
    let attempt = router.attempt("a", "y:1");
    router.forget("a");
    assert!(router.view().is_empty());
    attempt.failed("failed", Retry::Elsewhere, Blame::Upstream);
    assert!(router.view().is_empty());
}

#[test]
fn a_crowd_gets_one_probe() {
    let (router, clock) = router();
    fail(&router, "a", 5);
    clock.advance(Duration::from_secs(1));
    let got: Vec<Option<Attempt>> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..8).map(|_| scope.spawn(|| router.try_attempt("a", M))).collect();
        threads.into_iter().map(|thread| thread.join().expect("no panic")).collect()
    });
    assert_eq!(got.iter().flatten().count(), 1);
}
