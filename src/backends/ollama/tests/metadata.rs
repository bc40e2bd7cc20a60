//! Models and checks.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde_json::Value;

use super::server::{Server, Talk};
use super::{DONE, client, piece};
use crate::backends::ollama::{Config, Ollama};
use crate::backends::{Backend, Health, Probe};

pub fn fixture(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(name)
}

/// The recorded body of an exchange.
fn recorded(name: &str) -> String {
    let text = std::fs::read_to_string(fixture("ollama-transcripts/native-basics.jsonl")).expect("a fixture");
    let all = text.lines().map(|line| serde_json::from_str::<Value>(line).expect("json")).find(|e| e["name"] == name).expect("recorded");
    all["response"]["chunks"].as_array().expect("chunks").iter().map(|c| c.as_str().expect("text")).collect()
}

/// Answers as the recorded server does.
fn recorded_server(talk: &mut Talk) {
    let path = talk.received.head.split(' ').nth(1).expect("a path").to_owned();
    let model = serde_json::from_slice::<Value>(&talk.received.body).ok().and_then(|b| Some(b["model"].as_str()?.to_owned()));
    match (path.as_str(), model.as_deref()) {
        ("/api/tags", _) => talk.json(&recorded("tags")),
        ("/api/ps", _) => talk.json(&recorded("ps")),
        ("/api/version", _) => talk.json(&recorded("version")),
        ("/api/show", Some("minilm:latest")) => talk.json(&recorded("show_embedding")),
        ("/api/show", Some("gemma3:270m")) => talk.json(&recorded("show_base")),
        ("/api/show", _) => talk.answer("404 Not Found", &[], &recorded("show_unknown")),
        ("/api/generate", Some("minilm:latest")) => {
            talk.answer("400 Bad Request", &[], r#"{"error":"\"minilm:latest\" does not support generate"}"#);
        }
        ("/api/generate", _) => talk.json(DONE),
        _ => talk.answer("404 Not Found", &[], "404 page not found"),
    }
}

#[tokio::test]
async fn the_models_of_a_recorded_server() {
    let server = Server::start(recorded_server);
    let ollama = client(&server.url());
    let models = ollama.models().await.expect("models");
    let model = |name: &str| models.iter().find(|m| m.name.as_str() == name).unwrap_or_else(|| panic!("{name} is missing"));
    let gemma = model("gemma3:270m");
    assert_eq!((gemma.parameters, gemma.context_length, gemma.loaded), (Some(268_098_176), Some(32768), false));
    assert_eq!((gemma.family.as_deref(), gemma.quantization.as_deref()), (Some("gemma3"), Some("Q4_K_M")));
    assert!(gemma.digest.as_ref().is_some_and(|d| d.len() == 64) && gemma.size_bytes.is_some_and(|s| s > 200_000_000));
    let minilm = model("minilm:latest");
    assert_eq!((minilm.parameters, minilm.context_length, minilm.loaded), (Some(22_565_376), Some(512), true));
    // Its description cannot be had: what the list says must do.
    let tool = model("tool:latest");
    assert_eq!((tool.parameters, tool.loaded), (Some(268_100_000), true));

    let shows = |server: &Server| server.received().iter().filter(|r| r.head.starts_with("POST /api/show")).count();
    let before = shows(&server);
    let again = ollama.models().await.expect("models");
    assert_eq!(again, models);
    assert!(shows(&server) < 2 * before, "what is known is asked for again");
}

#[tokio::test]
async fn models_without_ps_and_show() {
    let server = Server::start(|talk| match talk.received.head.split(' ').nth(1) {
        Some("/api/tags") => talk.json(&recorded("tags")),
        _ => talk.answer("500 Internal Server Error", &[], r#"{"error":"no"}"#),
    });
    let models = client(&server.url()).models().await.expect("models");
    assert!(!models.is_empty() && models.iter().all(|m| !m.loaded));
}

#[tokio::test]
async fn health_follows_the_checks() {
    let working = Arc::new(AtomicBool::new(true));
    let state = Arc::clone(&working);
    let server = Server::start(move |talk| if state.load(Ordering::SeqCst) { recorded_server(talk) } else { talk.close() });
    let ollama = client(&server.url());
    assert_eq!(ollama.health(), Health::Unknown);
    assert_eq!(ollama.probe(Probe::Shallow).await, Health::Up);
    working.store(false, Ordering::SeqCst);
    assert!(matches!(ollama.probe(Probe::Shallow).await, Health::Down(_)));
    assert!(matches!(ollama.health(), Health::Down(_)));
    working.store(true, Ordering::SeqCst);
    assert_eq!(ollama.probe(Probe::Deep).await, Health::Up);
    assert_eq!(ollama.health(), Health::Up);
}

#[tokio::test]
async fn a_web_server_is_not_up() {
    let server = Server::start(|talk| talk.answer("200 OK", &["Content-Type: text/html"], "<html>hello</html>"));
    let Health::Down(why) = client(&server.url()).probe(Probe::Shallow).await else { panic!("it is no Ollama") };
    assert!(why.contains("is this an Ollama server?"), "{why}");
}

fn generated(server: &Server) -> Vec<Value> {
    let received = server.received();
    let asked = received.iter().filter(|r| r.head.starts_with("POST /api/generate"));
    asked.map(|r| serde_json::from_slice(&r.body).expect("json")).collect()
}

#[tokio::test]
async fn a_deep_check_generates_on_loaded_models_once() {
    let server = Server::start(recorded_server);
    let ollama = client(&server.url());
    assert_eq!(ollama.probe(Probe::Deep).await, Health::Up);
    let asked = generated(&server);
    let names: Vec<&str> = asked.iter().filter_map(|b| b["model"].as_str()).collect();
    assert_eq!(names, ["tool:latest", "q8:latest", "minilm:latest"]);
    for body in &asked {
        assert_eq!(body["options"]["num_predict"], 1);
        assert!(body.get("keep_alive").is_none() && body["options"]["num_ctx"].is_u64(), "{body}");
    }
    // Nobody has used them since: they are left alone.
    assert_eq!(ollama.probe(Probe::Deep).await, Health::Up);
    assert_eq!(generated(&server).len(), 3);
}

#[tokio::test]
async fn a_server_whose_models_hang_is_down_though_it_answers() {
    let server = Server::start(|talk| {
        if talk.received.head.starts_with("POST /api/generate") {
            talk.wait_for_close();
            talk.close();
        } else {
            recorded_server(talk);
        }
    });
    let config = Config { url: server.url(), deep_probe_timeout: Duration::from_millis(300), ..Config::default() };
    let ollama = Ollama::new(config).expect("a client");
    assert_eq!(ollama.probe(Probe::Shallow).await, Health::Up);
    assert!(matches!(ollama.probe(Probe::Deep).await, Health::Down(why) if why.contains("one token")));
}

#[tokio::test]
async fn an_answer_in_progress_is_proof_enough() {
    use futures_util::StreamExt;
    let server = Server::start(|talk| {
        if talk.received.head.starts_with("POST /api/generate") {
            talk.stream();
            talk.chunk(piece("a"));
            talk.wait_for_close();
            talk.close();
        } else {
            recorded_server(talk);
        }
    });
    // Wide enough that the check surely falls into it.
    let ollama = Ollama::new(Config { url: server.url(), probe_timeout: Duration::from_mins(1), ..Config::default() }).expect("a client");
    let mut events = super::start(&ollama).await.expect("an answer");
    assert!(events.next().await.is_some());
    assert_eq!(ollama.probe(Probe::Deep).await, Health::Up);
    assert_eq!(generated(&server).len(), 1);
}

#[tokio::test]
async fn watching_keeps_health_current() {
    let server = Server::start(recorded_server);
    let config = Config { url: server.url(), probe_interval: Duration::from_millis(20), ..Config::default() };
    let ollama = Ollama::new(config).expect("a client");
    let current = async {
        while ollama.health() != Health::Up {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::select! {
        () = ollama.clone().watch() => panic!("it ended"),
        outcome = tokio::time::timeout(super::server::LONG, current) => outcome.expect("it became known"),
    }
}
