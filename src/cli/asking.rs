//! From flags to the body of a generation, and from its events to the terminal: what `generate` and `chat` share.

use std::fmt::Write;

use serde_json::{Map, Value, json};

use super::args::Asking;
use super::client::{Client, Event};
use super::exit::{Exit, Failure};
use super::terminal::{self, Output, Status};
use super::values::seconds;

/// Reads `name=value`; the value is JSON where it can be, text otherwise.
///
/// # Errors
/// When there is no `=`.
pub fn option(text: &str) -> Result<(String, Value), String> {
    let (name, value) = text.split_once('=').filter(|(name, _)| !name.is_empty()).ok_or("write it as name=value")?;
    let value = serde_json::from_str(value).unwrap_or_else(|_| Value::String(value.to_owned()));
    Ok((name.trim().to_owned(), value))
}

/// The body of a streamed generation, but for its prompt.
#[must_use]
pub fn body(asking: &Asking) -> Map<String, Value> {
    let mut body = Map::new();
    let mut put = |name: &str, value: Option<Value>| value.map(|value| body.insert(name.to_owned(), value));
    put("model", asking.model.clone().map(Value::from));
    put("system", asking.system.clone().map(Value::from));
    put("think", asking.think.as_deref().map(think));
    put("deadline_ms", asking.deadline.map(|span| Value::from(u64::try_from(span.as_millis()).unwrap_or(u64::MAX))));
    put("priority", asking.priority.clone().map(Value::from));
    put("session", asking.session.clone().map(Value::from));
    put("cache", asking.cache.clone().map(Value::from));
    put("fallback", asking.no_fallback.then_some(Value::Bool(false)));
    put("detach", asking.detach.then_some(Value::Bool(true)));
    if !asking.options.is_empty() {
        put("options", Some(Value::Object(asking.options.iter().cloned().collect())));
    }
    body.insert("stream".to_owned(), Value::Bool(true));
    body
}

fn think(word: &str) -> Value {
    match word {
        "true" => Value::Bool(true),
        "false" => Value::Bool(false),
        effort => Value::String(effort.to_owned()),
    }
}

/// How an answer ended.
#[derive(Debug)]
pub enum Ended {
    /// With its final object, and the whole text.
    Done { last: Value, text: String },
    /// Ctrl-C stopped it.
    Stopped,
}

/// Asks and shows the answer as it comes. Ctrl-C drops the connection, which stops the generation at once.
///
/// # Errors
/// When the gateway refuses or fails.
pub async fn ask(client: &Client, body: Map<String, Value>, output: &mut Output) -> Result<Ended, Failure> {
    tokio::select! {
        biased;
        _ = tokio::signal::ctrl_c() => Ok(Ended::Stopped),
        answer = follow(client, Value::Object(body), output) => answer,
    }
}

async fn follow(client: &Client, body: Value, output: &mut Output) -> Result<Ended, Failure> {
    let mut answer = client.generate(&body).await?;
    if let (true, Some(id)) = (body["detach"] == true, answer.id()) {
        terminal::note(&terminal::harmless(&format!(
            "It goes on without this command, and can be read at {}/generate/{id}",
            client.shown()
        )));
    }
    let (mut text, mut status) = (String::new(), Status::standard());
    while let Some(event) = answer.next().await? {
        if let Event::Queued(place) = &event {
            status.show(&waiting(place));
            continue;
        }
        status.clear();
        match event {
            Event::Start(_) | Event::Queued(_) => {}
            Event::Token { text: piece, thinking } => {
                output.thinking(&thinking)?;
                output.text(&piece)?;
                text.push_str(&piece);
            }
            Event::Done(last) => {
                output.end()?;
                return Ok(Ended::Done { last, text });
            }
        }
    }
    Err(Failure::new(Exit::Refused, "the answer ended without its final object", "ask again"))
}

/// Where a request stands: `waiting: position 3, about 12 s`.
fn waiting(place: &Value) -> String {
    let mut line = "waiting".to_owned();
    match place["reason"].as_str() {
        Some("loading") => line.push_str(" for the model to be loaded"),
        Some("rate_limit") => line.push_str(" for the key's limit"),
        _ => {}
    }
    if let Some(position) = place["position"].as_u64() {
        let _ = write!(line, ": position {position}");
    }
    if let Some(eta) = place["eta_ms"].as_u64() {
        let _ = write!(line, ", about {}", seconds(eta));
    }
    line
}

