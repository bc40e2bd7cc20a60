//! The end of the process: running answers finish within the grace, the others are told, nothing is lost.

use std::time::Duration;

use serde_json::json;

use crate::support::{TestApp, data, fake, read_events, text};

#[tokio::test]
async fn running_answers_finish_within_the_grace() {
    let fake = fake(|s| s.token_gap = Duration::from_millis(30)).await;
    let app = TestApp::spawn(&fake).await;
    let response = app.post(json!({"model": "gemma3:270m", "prompt": "x", "stream": true, "options": {"num_predict": 20}})).await;
    let (address, client) = (app.address, app.client.clone());
    let (events, _data) = tokio::join!(read_events(response), app.end());
    assert_eq!(events.last().expect("events").event, "done");
    assert_eq!(events.iter().filter(|e| e.event == "token").count(), 20);
    assert!(client.get(format!("http://{address}/livez")).send().await.is_err(), "nothing listens any more");
}

#[tokio::test]
async fn answers_beyond_the_grace_are_told() {
    let fake = fake(|s| s.token_gap = Duration::from_millis(20)).await;
    let app = TestApp::with(&[&fake], |c| c.server.shutdown_grace = Duration::from_millis(300)).await;
    let response = app.post(json!({"model": "gemma3:270m", "prompt": "x", "stream": true, "options": {"num_predict": 100_000}})).await;
    let collecting = tokio::spawn(
        app.client
            .post(format!("{}/generate", app.url))
            .json(&json!({"model": "gemma3:270m", "prompt": "x", "options": {"num_predict": 100_000}}))
            .send(),
    );
    fake.wait_for(|seen| seen.generating == 2).await.expect("both run");
    let (events, _data) = tokio::join!(read_events(response), app.end());
    let last = events.last().expect("events");
    assert_eq!((last.event.as_str(), &data(last)["code"]), ("error", &json!("closed")));
    assert!(!text(&events).is_empty());
    let collected = collecting.await.expect("no panic").expect("an answer");
    assert_eq!(collected.status(), 503);
    assert!(collected.headers().contains_key("retry-after"));
    fake.wait_for(|seen| seen.in_flight == 0).await.expect("the work stops");
}
