//! Tests of the whole backend: recorded answers, and servers that misbehave.

mod cancel;
mod embed;
mod faults;
mod golden;
mod guard;
mod metadata;
mod requests;
mod residency;
mod secure;
mod server;
mod truncation;

use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;

use super::{Config, Ollama};
use crate::backends::{Backend, Error, Events};
use crate::domain::generation::{Event, Prompt, Request};
use crate::domain::id::{ModelName, RequestId};

pub fn request(model: &str, prompt: &str) -> Request {
    let prompt = Prompt { text: prompt.to_owned(), ..Prompt::default() };
    let request = Request::new(ModelName::parse(model).expect("a model name"), prompt);
    Request { id: RequestId::from_client("test-1").expect("a request id"), ..request }
}

/// A client whose waits end soon enough for a test, and not by chance on a loaded machine.
fn client(url: &str) -> Ollama {
    Ollama::new(Config { url: url.to_owned(), ..Config::default() }).expect("a client")
}

/// The same, for tests in which a wait is to end.
fn hasty(url: &str) -> Ollama {
    let soon = Duration::from_millis(300);
    let config = Config { url: url.to_owned(), first_token_timeout: soon, idle_timeout: soon, ..Config::default() };
    Ollama::new(config).expect("a client")
}

async fn start(ollama: &Ollama) -> Result<Events, Error> {
    ollama.generate(Arc::new(request("m", "Hi"))).await
}

/// The whole answer: what came, and how it ended.
#[derive(Debug)]
struct Outcome {
    events: Vec<Event>,
    error: Option<Error>,
}

impl Outcome {
    fn text(&self) -> String {
        self.events.iter().map(|e| if let Event::Delta(d) = e { d.text.as_str() } else { "" }).collect()
    }

    /// # Panics
    /// When it did not fail.
    fn failure(&self) -> &Error {
        self.error.as_ref().unwrap_or_else(|| panic!("{self:?} did not fail"))
    }
}

/// Everything an answer says; checks the promise about its end on the way.
async fn outcome(ollama: &Ollama) -> Outcome {
    match start(ollama).await {
        Ok(events) => collect(events).await,
        Err(error) => Outcome { events: Vec::new(), error: Some(error) },
    }
}

async fn collect(mut events: Events) -> Outcome {
    let mut outcome = Outcome { events: Vec::new(), error: None };
    while let Some(item) = events.next().await {
        assert!(outcome.error.is_none(), "something follows an error");
        assert!(!matches!(outcome.events.last(), Some(Event::Done(_))), "something follows the end");
        match item {
            Ok(event) => outcome.events.push(event),
            Err(error) => outcome.error = Some(error),
        }
    }
    let done = matches!(outcome.events.last(), Some(Event::Done(_)));
    assert!(done != outcome.error.is_some(), "exactly one end: {outcome:?}");
    assert!(events.next().await.is_none(), "an ended stream stays ended");
    outcome
}

/// A piece of an answer, and its end, as a server writes them.
fn piece(text: &str) -> String {
    format!("{}\n", serde_json::json!({"model": "m", "created_at": "2026-01-01T00:00:00Z", "response": text, "done": false}))
}

const DONE: &str =
    "{\"model\":\"m\",\"response\":\"\",\"done\":true,\"done_reason\":\"stop\",\"context\":[1,2],\"total_duration\":5,\"eval_count\":2}\n";
