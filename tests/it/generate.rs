//! `POST /generate` and `GET /models` against servers that behave.

use std::time::Duration;

use arriero::domain::id::ModelName;
use arriero_bench::fake::{Model, Script};
use serde_json::{Value, json};

use crate::support::{TestApp, data, fake, text};

#[tokio::test]
async fn one_answer_is_one_object() {
    let fake = fake(|_| {}).await;
    let app = TestApp::spawn(&fake).await;
    let (status, answer) = app.ask(json!({"model": "gemma3:270m", "prompt": "Hello", "options": {"num_predict": 7}})).await;
    assert_eq!(status, 200, "{answer}");
    assert!(!answer["response"].as_str().expect("text").is_empty());
    assert_eq!((&answer["done"], &answer["done_reason"], &answer["eval_count"]), (&json!(true), &json!("length"), &json!(7)));
    assert!(
        answer["context"].is_array() && answer["total_duration"].is_u64() && answer["created_at"].as_str().expect("a time").ends_with('Z')
    );
    let about = &answer["arriero"];
    assert_eq!((&about["model"], &about["not_applied"]), (&json!("gemma3:270m"), &json!([])));
    assert!(about["request_id"].is_string() && about["backend"].is_string() && about["ttft_ms"].is_f64() && about["queued_ms"].is_f64());
}

#[tokio::test]
async fn a_stream_says_the_same_as_the_object_token_by_token() {
    let fake = fake(|_| {}).await;
    let app = TestApp::spawn(&fake).await;
    let request = json!({"model": "gemma3:270m", "prompt": "Hello", "options": {"num_predict": 9, "seed": 1}});
    let (_, whole) = app.ask(request.clone()).await;
    let events = app.events(request).await;
    let kinds: Vec<&str> = events.iter().map(|e| e.event.as_str()).collect();
    assert_eq!((kinds[0], kinds[kinds.len() - 1]), ("start", "done"));
    assert_eq!(kinds.iter().filter(|k| **k == "token").count(), 9, "one piece upstream is one event");
    assert_eq!(text(&events), whole["response"].as_str().expect("text"));
    let last = data(&events[events.len() - 1]);
    assert_eq!((&last["response"], &last["eval_count"], &last["context"]), (&json!(""), &json!(9), &whole["context"]));
    let start = data(&events[0]);
    assert_eq!(start["request_id"], last["arriero"]["request_id"]);
    for (n, event) in events.iter().enumerate() {
        assert_eq!(event.id.as_deref(), Some(format!("{}/{n}", start["request_id"].as_str().expect("an id")).as_str()));
    }
}

