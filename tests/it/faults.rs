//! Every fault of a server, streamed and not: the client always hears of it, and never takes half an answer for a whole one.

use std::time::Duration;

use arriero_bench::fake::{Fault, Midway, Plan};
use serde_json::{Value, json};

use crate::support::{TestApp, data, fake, text};

fn request(stream: bool) -> Value {
    json!({"model": "gemma3:270m", "prompt": "Hello", "stream": stream, "options": {"num_predict": 12, "seed": 7}})
}

async fn app_with(fault: Fault) -> (arriero_bench::fake::FakeOllama, TestApp) {
    let fake = fake(|_| {}).await;
    let app = TestApp::with(&[&fake], |config| {
        config.ollama[0].first_token_timeout = Duration::from_millis(700);
        config.ollama[0].idle_timeout = Duration::from_millis(700);
    })
    .await;
    fake.fail(Plan::always(fault));
    (fake, app)
}

/// A fault before the answer: a status of its own, streamed or not.
async fn before(fault: Fault, status: u16, code: &str) -> Value {
    let mut last = Value::Null;
    for stream in [false, true] {
        let (_fake, app) = app_with(fault.clone()).await;
        let response = app.post(request(stream)).await;
        assert_eq!(response.headers()["content-type"], "application/problem+json", "{fault:?}");
        let retry_after = response.headers().get("retry-after").map(|v| v.to_str().expect("text").to_owned());
        last = response.json().await.expect("JSON");
        assert_eq!((last["status"].as_u64(), last["code"].as_str()), (Some(u64::from(status)), Some(code)), "{fault:?}: {last}");
        assert_eq!(retry_after.is_some(), status == 503, "{fault:?}");
    }
    last
}

/// A fault in the middle: an `error` event after the tokens that came, or a status when nothing streams.
async fn midway(fault: Midway, tokens: usize, code: &str) {
    let (_fake, app) = app_with(Fault::After(tokens, fault)).await;
    let whole = {
        let honest = crate::support::fake(|_| {}).await;
        TestApp::spawn(&honest).await.ask(request(false)).await.1["response"].as_str().expect("text").to_owned()
    };
    let (status, problem) = app.ask(request(false)).await;
    assert!(status >= 500 && problem["code"] == code, "{fault:?} without a stream: {status} {problem}");
    let events = app.events(request(true)).await;
    let last = events.last().expect("events");
    assert_eq!(last.event, "error", "{fault:?}: {events:?}");
    assert_eq!(data(last)["code"], code, "{fault:?}: {last:?}");
    assert!(events.iter().all(|e| e.event != "done"), "{fault:?}");
    assert_eq!(events.iter().filter(|e| e.event == "token").count(), tokens, "{fault:?}: all that came was passed on");
    assert!(whole.starts_with(&text(&events)), "{fault:?}");
}

#[tokio::test]
async fn a_500_is_a_502() {
    let problem = before(Fault::status(500), 502, "failed").await;
    assert_eq!(problem["upstream_status"], 500);
    assert!(problem["detail"].as_str().expect("text").contains("runner"), "{problem}");
}

#[tokio::test]
async fn overload_is_a_503_with_retry_after() {
    before(Fault::status(503), 503, "overloaded").await;
    let problem = before(Fault::status(429).retry_after(7), 503, "overloaded").await;
    assert_eq!(problem["retry_after_seconds"], 7);
}

#[tokio::test]
async fn a_model_that_vanished_is_a_404() {
    before(Fault::status(404), 404, "model_not_found").await;
}

#[tokio::test]
async fn silence_before_the_answer_is_a_504() {
    before(Fault::Hang, 504, "stalled").await;
}

#[tokio::test]
async fn a_connection_that_closes_before_the_answer_is_a_502() {
    for fault in [Fault::CloseBeforeHeaders, Fault::ResetBeforeHeaders] {
        let (_fake, app) = app_with(fault.clone()).await;
        for stream in [false, true] {
            let response = app.post(request(stream)).await;
            assert_eq!(response.status(), 502, "{fault:?}");
        }
    }
}

