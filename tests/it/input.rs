//! Bad input: a clear 4xx, nothing lost, nothing crashed, the next request as if nothing had been.

use std::time::Duration;

use serde_json::{Value, json};

use crate::support::{TestApp, fake};

async fn send(app: &TestApp, body: impl Into<reqwest::Body>) -> (u16, Value) {
    let response = app.client.post(format!("{}/generate", app.url)).body(body).send().await.expect("an answer");
    let status = response.status().as_u16();
    assert_eq!(response.headers()["content-type"], "application/problem+json");
    let problem: Value = response.json().await.expect("JSON");
    assert_eq!(problem["status"], status);
    assert!(problem["request_id"].is_string() && problem["detail"].is_string() && problem["hint"].is_string(), "{problem}");
    (status, problem)
}

#[tokio::test]
async fn bodies_that_are_no_request() {
    let fake = fake(|_| {}).await;
    let app = TestApp::spawn(&fake).await;
    let bodies: [Vec<u8>; 8] = [
        b"".to_vec(),
        b"   ".to_vec(),
        b"{".to_vec(),
        b"[1]".to_vec(),
        b"{\"prompt\":\"\xff\"}".to_vec(),
        b"{\"options\":{\"temperature\":NaN}}".to_vec(),
        "[".repeat(1 << 20).into_bytes(),
        [b"{\"a\":".repeat(100_000), b"1".to_vec(), b"}".repeat(100_000)].concat(),
    ];
    for body in bodies {
        let shown = String::from_utf8_lossy(&body[..body.len().min(40)]).into_owned();
        let (status, problem) = send(&app, body).await;
        assert_eq!((status, &problem["code"]), (400, &json!("malformed_body")), "{shown}");
    }
    let (status, _) = app.ask(json!({"model": "gemma3:270m", "prompt": "still there", "options": {"num_predict": 1}})).await;
    assert_eq!(status, 200);
}

#[tokio::test]
async fn all_wrong_fields_are_named_at_once() {
    let fake = fake(|_| {}).await;
    let app = TestApp::spawn(&fake).await;
    let (status, problem) =
        send(&app, json!({"model": 1, "prompt": [], "options": {"temperature": -1}, "think": "maybe", "stream": "yes"}).to_string()).await;
    assert_eq!((status, &problem["code"]), (422, &json!("invalid_field")));
    let named: Vec<&str> = problem["errors"].as_array().expect("a list").iter().filter_map(|e| e["field"].as_str()).collect();
    assert_eq!(named, ["model", "prompt", "options.temperature", "think", "stream"]);
}

#[tokio::test]
async fn a_body_beyond_the_bound_is_a_413() {
    let fake = fake(|_| {}).await;
    let app = TestApp::with(&[&fake], |c| c.api.body.max_bytes = 1 << 20).await;
    let body = json!({"prompt": "x".repeat(2 << 20)}).to_string();
    assert_eq!(send(&app, body.clone()).await.0, 413);
    let pieces = body.into_bytes().chunks(4096).map(|c| Ok::<_, std::io::Error>(c.to_vec())).collect::<Vec<_>>();
    let chunked = reqwest::Body::wrap_stream(futures_util::stream::iter(pieces));
    let sent = app.client.post(format!("{}/generate", app.url)).body(chunked).send().await;
    // The connection may be closed while the rest of the body is still under way.
    if let Ok(response) = sent {
        assert_eq!(response.status(), 413);
    }
}

#[tokio::test]
async fn a_large_prompt_arrives_whole() {
    let fake = fake(|s| s.num_ctx = 32_768).await;
    let app = TestApp::spawn(&fake).await;
    let prompt = "wörd \u{1F600} ".repeat(100_000 / 11);
    let (status, answer) = app.ask(json!({"model": "gemma3:270m", "prompt": prompt, "options": {"num_predict": 1}})).await;
    assert_eq!(status, 200, "{answer}");
    let received = fake.requests().into_iter().rev().find(|r| r.path == "/api/generate").expect("one came");
    assert_eq!(received.json()["prompt"], prompt);
}

#[tokio::test]
async fn paths_and_methods_that_do_not_exist() {
    let fake = fake(|_| {}).await;
    let app = TestApp::spawn(&fake).await;
    for (path, status, code) in [("/nothing", 404, "not_found"), ("/generate", 405, "method_not_allowed")] {
        let response = app.get(path).await;
        assert_eq!(response.status(), status);
        if status == 405 {
            assert_eq!(response.headers()["allow"], "POST");
        }
        let problem: Value = response.json().await.expect("JSON");
        assert_eq!(problem["code"], code);
    }
}

#[tokio::test]
async fn a_deadline_beyond_the_bound_is_refused() {
    let fake = fake(|_| {}).await;
    let app = TestApp::with(&[&fake], |c| c.generation.max_deadline = Duration::from_mins(1)).await;
    let (status, problem) = send(&app, json!({"model": "gemma3:270m", "deadline_ms": 60_001}).to_string()).await;
    assert_eq!((status, &problem["code"]), (422, &json!("deadline_too_long")));
}

#[tokio::test]
async fn what_the_server_refuses_is_a_400_in_its_own_words() {
    let fake = fake(|_| {}).await;
    let app = TestApp::spawn(&fake).await;
    let (status, problem) = send(&app, json!({"model": "gemma3:270m", "prompt": "x", "think": true}).to_string()).await;
    assert_eq!((status, &problem["code"]), (400, &json!("refused")), "{problem}");
    assert!(problem["detail"].as_str().expect("text").contains("does not support thinking"), "{problem}");
}

#[tokio::test]
async fn an_answer_beyond_the_bound_is_refused_not_cut() {
    let fake = fake(|_| {}).await;
    let app = TestApp::with(&[&fake], |c| c.generation.max_answer_bytes = 20).await;
    let (status, problem) = send(&app, json!({"model": "gemma3:270m", "prompt": "x", "options": {"num_predict": 30}}).to_string()).await;
    assert_eq!((status, &problem["code"]), (507, &json!("answer_too_large")));
}