#[tokio::test]
async fn accept_asks_for_a_stream_too() {
    let fake = fake(|_| {}).await;
    let app = TestApp::spawn(&fake).await;
    let request = app.client.post(format!("{}/generate", app.url)).header("accept", "text/event-stream");
    let response = request.body(r#"{"model":"gemma3:270m","prompt":"x","options":{"num_predict":1}}"#).send().await.expect("an answer");
    assert_eq!(response.headers()["content-type"], "text/event-stream; charset=utf-8");
}

#[tokio::test]
async fn everything_travels_and_nothing_of_the_client_leaks() {
    let fake = fake(|_| {}).await;
    let app = TestApp::spawn(&fake).await;
    let body = json!({
        "model": "gemma3:270m", "prompt": "p", "system": "s", "context": [1, 2], "options": {"num_predict": 1, "future": 3}, "keep_alive": "5m",
        "format": "json", "new_field": {"a": [1]}, "priority": "high", "session": "s", "cache": "bypass", "fallback": false, "deadline_ms": 60_000,
    });
    let request = app.client.post(format!("{}/generate", app.url)).json(&body);
    let request = request
        .header("authorization", "Bearer secret")
        .header("cookie", "a=b")
        .header("origin", "https://evil.example")
        .header("x-request-id", "mine-1");
    let response = request.send().await.expect("an answer");
    assert_eq!(response.headers()["x-request-id"], "mine-1");
    let answer: Value = response.json().await.expect("JSON");
    assert_eq!(answer["arriero"]["not_applied"], json!([]));
    // How long a model stays in memory is decided for all its users.
    assert_eq!(answer["arriero"]["changed"][0]["field"], "keep_alive");
    let received = fake.requests().into_iter().find(|r| r.path == "/api/generate").expect("one came");
    let sent = received.json();
    assert_eq!(
        (&sent["new_field"], &sent["options"]["future"], sent.get("keep_alive"), &sent["context"]),
        (&json!({"a": [1]}), &json!(3), None, &json!([1, 2]))
    );
    for own in ["priority", "session", "cache", "fallback", "deadline_ms"] {
        assert!(sent.get(own).is_none(), "{own} is the gateway's own");
    }
    for private in ["authorization", "cookie", "origin"] {
        assert_eq!(received.header(private), None);
    }
    assert_eq!(received.header("host"), Some(fake.address().to_string().as_str()));
    assert_eq!(received.header("x-request-id"), Some("mine-1"));
}

#[tokio::test]
async fn a_missing_model_is_the_default_or_the_only_one() {
    let fake = fake(|s| *s = Script::with_models(["one"])).await;
    let app = TestApp::spawn(&fake).await;
    let (status, answer) = app.ask(json!({"prompt": "x", "options": {"num_predict": 1}})).await;
    assert_eq!((status, &answer["model"]), (200, &json!("one:latest")));

    let several = crate::support::fake(|_| {}).await;
    let app = TestApp::spawn(&several).await;
    let (status, problem) = app.ask(json!({"prompt": "x"})).await;
    assert_eq!((status, &problem["code"]), (422, &json!("model_missing")));
    assert!(problem["known"].as_array().expect("a list").contains(&json!("gemma3:270m")));

    let app = TestApp::with(&[&several], |c| c.generation.default_model = Some(ModelName::parse("q8").expect("a name"))).await;
    let (status, answer) = app.ask(json!({"prompt": "x", "options": {"num_predict": 1}})).await;
    assert_eq!((status, &answer["model"]), (200, &json!("q8")));
}

#[tokio::test]
async fn an_unknown_model_is_a_404_that_names_its_like() {
    let fake = fake(|_| {}).await;
    let app = TestApp::spawn(&fake).await;
    let response = app.post(json!({"model": "gemma3:27b", "prompt": "x", "stream": true})).await;
    assert_eq!(response.headers()["content-type"], "application/problem+json");
    let id = response.headers()["x-request-id"].to_str().expect("text").to_owned();
    let problem: Value = response.json().await.expect("JSON");
    assert_eq!((&problem["status"], &problem["code"], &problem["request_id"]), (&json!(404), &json!("model_not_found"), &json!(id)));
    assert!(problem["near"].as_array().expect("a list").contains(&json!("gemma3:270m")), "{problem}");
    assert!(fake.seen(|s| s.on("/api/generate").count()) == 0, "the backend was not asked for a model it does not have");
}

#[tokio::test]
async fn a_model_that_is_new_on_the_server_is_found_at_once() {
    let fake = fake(|_| {}).await;
    let app = TestApp::spawn(&fake).await;
    tokio::time::sleep(Duration::from_millis(1100)).await;
    fake.adjust(|s| s.models.push(Model::new("brand-new")));
    let (status, answer) = app.ask(json!({"model": "brand-new", "prompt": "x", "options": {"num_predict": 1}})).await;
    assert_eq!(status, 200, "{answer}");
}

#[tokio::test]
async fn an_empty_prompt_loads_the_model() {
    let fake = fake(|_| {}).await;
    let app = TestApp::spawn(&fake).await;
    let (status, answer) = app.ask(json!({"model": "gemma3:270m"})).await;
    assert_eq!((status, &answer["done_reason"], &answer["response"]), (200, &json!("load"), &json!("")));
    let events = app.events(json!({"model": "gemma3:270m", "keep_alive": 0})).await;
    assert_eq!(data(&events[events.len() - 1])["done_reason"], "unload");
}

#[tokio::test]
async fn who_only_generates_does_not_unload_for_all() {
    let fake = fake(|_| {}).await;
    let app = TestApp::with(&[&fake], |c| c.auth.anonymous.role = arriero::domain::principal::Role::User).await;
    let (status, problem) = app.ask(json!({"model": "gemma3:270m", "keep_alive": 0})).await;
    assert_eq!((status, &problem["code"]), (403, &json!("unload_forbidden")), "{problem}");
}

#[tokio::test]
async fn models_say_who_has_them_and_what_they_are() {
    let (a, b) = (fake(|s| *s = Script::with_models(["x", "y"])).await, fake(|s| *s = Script::with_models(["x"])).await);
    let app = TestApp::with(&[&a, &b], |c| {
        c.ollama[0].name = Some("first".into());
        c.ollama[1].name = Some("second".into());
    })
    .await;
    let list: Value = app.get("/models").await.json().await.expect("JSON");
    let models = list["models"].as_array().expect("a list");
    let has: Vec<(&str, &str)> = models.iter().map(|m| (m["name"].as_str().expect("text"), m["backend"].as_str().expect("text"))).collect();
    assert_eq!(has, [("x:latest", "first"), ("y:latest", "first"), ("x:latest", "second")]);
    assert_eq!(
        (&models[0]["family"], &models[0]["quantization"], &models[0]["loaded"]),
        (&json!("gemma3"), &json!("Q4_K_M"), &json!(false))
    );
    assert_eq!((&models[0]["context_length"], &models[0]["available"]), (&json!(32768), &json!(true)));
}

#[tokio::test]
async fn a_second_server_answers_where_the_first_cannot() {
    let (a, b) = (fake(|_| {}).await, fake(|_| {}).await);
    let app = TestApp::with(&[&a, &b], |_| {}).await;
    let address = a.address();
    a.kill().await;
    let (status, answer) = app.ask(json!({"model": "gemma3:270m", "prompt": "x", "options": {"num_predict": 1}})).await;
    assert_eq!(status, 200, "{answer}");
    assert_eq!(answer["arriero"]["backend"], b.address().to_string(), "{address} is gone");
}
