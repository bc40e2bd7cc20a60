//! What a live server said, through this code: nothing is lost, added or altered, however the bytes are split.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::{StreamExt, stream};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use http_body::Frame;
use http_body_util::StreamBody;
use serde_json::{Map, Value, json};

use super::super::pulse::Pulse;
use super::super::{expect_ollama, refusal, stream::Answer};
use super::{Outcome, collect};
use crate::backends::Error;
use crate::domain::generation::{Event, Finish};

struct Exchange {
    name: String,
    path: String,
    body: Value,
    status: StatusCode,
    headers: HeaderMap,
    chunks: Vec<String>,
}

fn exchanges(file: &str) -> Vec<Exchange> {
    let path = format!("{}/tests/fixtures/ollama-transcripts/{file}.jsonl", env!("CARGO_MANIFEST_DIR"));
    let text = std::fs::read_to_string(path).expect("a fixture");
    text.lines().map(exchange).collect()
}

fn exchange(line: &str) -> Exchange {
    let all: Value = serde_json::from_str(line).expect("a recorded exchange");
    let (request, response) = (&all["request"], &all["response"]);
    let text = |value: &Value| value.as_str().expect("text").to_owned();
    let header = |pair: &Value| {
        let name = HeaderName::from_bytes(text(&pair[0]).as_bytes()).expect("a name");
        (name, HeaderValue::from_str(&text(&pair[1])).expect("a value"))
    };
    Exchange {
        name: text(&all["name"]),
        path: text(&request["path"]),
        body: request["body"].clone(),
        status: StatusCode::from_u16(u16::try_from(response["status"].as_u64().expect("a status")).expect("a status")).expect("a status"),
        headers: response["headers"].as_array().expect("headers").iter().map(header).collect(),
        chunks: response["chunks"].as_array().expect("chunks").iter().map(text).collect(),
    }
}

fn generations() -> Vec<Exchange> {
    let mut all = exchanges("native-generate");
    all.extend(exchanges("faults"));
    all.retain(|exchange| exchange.path == "/api/generate");
    assert!(all.len() > 80, "only {} recorded generations", all.len());
    all
}

async fn read(chunks: Vec<Bytes>) -> Outcome {
    let frames = stream::iter(chunks.into_iter().map(|chunk| Ok::<_, Infallible>(Frame::data(chunk))));
    let answer = Answer::new(StreamBody::new(frames), 1 << 20, Duration::from_mins(1), Arc::new(Pulse::new()));
    collect(answer.boxed()).await
}

/// An event in the server's words, without what is left out on purpose (`model`, `created_at`, `done: false`).
fn written(event: &Event) -> Map<String, Value> {
    let mut object = Map::new();
    match event {
        Event::Delta(delta) => {
            object.insert("response".to_owned(), delta.text.clone().into());
            if !delta.thinking.is_empty() {
                object.insert("thinking".to_owned(), delta.thinking.clone().into());
            }
            object.extend(delta.extra.clone());
        }
        Event::Done(finish) => write_finish(finish, &mut object),
    }
    object
}

fn write_finish(finish: &Finish, object: &mut Map<String, Value>) {
    let nanoseconds = |d: Option<Duration>| d.map(|d| json!(u64::try_from(d.as_nanos()).expect("short")));
    let fields = [
        ("done", Some(json!(true))),
        ("done_reason", Some(json!(finish.reason))),
        ("context", finish.context.as_ref().map(|c| json!(c))),
        ("total_duration", nanoseconds(finish.timing.total)),
        ("load_duration", nanoseconds(finish.timing.load)),
        ("prompt_eval_count", finish.usage.prompt_tokens.map(|n| json!(n))),
        ("prompt_eval_cached_count", finish.usage.cached_tokens.map(|n| json!(n))),
        ("prompt_eval_duration", nanoseconds(finish.timing.prompt_eval)),
        ("eval_count", finish.usage.completion_tokens.map(|n| json!(n))),
        ("eval_duration", nanoseconds(finish.timing.eval)),
    ];
    object.extend(fields.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?))));
    object.extend(finish.extra.clone());
}

/// A recorded line as the events it must become.
fn expected(line: &str) -> Vec<Map<String, Value>> {
    let Value::Object(mut object) = serde_json::from_str(line).expect("recorded JSON") else { panic!("{line} is no object") };
    object.retain(|name, _| name != "model" && name != "created_at");
    if object.contains_key("_debug_info") {
        let info = object.remove("_debug_info").expect("present");
        return vec![
            [("done".into(), json!(true)), ("done_reason".into(), json!("debug")), ("_debug_info".into(), info)].into_iter().collect(),
        ];
    }
    if object.get("done") != Some(&json!(true)) {
        object.remove("done");
        return vec![object];
    }
    let text = object.remove("response").expect("a response");
    let thinking = object.remove("thinking");
    let mut events = Vec::new();
    if text != json!("") || thinking.is_some() {
        let mut delta: Map<String, Value> = [("response".to_owned(), text)].into_iter().collect();
        delta.extend(thinking.map(|t| ("thinking".to_owned(), t)));
        events.push(delta);
    }
    events.push(object);
    events
}

