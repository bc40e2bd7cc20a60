//! Limits from the outside: who is held back, and what they are told.

use std::time::Duration;

use arriero::config::Config;
use arriero_bench::fake::{FakeOllama, Text};
use serde_json::{Value, json};

use crate::keys::{guarded, make};
use crate::support::{Listener, TestApp, asked, data, eventually, fake, read_events};

fn one_at_once(config: &mut Config) {
    config.limits.address.requests_per_second = Some(1);
    config.limits.address.burst = Some(1);
}

#[tokio::test]
async fn an_address_that_asks_too_often_is_told_when_to_come_back() {
    let fake = fake(|_| {}).await;
    let app = TestApp::with(&[&fake], one_at_once).await;
    let mut answers = Vec::new();
    for _ in 0..20 {
        answers.push(app.get("/version").await);
    }
    assert_eq!(answers[0].status(), 200);
    let refused = answers.into_iter().find(|answer| answer.status() == 429).expect("twenty in less than twenty seconds");
    let header = |name: &str| refused.headers()[name].to_str().expect("text").to_owned();
    assert_eq!(header("content-type"), "application/problem+json");
    assert_eq!((header("retry-after").as_str(), header("ratelimit-limit").as_str()), ("1", "1"));
    assert_eq!(header("ratelimit-policy"), "\"address-requests-per-second\";q=1;w=1");
    let id = header("x-request-id");
    let problem: Value = refused.json().await.expect("JSON");
    assert_eq!(
        (&problem["code"], &problem["kind"], &problem["scope"]),
        (&"rate_limited".into(), &"address_rate".into(), &"address".into())
    );
    assert_eq!(problem["request_id"], id);
    for path in ["/livez", "/readyz"] {
        assert_eq!(app.get(path).await.status(), 200, "{path} must not fail because of others");
    }
}

#[tokio::test]
async fn whoever_is_behind_a_trusted_proxy_has_a_limit_of_their_own_and_nobody_can_make_one_up() {
    let fake = fake(|_| {}).await;
    for trusted in [true, false] {
        let app = TestApp::with(&[&fake], |config| {
            one_at_once(config);
            if trusted {
                config.limits.address.trusted_proxies = vec!["127.0.0.0/8".parse().expect("a network")];
            }
        })
        .await;
        let mut refused = 0;
        for n in 0..20 {
            let request = app.client.get(format!("{}/version", app.url)).header("x-forwarded-for", format!("198.51.100.{n}"));
            refused += u32::from(request.send().await.expect("an answer").status() == 429);
        }
        assert_eq!(refused == 0, trusted, "{refused} of 20");
    }
}

#[tokio::test]
async fn who_uses_what_can_be_seen() {
    let fake = fake(|_| {}).await;
    let app = TestApp::spawn(&fake).await;
    let list: Value = app.get("/admin/limits").await.json().await.expect("JSON");
    assert!(list["accounts"].is_array() && list["total"].is_u64(), "{list}");
}

fn request(tokens: u64) -> Value {
    json!({"model": "gemma3:270m", "prompt": "Hello", "options": {"num_predict": tokens}})
}

/// A gateway that requires keys, and a key with these bounds.
async fn bounded(fake: &FakeOllama, allowance: Value, change: impl FnOnce(&mut Config)) -> (TestApp, String) {
    let (app, first) = guarded(fake, change).await;
    let (key, _) = make(&app, &first, json!({"name": "bounded", "allowance": allowance})).await;
    (app, key)
}

#[tokio::test]
async fn a_key_over_its_rate_is_told_when_to_come_back() {
    let fake = fake(|_| {}).await;
    let (app, key) = bounded(&fake, json!({"requests_per_minute": 2}), |_| {}).await;
    for left in ["1", "0"] {
        let answer = app.post_as(&key, request(2)).await;
        assert_eq!(answer.status(), 200);
        assert_eq!(
            (&answer.headers()["ratelimit-limit"], &answer.headers()["ratelimit-remaining"]),
            (&"2".parse().expect("text"), &left.parse().expect("text"))
        );
    }
    let refused = app.post_as(&key, request(2)).await;
    assert_eq!(refused.status(), 429);
    let seconds: u64 = refused.headers()["retry-after"].to_str().expect("text").parse().expect("a number");
    assert!((1..=60).contains(&seconds), "{seconds}");
    let problem: Value = refused.json().await.expect("JSON");
    assert_eq!((&problem["code"], &problem["scope"]), (&json!("rate_limited"), &json!("key")), "{problem}");
    assert_eq!(asked(&fake), 2);
}