#[tokio::test]
async fn ends_in_the_middle_are_errors() {
    for tokens in [1, 5] {
        midway(Midway::Close, tokens, "failed").await;
        midway(Midway::Reset, tokens, "failed").await;
        midway(Midway::EndWithoutDone, tokens, "protocol").await;
    }
}

#[tokio::test]
async fn broken_lines_are_errors() {
    midway(Midway::Garbage, 3, "protocol").await;
    midway(Midway::TruncatedJson, 3, "protocol").await;
    midway(Midway::HugeLine(9 << 20), 3, "protocol").await;
}

#[tokio::test]
async fn a_failure_the_server_tells_of_is_passed_on() {
    midway(Midway::ErrorLine, 3, "failed").await;
    midway(Midway::RunnerDeath, 3, "failed").await;
}

#[tokio::test]
async fn a_stall_in_the_middle_is_an_error() {
    midway(Midway::Stall, 3, "stalled").await;
}

#[tokio::test]
async fn slow_and_split_bytes_change_nothing() {
    let honest = fake(|_| {}).await;
    let (_, expected) = TestApp::spawn(&honest).await.ask(request(false)).await;
    for fault in [Fault::SplitBytes, Fault::SlowHeaders(Duration::from_millis(1))] {
        let (_fake, app) = app_with(fault.clone()).await;
        let (status, answer) = app.ask(request(false)).await;
        assert_eq!((status, &answer["response"]), (200, &expected["response"]), "{fault:?}");
        let events = app.events(request(true)).await;
        assert_eq!(text(&events), expected["response"].as_str().expect("text"), "{fault:?}");
        assert_eq!(events.last().expect("events").event, "done");
    }
}

#[tokio::test]
async fn a_server_that_is_gone_is_a_502_that_says_what_to_do() {
    let fake = fake(|_| {}).await;
    let app = TestApp::spawn(&fake).await;
    fake.kill().await;
    for stream in [false, true] {
        let response = app.post(request(stream)).await;
        let problem: Value = response.json().await.expect("JSON");
        assert_eq!((problem["status"].as_u64(), problem["code"].as_str()), (Some(502), Some("unreachable")), "{problem}");
        assert!(problem["hint"].as_str().expect("text").contains("arriero doctor"));
    }
}

#[tokio::test]
async fn a_server_that_is_killed_in_the_middle_is_an_error_event() {
    let fake = fake(|s| s.token_gap = Duration::from_millis(20)).await;
    let app = TestApp::spawn(&fake).await;
    let response = app.post(json!({"model": "gemma3:270m", "prompt": "x", "stream": true, "options": {"num_predict": 10_000}})).await;
    fake.wait_for(|seen| seen.tokens > 5).await.expect("tokens come");
    fake.kill().await;
    let events = crate::support::read_events(response).await;
    assert_eq!(events.last().expect("events").event, "error");
}

#[tokio::test]
async fn a_failure_in_the_middle_counts_as_one_although_the_status_was_200() {
    let (_fake, app) = app_with(Fault::After(2, Midway::ErrorLine)).await;
    app.events(request(true)).await;
    let counted = async |outcome: &str| app.metric(&format!("arriero_requests_total{{route=\"generate\",outcome=\"{outcome}\"}}")).await;
    assert_eq!((counted("upstream_error").await, counted("ok").await, counted("cancelled").await), (Some(1.0), Some(0.0), Some(0.0)));
}

#[tokio::test]
async fn failures_are_counted_by_kind() {
    let (fake, app) = app_with(Fault::status(500)).await;
    app.ask(request(false)).await;
    let series = format!("arriero_upstream_errors_total{{backend=\"{}\",kind=\"failed\"}}", fake.address());
    assert_eq!(app.metric(&series).await, Some(1.0));
}