#[tokio::test]
async fn every_recorded_generation_comes_through_unaltered() {
    for exchange in generations().iter().filter(|e| e.status == StatusCode::OK) {
        assert!(expect_ollama(&exchange.headers).is_ok(), "{}", exchange.name);
        let text = exchange.chunks.concat();
        let (errors, lines): (Vec<&str>, Vec<&str>) = text.lines().partition(|line| line.starts_with("{\"error\""));
        let expected: Vec<_> = lines.iter().flat_map(|line| expected(line)).collect();
        let splits = [
            exchange.chunks.iter().map(|c| Bytes::from(c.clone())).collect(),
            vec![Bytes::from(text.clone())],
            text.bytes().map(|b| Bytes::from(vec![b])).collect(),
        ];
        for chunks in splits {
            let outcome = read(chunks).await;
            let events: Vec<_> = outcome.events.iter().map(written).collect();
            assert_eq!(events, expected, "{}", exchange.name);
            assert_eq!(outcome.error.is_some(), !errors.is_empty(), "{}: {:?}", exchange.name, outcome.error);
        }
        if !text.ends_with('\n') {
            continue;
        }
        // The same answer, cut anywhere before its last line, is never taken for a whole one.
        let last = text.trim_end().rfind('\n').map_or(0, |n| n + 1);
        for cut in [0, last / 2, last] {
            let outcome = read(vec![Bytes::copy_from_slice(&text.as_bytes()[..cut])]).await;
            assert!(matches!(outcome.failure(), Error::Protocol { .. }), "{} cut at {cut}", exchange.name);
        }
    }
}

#[tokio::test]
async fn one_chunk_is_one_event() {
    let streams: Vec<_> = generations().into_iter().filter(|e| e.status == StatusCode::OK && e.chunks.len() > 1).collect();
    assert!(streams.len() >= 5);
    for exchange in streams {
        let outcome = read(exchange.chunks.iter().map(|c| Bytes::from(c.clone())).collect()).await;
        let items = outcome.events.len() + usize::from(outcome.error.is_some());
        assert_eq!(items, exchange.chunks.len(), "{}", exchange.name);
    }
}

#[test]
fn every_recorded_refusal_is_understood() {
    for exchange in generations().iter().filter(|e| e.status != StatusCode::OK) {
        let body = exchange.chunks.concat();
        let asked = exchange.body["model"].as_str().unwrap_or_default();
        let error = refusal::from_answer(exchange.status, &exchange.headers, body.as_bytes(), asked);
        let told = serde_json::from_str::<Value>(&body).expect("JSON")["error"].as_str().expect("text").to_owned();
        match (exchange.status.as_u16(), &error) {
            (404, Error::ModelNotFound { model }) => assert_eq!(model, asked),
            (503, Error::Overloaded { message, retry_after: None }) => assert_eq!(*message, told.trim()),
            (400, Error::ContextTooLong { prompt_tokens: 6002, context_tokens: 4096 }) => {
                assert_eq!(exchange.name, "too_long_truncate_false");
            }
            (400, Error::Refused { status: 400, message }) => {
                assert!(told.contains(&message[..message.len().min(20)]), "{}: {message}", exchange.name);
                assert!(!message.contains("\"code\""), "{message} is still wrapped");
            }
            (500, Error::Refused { status: 500, message }) => assert!(exchange.name != "runner_killed_generate_nostream", "{message}"),
            (500, Error::Failed { status: Some(500), message }) => {
                assert_eq!((exchange.name.as_str(), message), ("runner_killed_generate_nostream", &told));
            }
            _ => panic!("{}: {error:?}", exchange.name),
        }
    }
}

#[tokio::test]
async fn a_runner_that_dies_in_the_middle_is_a_failure_with_its_reason() {
    let exchange = exchanges("faults").into_iter().find(|e| e.name == "runner_killed_generate_stream").expect("recorded");
    let outcome = read(exchange.chunks.into_iter().map(Bytes::from).collect()).await;
    assert_eq!(outcome.events.len(), 31);
    assert!(matches!(outcome.failure(), Error::Failed { status: None, message } if message.contains("unexpected EOF")));
}
