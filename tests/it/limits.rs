//! Limits from the outside: who is held back, and what they are told.

use arriero::config::Config;
use serde_json::Value;

use crate::support::{TestApp, fake};

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
