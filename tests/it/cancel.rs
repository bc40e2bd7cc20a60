//! Clients that leave, deadlines, slow readers: the work behind them stops.

use std::time::Duration;

use arriero_bench::fake::{Phase, Text};
use futures_util::StreamExt;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::support::{TestApp, data, eventually, fake};

fn long(stream: bool) -> Value {
    json!({"model": "gemma3:270m", "prompt": "x", "stream": stream, "options": {"num_predict": 100_000}})
}

async fn leaves(prefill: Duration, slots: usize, phase: Phase) {
    for stream in [false, true] {
        let fake = fake(|s| {
            (s.prefill, s.slots, s.token_gap) = (prefill, slots, Duration::from_millis(5));
        })
        .await;
        let app = TestApp::spawn(&fake).await;
        let occupant =
            (phase == Phase::Queued).then(|| tokio::spawn(app.client.post(format!("{}/generate", app.url)).json(&long(false)).send()));
        if occupant.is_some() {
            fake.wait_for(|seen| seen.generating == 1).await.expect("the slot is taken");
        }
        let wanted = u64::from(occupant.is_some()) + 1;
        let client = tokio::spawn(app.client.post(format!("{}/generate", app.url)).json(&long(stream)).send());
        let reached = move |seen: &arriero_bench::fake::Seen| {
            let last = seen.on("/api/generate").last().map(|r| r.outcome);
            seen.on("/api/generate").count() as u64 == wanted && last == Some(arriero_bench::fake::Outcome::Running(phase))
        };
        fake.wait_for(reached).await.expect("the phase is reached");
        if phase == Phase::Streaming && stream {
            let mut body = client.await.expect("no panic").expect("an answer").bytes_stream();
            body.next().await.expect("a piece").expect("whole");
            drop(body);
        } else {
            client.abort();
        }
        fake.wait_for(|seen| seen.aborted_in(phase) >= 1).await.unwrap_or_else(|e| panic!("{phase:?}, stream {stream}: {e:?}"));
        if let Some(occupant) = occupant {
            occupant.abort();
        }
        fake.wait_for(|seen| seen.in_flight == 0).await.expect("nothing runs on");
        eventually("the request counts as cancelled", async || {
            app.metric("arriero_requests_total{route=\"generate\",outcome=\"cancelled\"}").await.is_some_and(|n| n >= 1.0)
        })
        .await;
    }
}

#[tokio::test]
async fn leaving_while_queued_upstream() {
    leaves(Duration::ZERO, 1, Phase::Queued).await;
}

#[tokio::test]
async fn leaving_during_the_prompt() {
    leaves(Duration::from_mins(10), 4, Phase::Prefill).await;
}

#[tokio::test]
async fn leaving_in_the_middle() {
    leaves(Duration::ZERO, 4, Phase::Streaming).await;
}

#[tokio::test]
async fn a_deadline_covers_waiting() {
    let fake = fake(|s| s.prefill = Duration::from_mins(10)).await;
    let app = TestApp::spawn(&fake).await;
    for stream in [false, true] {
        let mut body = long(stream);
        body["deadline_ms"] = json!(150);
        let (status, problem) = app.ask(body).await;
        assert_eq!((status, &problem["code"]), (504, &json!("deadline")), "{problem}");
    }
    fake.wait_for(|seen| seen.in_flight == 0 && seen.aborted == 2).await.expect("the work stops");
}

#[tokio::test]
async fn a_deadline_covers_generating() {
    let fake = fake(|s| s.token_gap = Duration::from_millis(10)).await;
    let app = TestApp::spawn(&fake).await;
    let mut body = long(true);
    body["deadline_ms"] = json!(300);
    let events = app.events(body).await;
    let last = events.last().expect("events");
    assert_eq!((last.event.as_str(), &data(last)["code"], &data(last)["status"]), ("error", &json!("deadline"), &json!(504)));
    assert!(events.iter().any(|e| e.event == "token"));
    fake.wait_for(|seen| seen.in_flight == 0).await.expect("the work stops");
}

#[tokio::test]
async fn a_stream_without_tokens_beats() {
    let fake = fake(|s| s.prefill = Duration::from_millis(900)).await;
    let app = TestApp::with(&[&fake], |c| c.api.heartbeat = Duration::from_millis(100)).await;
    let response = app.post(json!({"model": "gemma3:270m", "prompt": "x", "stream": true, "options": {"num_predict": 1}})).await;
    let body = response.text().await.expect("whole");
    assert!(body.matches(": heartbeat\n\n").count() >= 2, "{body}");
    assert!(body.contains("event: done"));
}

#[tokio::test]
async fn a_client_that_does_not_read_is_given_up() {
    // More than the sockets between can hold.
    let fake = fake(|s| s.text = Text::Given(vec!["x".repeat(64 << 10); 2_000])).await;
    let app = TestApp::with(&[&fake], |c| c.server.write_stall_timeout = Duration::from_millis(300)).await;
    let mut socket = tokio::net::TcpStream::connect(app.address).await.expect("connects");
    let body = json!({"model": "gemma3:270m", "prompt": "x", "stream": true, "options": {"num_predict": 1_000_000_000}}).to_string();
    let head = format!("POST /generate HTTP/1.1\r\nhost: x\r\ncontent-length: {}\r\n\r\n", body.len());
    socket.write_all((head + &body).as_bytes()).await.expect("written");
    fake.wait_for(|seen| seen.aborted == 1).await.expect("the work behind an unread answer stops");
    // What was under way can still be read; then comes the end.
    let mut rest = Vec::new();
    let _ = tokio::time::timeout(crate::support::PATIENCE, socket.read_to_end(&mut rest)).await.expect("the connection is closed");
}
