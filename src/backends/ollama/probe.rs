//! Whether a server works: a cheap question, and one token from a model that is in memory.
//!
//! The second exists because a server whose models hang still answers everything else. It must not disturb: it loads nothing, asks for
//! the very context (and other settings of the runner) that the model was loaded with, since other ones would load it anew, and does
//! not keep a model in memory that nobody else uses. An answer in progress is proof enough and costs the server nothing.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http::{Method, StatusCode};
use jiff::{SignedDuration, Timestamp};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use tokio::time::timeout;

use super::Config;
use super::client::{self, Client};
use super::library::{self, Resident};
use super::pulse::Pulse;
use crate::backends::Error;
use crate::domain::clock::Clock;
use crate::domain::generation::Request;
use crate::domain::id::{ModelName, RequestId};
use crate::domain::options;

/// Models asked by one deep check, and models of which the settings are remembered.
const MAX_ASKED: usize = 4;
const MAX_REMEMBERED: usize = 256;
/// A model that stays loaded longer than this was put there to stay.
const PINNED: SignedDuration = SignedDuration::from_hours(24);

/// What checks remember from one to the next.
#[derive(Default)]
pub struct Checks {
    models: Mutex<HashMap<String, Remembered>>,
}

#[derive(Default)]
struct Remembered {
    /// Settings of the runner with which the gateway asked last.
    runner: Map<String, Value>,
    shift: Option<Value>,
    /// When the model was to leave memory after the last check: the same still means that nobody used it since.
    expired_at: Option<String>,
}

#[derive(Deserialize)]
struct Version {
    version: String,
}

/// Which version the server is of.
pub async fn version(client: &Client, config: &Config) -> Result<String, Error> {
    client.json::<Version>(Method::GET, "/api/version", None, config.probe_timeout).await.map(|answer| answer.version)
}

/// Whether the server answers.
pub async fn shallow(client: &Client, config: &Config) -> Result<(), Error> {
    version(client, config).await.map(drop)
}

impl Checks {
    /// Notes with which settings a model was asked for.
    pub fn note(&self, request: &Request) {
        let mut runner = request.ask.options.to_map();
        runner.retain(|name, _| options::RUNNER.contains(&name.as_str()));
        let shift = request.ask.extra.get("shift").cloned();
        let mut models = self.models.lock().unwrap_or_else(PoisonError::into_inner);
        let name = request.model.canonical();
        if models.len() < MAX_REMEMBERED || models.contains_key(name) {
            let known = models.entry(name.to_owned()).or_default();
            (known.runner, known.shift) = (runner, shift);
        }
    }

    /// Whether the server still generates. A model that cannot generate (one for embeddings) proves nothing and harms nothing.
    pub async fn deep(&self, client: &Client, config: &Config, pulse: &Pulse) -> Result<(), Error> {
        shallow(client, config).await?;
        if pulse.within(config.probe_timeout) {
            return Ok(());
        }
        let resident = library::resident(client, config.probe_timeout.max(Duration::from_secs(10))).await?;
        self.forget_all_but(&resident);
        let now = Timestamp::from_millisecond(Clock::system().unix_ms()).unwrap_or(Timestamp::UNIX_EPOCH);
        for model in resident.iter().filter(|model| self.is_due(model, now)).take(MAX_ASKED) {
            match one_token(client, self.question(model), config.deep_probe_timeout, config.max_line_bytes).await {
                Ok(()) | Err(Error::Refused { .. } | Error::ModelNotFound { .. } | Error::Overloaded { .. }) => {}
                // Others may have kept the model busy; then their answers were seen.
                Err(Error::Stalled { .. }) if pulse.within(config.deep_probe_timeout) => {}
                Err(error) => return Err(error),
            }
        }
        if let Ok(after) = library::resident(client, config.probe_timeout).await {
            self.remember(&after);
        }
        Ok(())
    }

    /// Whether the server generates with this model, loading it if need be with the settings with which it was asked for last.
    pub async fn one_token_of(&self, client: &Client, config: &Config, model: &str) -> Result<(), Error> {
        let model = Resident { name: model.to_owned(), ..Resident::default() };
        one_token(client, self.question(&model), config.deep_probe_timeout, config.max_line_bytes).await
    }

