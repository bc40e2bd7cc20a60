//! A prompt that is longer than the context is refused, or its answer says what became of it.

use std::sync::Arc;

use arriero_bench::fake::{FakeOllama, Script};
use serde_json::{Value, json};

use super::server::Server;
use super::{Outcome, client, collect, request};
use crate::backends::ollama::Ollama;
use crate::backends::{Backend, Error};
use crate::domain::generation::{Event, Truncated};
use crate::domain::options::Options;
use crate::telemetry::metrics::Metrics;

async fn ask(ollama: &Ollama, prompt: String, truncate: Option<bool>) -> Result<Outcome, Error> {
    let mut asked = request("gemma3:270m", &prompt);
    asked.ask.truncate = truncate;
    asked.ask.options = Options { num_predict: Some(1), num_ctx: Some(4096), ..Options::default() };
    Ok(collect(ollama.generate(Arc::new(asked)).await?).await)
}

fn truncated(outcome: &Outcome) -> Option<Truncated> {
    let Some(Event::Done(finish)) = outcome.events.last() else { panic!("{outcome:?} has no end") };
    finish.remarks.truncated
}

#[tokio::test]
async fn a_prompt_that_does_not_fit_is_refused_or_marked() {
    let fake = FakeOllama::spawn(Script::default()).await.expect("a port");
    let ollama = client(&fake.url());
    let metrics = Metrics::default();
    ollama.count_in(&metrics);
    let long = "word ".repeat(6000);
    for refuses in [None, Some(false)] {
        let error = ask(&ollama, long.clone(), refuses).await.expect_err("too long");
        assert!(matches!(error, Error::ContextTooLong { prompt_tokens: 6000.., context_tokens: 4096 }), "{error}");
    }
    assert_eq!(fake.seen(|seen| seen.on("/api/generate").count()), 2, "one question each");
    let outcome = ask(&ollama, long, Some(true)).await.expect("an answer");
    let cut = truncated(&outcome).expect("it says so");
    assert!(cut.prompt_tokens >= 6000 && cut.kept_tokens == 2051, "{cut:?}");
    let short = ask(&ollama, "word".to_owned(), Some(true)).await.expect("an answer");
    assert_eq!(truncated(&short), None);
    let text = metrics.render();
    assert!(text.contains("how=\"refused\"} 2") && text.contains("how=\"allowed\"} 1") && !text.contains("how=\"found\""), "{text}");
}

#[tokio::test]
async fn a_cut_of_a_server_that_does_not_know_better_is_found() {
    // It takes four bytes for a token, and cuts to half of the context without a word.
    let server = Server::start(|talk| {
        let asked: Value = serde_json::from_slice(&talk.received.body).expect("json");
        assert_eq!(asked["truncate"], json!(false));
        let tokens = asked["prompt"].as_str().expect("a prompt").len() / 4;
        let read = if tokens > 4096 { 2051 } else { tokens };
        talk.json(&format!("{}\n", json!({"response": "", "done": true, "done_reason": "stop", "prompt_eval_count": read})));
    });
    let ollama = client(&server.url());
    for bytes in [2000, 4000, 8000, 8208, 16_000] {
        let outcome = ask(&ollama, "x".repeat(bytes), None).await.expect("an answer");
        assert_eq!(truncated(&outcome), None, "{bytes}");
    }
    let outcome = ask(&ollama, "x".repeat(24_000), None).await.expect("an answer");
    assert_eq!(truncated(&outcome), Some(Truncated { prompt_tokens: 6000, kept_tokens: 2051 }));
}