/// What the caches did, and which step of a hierarchy answered, as far as there is something to say.
fn detours(gateway: &Value) -> String {
    let mut line = String::new();
    if let (Some(status), Some(why)) = (gateway["cache"]["status"].as_str(), gateway["cache"]["why"].as_str()) {
        let _ = write!(line, ", cache {status} ({why})");
    }
    if let (Some(asked), Some(step)) = (gateway["fallback"]["asked"].as_str(), gateway["fallback"]["step"].as_u64()) {
        let _ = write!(line, ", step {step} of {asked}");
        if let Some(why) = gateway["fallback"]["why"].as_str().filter(|why| !why.is_empty()) {
            let _ = write!(line, " because {why}");
        }
    }
    line
}

/// Tokens, times and detours of an answer, in one line.
#[must_use]
pub fn summary(last: &Value) -> String {
    let count = |name: &str| last[name].as_u64();
    let rate = |tokens: &str, nanoseconds: &str| match (count(tokens), count(nanoseconds)) {
        (Some(tokens), Some(ns)) if ns > 0 => format!("{tokens} tokens ({:.1}/s)", per_second(tokens, ns)),
        (Some(tokens), _) => format!("{tokens} tokens"),
        _ => "unknown".to_owned(),
    };
    let ended = last["done_reason"].as_str().unwrap_or("unknown");
    let gateway = &last["arriero"];
    let mut line = format!(
        "prompt {}, answer {}, ended by {ended}",
        rate("prompt_eval_count", "prompt_eval_duration"),
        rate("eval_count", "eval_duration")
    );
    if let (Some(model), Some(backend)) = (gateway["model"].as_str(), gateway["backend"].as_str()) {
        let _ = write!(line, ", {model} on {backend}");
    }
    if let Some(ttft) = gateway["ttft_ms"].as_f64() {
        let _ = write!(line, ", first token after {ttft:.0} ms");
    }
    line.push_str(&detours(gateway));
    line
}

#[expect(clippy::cast_precision_loss, reason = "shown with one digit")]
fn per_second(count: u64, nanoseconds: u64) -> f64 {
    count as f64 / (nanoseconds as f64 / 1e9)
}

/// What `generate --json` prints: the final object with the whole text in it.
#[must_use]
pub fn whole(mut last: Value, text: &str) -> Value {
    if last.get("response").and_then(Value::as_str).is_none_or(str::is_empty) {
        last["response"] = json!(text);
    }
    last
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_json_where_they_can_be() {
        assert_eq!(option("temperature=0.5"), Ok(("temperature".into(), json!(0.5))));
        assert_eq!(option("stop=[\"a\"]"), Ok(("stop".into(), json!(["a"]))));
        assert_eq!(option("x=a=b"), Ok(("x".into(), json!("a=b"))));
        assert!(option("temperature").is_err());
        assert!(option("=1").is_err());
    }

    #[test]
    fn only_what_was_given_is_sent() {
        assert_eq!(Value::Object(body(&Asking::default())), json!({"stream": true}));
        let asking = Asking {
            model: Some("m".into()),
            options: vec![("seed".into(), json!(1))],
            think: Some("high".into()),
            deadline: Some(std::time::Duration::from_secs(2)),
            priority: Some("low".into()),
            session: Some("s".into()),
            cache: Some("only".into()),
            no_fallback: true,
            detach: true,
            ..Asking::default()
        };
        let expected = json!({"model": "m", "think": "high", "deadline_ms": 2000, "priority": "low", "session": "s", "cache": "only",
            "fallback": false, "detach": true, "options": {"seed": 1}, "stream": true});
        assert_eq!(Value::Object(body(&asking)), expected);
    }

    #[test]
    fn a_place_in_the_queue_is_one_line() {
        assert_eq!(waiting(&json!({"position": 3, "reason": "busy", "eta_ms": 12_300})), "waiting: position 3, about 12 s");
        assert_eq!(waiting(&json!({"position": 1, "reason": "loading"})), "waiting for the model to be loaded: position 1");
        assert_eq!(waiting(&json!({})), "waiting");
    }

    #[test]
    fn caches_and_fallback_are_told() {
        let gateway = json!({"cache": {"status": "hit", "why": "fresh"}, "fallback": {"asked": "smart", "step": 2, "why": "it was full"}});
        assert_eq!(detours(&gateway), ", cache hit (fresh), step 2 of smart because it was full");
        assert_eq!(detours(&json!({"fallback": {"asked": "a", "step": 1, "why": ""}})), ", step 1 of a");
        assert_eq!(detours(&Value::Null), "");
    }

    #[test]
    fn the_summary_takes_what_there_is() {
        let last =
            json!({"eval_count": 10, "eval_duration": 2_000_000_000_u64, "done_reason": "stop", "arriero": {"model": "m", "backend": "b"}});
        assert_eq!(summary(&last), "prompt unknown, answer 10 tokens (5.0/s), ended by stop, m on b");
        assert_eq!(summary(&json!({})), "prompt unknown, answer unknown, ended by unknown");
    }
}