#[tokio::test]
async fn a_key_runs_no_more_at_once_than_it_may() {
    let fake = fake(|script| (script.token_gap, script.text) = (Duration::from_millis(5), Text::Words(1_000_000))).await;
    let (app, key) = bounded(&fake, json!({"concurrent_requests": 1}), |_| {}).await;
    let mut body = request(1_000_000);
    body["stream"] = json!(true);
    let mut running = Listener::new(app.post_as(&key, body).await);
    running.until("token", 1).await;
    let refused = app.post_as(&key, request(2)).await;
    assert_eq!(refused.status(), 429);
    assert_eq!(refused.json::<Value>().await.expect("JSON")["code"], "concurrency_limited");
    drop(running);
    eventually("that there is room again", async || app.post_as(&key, request(2)).await.status() == 200).await;
}

#[tokio::test]
async fn a_budget_survives_a_restart() {
    let fake = fake(|_| {}).await;
    let (app, key) = bounded(&fake, json!({"tokens_per_day": 60}), |_| {}).await;
    let mut served = 0;
    let refused = loop {
        let answer = app.post_as(&key, request(10)).await;
        match answer.status().as_u16() {
            200 => served += 1,
            _ => break answer,
        }
        assert!(served < 20, "the budget is never used up");
    };
    assert!(served >= 2, "{served}");
    assert_eq!(refused.status(), 429);
    assert!(refused.headers().contains_key("retry-after"));
    assert_eq!(refused.json::<Value>().await.expect("JSON")["code"], "budget_exhausted");
    let data = app.end().await;
    let app = TestApp::on(data, &[&fake], |config| config.auth.required = arriero::auth::Required::Always).await;
    let refused = app.post_as(&key, request(10)).await;
    assert_eq!((refused.status().as_u16(), refused.json::<Value>().await.expect("JSON")["code"].clone()), (429, json!("budget_exhausted")));
}

#[tokio::test]
async fn a_request_stays_below_the_bound_of_its_key() {
    let fake = fake(|_| {}).await;
    for (above, status) in [("refuse", None), ("clamp", Some(200))] {
        let Ok(above) = serde_json::from_value(json!(above)) else { panic!("{above}") };
        let (app, key) = bounded(&fake, json!({"max_num_predict": 5}), |config| config.limits.above_maximum = above).await;
        let mut unbound = request(1);
        unbound["options"] = json!({});
        let answer: Value = app.post_as(&key, unbound).await.json().await.expect("JSON");
        assert_eq!(answer["eval_count"], 5, "{answer}");
        let answer = app.post_as(&key, request(20)).await;
        let code = answer.status().as_u16();
        let answer: Value = answer.json().await.expect("JSON");
        match status {
            Some(status) => {
                assert_eq!((code, &answer["eval_count"]), (status, &json!(5)), "{answer}");
                assert_eq!(answer["arriero"]["changed"][0]["field"], "options.num_predict", "{answer}");
            }
            None => assert!((400..500).contains(&code) && answer["code"] == "above_maximum", "{code} {answer}"),
        }
    }
}

#[tokio::test]
async fn who_may_wait_for_its_rate_is_told_that_it_waits() {
    let fake = fake(|_| {}).await;
    let (app, key) =
        bounded(&fake, json!({"requests_per_second": 1, "burst": 1}), |config| config.generation.wait_for_rate = Duration::from_secs(10))
            .await;
    let mut body = request(2);
    body["stream"] = json!(true);
    let mut waited = 0;
    for _ in 0..3 {
        let events = read_events(app.post_as(&key, body.clone()).await).await;
        assert_eq!(events.last().expect("events").event, "done", "{events:?}");
        let queued: Vec<Value> = events.iter().filter(|event| event.event == "queued").map(data).collect();
        waited += usize::from(queued.iter().any(|event| event["reason"] == "rate_limit" && event["eta_ms"].is_u64()));
    }
    assert!(waited >= 1, "three at one a second do not come at once");
}
