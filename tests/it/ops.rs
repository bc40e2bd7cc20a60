//! What whoever runs it can see: health, metrics, the document, the request log.

use std::time::Duration;

use arriero::storage::{self, Storage};
use arriero::telemetry::Outcome;
use arriero::usage::Report;
use serde_json::{Value, json};

use crate::support::{TestApp, fake};

#[tokio::test]
async fn health_is_about_this_process_alone() {
    let fake = fake(|_| {}).await;
    let app = TestApp::spawn(&fake).await;
    fake.kill().await;
    for path in ["/livez", "/readyz"] {
        assert_eq!(app.get(path).await.status(), 200, "{path}");
    }
    let version: Value = app.get("/version").await.json().await.expect("JSON");
    assert_eq!(version["version"], env!("CARGO_PKG_VERSION"));
}

#[tokio::test]
async fn the_document_is_served_and_the_page_needs_no_network() {
    let fake = fake(|_| {}).await;
    let app = TestApp::spawn(&fake).await;
    let served = app.get("/openapi.json").await.text().await.expect("text");
    assert!(served == arriero::api::document(), "what is served is what `openapi/openapi.json` is checked against");
    let page = app.get("/docs/").await.text().await.expect("text");
    assert!(page.contains("swagger-ui"), "{page}");
    let script = app.get("/docs/swagger-ui-bundle.js").await;
    assert_eq!(script.status(), 200);
    for text in [page, app.get("/docs/swagger-initializer.js").await.text().await.expect("text")] {
        assert!(!text.contains("https://") && !text.contains("src=\"//"), "it loads from elsewhere: {text}");
    }
    assert_eq!(app.get("/docs/nothing").await.status(), 404);
}

#[tokio::test]
async fn metrics_tell_what_happened() {
    let fake = fake(|_| {}).await;
    let app = TestApp::spawn(&fake).await;
    app.ask(json!({"model": "gemma3:270m", "prompt": "x", "options": {"num_predict": 5}})).await;
    app.events(json!({"model": "gemma3:270m", "prompt": "x", "options": {"num_predict": 5}})).await;
    app.ask(json!({"model": 5})).await;
    let requests = |outcome: &str| format!("arriero_requests_total{{route=\"generate\",outcome=\"{outcome}\"}}");
    assert_eq!(app.metric(&requests("ok")).await, Some(2.0));
    assert_eq!(app.metric(&requests("client_error")).await, Some(1.0));
    assert_eq!(app.metric("arriero_requests_in_flight{route=\"generate\"}").await, Some(0.0));
    let text = app.get("/metrics").await.text().await.expect("text");
    let first_tokens = text.lines().find(|l| l.starts_with("gen_ai_server_time_to_first_token_seconds_count"));
    assert!(first_tokens.is_some_and(|l| l.ends_with(" 2")), "{first_tokens:?}");
    assert!(text.contains("gen_ai_token_type=\"output\""), "{text}");
    assert!(app.metric("process_resident_memory_bytes").await.is_some_and(|bytes| bytes > 1e6));
}

#[tokio::test]
async fn the_request_log_has_a_row_for_each_generation() {
    let fake = fake(|_| {}).await;
    let app = TestApp::spawn(&fake).await;
    let secret = "the prompt nobody may find again";
    app.ask(json!({"model": "gemma3:270m", "prompt": secret, "options": {"num_predict": 4}})).await;
    app.ask(json!({"model": "nope", "prompt": secret})).await;
    let abandoned = tokio::time::timeout(Duration::from_millis(200), {
        fake.adjust(|s| s.prefill = Duration::from_mins(10));
        app.post(json!({"model": "gemma3:270m", "prompt": secret}))
    });
    assert!(abandoned.await.is_err());
    fake.wait_for(|seen| seen.aborted == 1).await.expect("the work stops");
    let data = app.end().await;
    let storage = Storage::open(data.path(), &storage::Config::default()).await.expect("opens");
    let mut rows = Report::new(&storage).last(10).await.expect("reads");
    rows.reverse();
    let outcomes: Vec<Outcome> = rows.iter().map(|row| row.outcome).collect();
    assert_eq!(outcomes, [Outcome::Ok, Outcome::Failed(arriero::domain::blame::Blame::Client), Outcome::Cancelled]);
    assert_eq!((rows[0].completion_tokens, rows[0].prompt_bytes, rows[0].streamed), (Some(4), secret.len() as u64, false));
    assert_eq!(rows[1].error_kind.as_deref(), Some("model_not_found"));
    storage.close().await;
    for file in std::fs::read_dir(data.path()).expect("a folder") {
        let path = file.expect("a file").path();
        if path.is_file() {
            let bytes = std::fs::read(&path).expect("reads");
            assert!(!bytes.windows(secret.len()).any(|window| window == secret.as_bytes()), "{} holds a prompt", path.display());
        }
    }
}