    fn question(&self, model: &Resident) -> Bytes {
        let models = self.models.lock().unwrap_or_else(PoisonError::into_inner);
        let known = models.get(&canonical(model));
        let mut options = known.map(|known| known.runner.clone()).unwrap_or_default();
        if let Some(context_length) = model.context_length {
            options.insert("num_ctx".to_owned(), context_length.into());
        }
        options.insert("num_predict".to_owned(), 1.into());
        let mut body = json!({"model": model.name, "prompt": ".", "raw": true, "stream": false, "options": options});
        if let Some(shift) = known.and_then(|known| known.shift.clone()) {
            body["shift"] = shift;
        }
        body.to_string().into()
    }

    fn is_due(&self, model: &Resident, now: Timestamp) -> bool {
        let pinned = model.expires_at.parse::<Timestamp>().is_ok_and(|until| until.duration_since(now) > PINNED);
        let models = self.models.lock().unwrap_or_else(PoisonError::into_inner);
        let untouched = models.get(&canonical(model)).and_then(|known| known.expired_at.as_ref()) == Some(&model.expires_at);
        pinned || !untouched || model.expires_at.is_empty()
    }

    fn remember(&self, resident: &[Resident]) {
        let mut models = self.models.lock().unwrap_or_else(PoisonError::into_inner);
        for model in resident.iter().take(MAX_REMEMBERED) {
            models.entry(canonical(model)).or_default().expired_at = Some(model.expires_at.clone());
        }
    }

    /// A model that has left memory may be loaded with other settings next time.
    fn forget_all_but(&self, resident: &[Resident]) {
        let names: Vec<String> = resident.iter().map(canonical).collect();
        self.models.lock().unwrap_or_else(PoisonError::into_inner).retain(|name, _| names.contains(name));
    }
}

fn canonical(model: &Resident) -> String {
    ModelName::parse(&model.name).map_or_else(|_| model.name.clone(), |name| name.canonical().to_owned())
}

async fn one_token(client: &Client, question: Bytes, patience: Duration, max_bytes: usize) -> Result<(), Error> {
    let answer = timeout(patience, async {
        let response = client.generate(question, &RequestId::generate(), patience).await?;
        if response.status() != StatusCode::OK {
            return Err(client::refused(response, "").await);
        }
        let answer = client::collect(response.into_body(), max_bytes).await?;
        super::wire::read(&answer).map(|_| ())
    });
    match answer.await {
        Err(_) | Ok(Err(Error::Stalled { .. })) => Err(Error::Stalled { stage: "generating one token for a check", silent: patience }),
        Ok(outcome) => outcome,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn model(name: &str, expires_at: &str) -> Resident {
        Resident { name: name.to_owned(), expires_at: expires_at.to_owned(), context_length: Some(8192), ..Resident::default() }
    }

    #[test]
    fn a_model_nobody_used_since_the_last_check_is_left_to_expire() {
        let now: Timestamp = "2026-01-01T12:00:00Z".parse().expect("a time");
        let checks = Checks::default();
        let idle = model("a:latest", "2026-01-01T12:05:00Z");
        let pinned = model("b:latest", "2318-01-01T12:05:00Z");
        assert!(checks.is_due(&idle, now));
        checks.remember(&[idle.clone(), pinned.clone()]);
        assert!(!checks.is_due(&idle, now), "checking it again would keep it loaded");
        assert!(checks.is_due(&model("A", "2026-01-01T12:06:00Z"), now), "used since");
        assert!(checks.is_due(&pinned, now));
        checks.forget_all_but(&[]);
        assert!(checks.is_due(&idle, now));
    }

    #[test]
    fn a_check_asks_with_the_settings_the_model_was_loaded_with() {
        let checks = Checks::default();
        let body: Value = serde_json::from_slice(&checks.question(&model("a:latest", ""))).expect("json");
        assert_eq!(body["options"], json!({"num_ctx": 8192, "num_predict": 1}));
        let mut request = super::super::tests::request("a", "x");
        request.ask.options =
            crate::domain::options::Options { num_thread: Some(2), temperature: Some(0.5), num_ctx: Some(9999), ..Default::default() };
        request.ask.extra.insert("shift".to_owned(), false.into());
        checks.note(&request);
        let body: Value = serde_json::from_slice(&checks.question(&model("a:latest", ""))).expect("json");
        assert_eq!(body["options"], json!({"num_ctx": 8192, "num_thread": 2, "num_predict": 1}));
        assert_eq!((&body["shift"], body.get("keep_alive")), (&json!(false), None));
    }
}
