//! Replays recorded requests of a live Ollama against the fake and compares what a client can see: status, headers,
//! framing, keys and types, error texts, `done_reason`. Words, counts, times, ids and digests may differ.

use arriero_bench::{
    FakeOllama,
    fake::{Fault, Midway, Plan, Script, Text},
    http1::raw::{self, Ended},
};
use serde_json::Value;
use std::{path::Path, time::Duration};

/// Fewer compared exchanges than this fail the test.
const AT_LEAST: usize = 241;

/// Recorded exchanges that are not modelled, by the beginning of their names.
const NOT_MODELLED: &[(&str, &[&str], &str)] =
    &[("native-basics", &["pull", "push", "me", "signout", "web_search"], "the fake has no registry and no account")];

struct Exchange {
    file: &'static str,
    name: String,
    record: Value,
}

fn recorded(file: &'static str) -> Vec<Exchange> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/ollama-transcripts").join(format!("{file}.jsonl"));
    let text = std::fs::read_to_string(&path).expect("the recorded transcripts are in the repository");
    text.lines()
        .map(|line| serde_json::from_str::<Value>(line).expect("one record a line"))
        .map(|record| Exchange { file, name: record["name"].as_str().unwrap_or_default().to_owned(), record })
        .collect()
}

impl Exchange {
    fn modelled(&self) -> bool {
        let path = self.record["request"]["path"].as_str().unwrap_or_default();
        let word = |prefix: &str| {
            let rest = self.name.strip_prefix(prefix);
            rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('_') || prefix.contains('_'))
        };
        !path.starts_with("/v1") && !NOT_MODELLED.iter().any(|(file, names, _)| *file == self.file && names.iter().any(|name| word(name)))
    }

    fn bytes(&self) -> Vec<u8> {
        let request = &self.record["request"];
        let body = if request["body"].is_null() {
            match (&request["body_base64"], &request["body_text"]) {
                (Value::String(text), _) => base64(text),
                (_, Value::String(text)) => whole_text(text),
                _ => Vec::new(),
            }
        } else {
            request["body"].to_string().into_bytes()
        };
        let pairs = pairs(&request["headers"]);
        let headers: Vec<(&str, &str)> = pairs.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect();
        raw::request(request["method"].as_str().unwrap_or("GET"), request["path"].as_str().unwrap_or("/"), &headers, &body)
    }

    fn chunks(&self) -> Vec<String> {
        let chunks = self.record["response"]["chunks"].as_array().cloned().unwrap_or_default();
        chunks.iter().map(|chunk| chunk.as_str().unwrap_or_default().to_owned()).collect()
    }

    fn status(&self) -> u64 {
        self.record["response"]["status"].as_u64().unwrap_or_default()
    }

    /// The last JSON value of the answer.
    fn last(&self) -> Value {
        self.chunks().last().and_then(|chunk| serde_json::from_str(chunk).ok()).unwrap_or_default()
    }

    /// Lets the fake be as talkative as the recorded model was.
    fn script(&self, script: &mut Script) {
        let last = self.last();
        let made = usize::try_from(last["eval_count"].as_u64().unwrap_or(6)).unwrap_or(6);
        let stopped = last["done_reason"] == "stop";
        let text = last["response"].as_str().or(last["message"]["content"].as_str()).unwrap_or_default();
        script.faults = Plan::none();
        script.text = if stopped && text.is_empty() && self.chunks().len() == 1 {
            Text::Given(Vec::new())
        } else if stopped && self.record["request"]["body"]["options"]["stop"].is_null() {
            Text::Words(made)
        } else {
            Text::Words(100_000)
        };
        if self.name.starts_with("runner_killed") {
            script.faults = Plan::always(Fault::After(30, Midway::RunnerDeath));
        }
        if self.name.starts_with("queue_full") {
            script.faults = Plan::always(Fault::status(503));
        }
    }
}

fn pairs(headers: &Value) -> Vec<(String, String)> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    match headers {
        Value::Object(map) => map.iter().map(|(key, value)| (key.clone(), text(value))).collect(),
        Value::Array(list) => list.iter().map(|pair| (text(&pair[0]), text(&pair[1]))).collect(),
        _ => Vec::new(),
    }
}

/// One record says only how its body began and how long it was: `[[[…` of 40,030 bytes.
fn whole_text(text: &str) -> Vec<u8> {
    match text.split_once('…') {
        Some((head, _)) => format!("{head}{}", "[".repeat(20_000)).into_bytes(),
        None => text.as_bytes().to_vec(),
    }
}

fn base64(text: &str) -> Vec<u8> {
    const LETTERS: &str = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut bits = 0_u32;
    let mut count = 0;
    let mut out = Vec::new();
    for letter in text.trim_end_matches('=').chars() {
        bits = (bits << 6) | u32::try_from(LETTERS.find(letter).expect("standard base64")).expect("small");
        count += 6;
        if count >= 8 {
            count -= 8;
            out.push(u8::try_from((bits >> count) & 0xFF).expect("one byte"));
        }
    }
    out
}

/// Keys and types, without order and without the values.
fn shape(value: &Value, at: &str, out: &mut Vec<String>) {
    let kind = match value {
        Value::Null => "null",
        Value::Bool(_) => "bool",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    };
    out.push(format!("{at}: {kind}"));
    match value {
        Value::Object(map) if at.ends_with(".model_info") || at.ends_with(".arguments") => assert!(!map.is_empty()),
        Value::Object(map) => map.iter().for_each(|(key, inner)| shape(inner, &format!("{at}.{key}"), out)),
        Value::Array(items) => items.iter().for_each(|item| shape(item, &format!("{at}[]"), out)),
        _ => {}
    }
}

fn shapes(chunks: &[String]) -> Vec<String> {
    let mut out = Vec::new();
    for chunk in chunks {
        match serde_json::from_str::<Value>(chunk) {
            Ok(value) => shape(&value, "", &mut out),
            Err(_) => out.push(format!("text {chunk:?}")),
        }
    }
    out.sort();
    out.dedup();
    out
}

/// Headers whose values a client may rely on.
const HEADERS: [&str; 5] = ["content-type", "location", "allow", "access-control-allow-origin", "retry-after"];

/// What differs between the record and the fake's answer.
fn differences(exchange: &Exchange, reply: &raw::Reply) -> Vec<String> {
    let mut found = Vec::new();
    let mut same = |what: &str, wanted: String, got: String| {
        if wanted != got {
            found.push(format!("{what}: recorded {wanted}, fake {got}"));
        }
    };
    same("status", exchange.status().to_string(), reply.status.to_string());
    same("end", "Complete".into(), format!("{:?}", reply.ended));
    let theirs = pairs(&exchange.record["response"]["headers"]);
    let header = |name: &str| theirs.iter().find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str());
    for name in HEADERS {
        same(name, format!("{:?}", header(name)), format!("{:?}", reply.header(name)));
    }
    let (wanted, got) = (exchange.chunks(), reply.chunks.iter().map(|c| String::from_utf8_lossy(c).into_owned()).collect::<Vec<_>>());
    let chunked = |value: Option<&str>| value.is_some_and(|value| value == "chunked").to_string();
    // Where the length of the words decides about chunks, the words may decide.
    let by_size = reply.status == 200 && header("content-type").is_none_or(|kind| !kind.contains("ndjson"));
    if !by_size {
        same("chunked", chunked(header("transfer-encoding")), chunked(reply.header("transfer-encoding")));
    }
    let lines = |chunks: &[String]| chunks.iter().all(|chunk| chunk.ends_with('\n') && chunk.lines().count() == 1).to_string();
    same("one line a chunk", lines(&wanted), lines(&got));
    let mut keys = shapes(&wanted);
    if exchange.record["note"].as_str().is_some_and(|note| note.contains("shortened")) {
        keys.retain(|line| line != ".context[]: string");
    }
    same("keys", keys.join("\n  "), shapes(&got).join("\n  "));
    let (theirs, ours) = (exchange.last(), got.last().and_then(|chunk| serde_json::from_str(chunk).ok()).unwrap_or(Value::Null));
    for key in ["error", "done_reason", "done", "model", "version"] {
        same(key, without_counts(&theirs[key]), without_counts(&ours[key]));
    }
    found
}

/// The refusal of a long prompt says its tokens, of which the fake has other ones.
fn without_counts(value: &Value) -> String {
    let text = value.to_string();
    if text.contains("exceed_context_size_error") { text.replace(|c: char| c.is_ascii_digit(), "") } else { text }
}

/// What was loaded when the record was made.
async fn load_something(fake: &FakeOllama) {
    let request = raw::request("POST", "/api/embed", &[], br#"{"model":"minilm","keep_alive":-1}"#);
    let loaded = raw::exchange(fake.address(), &request, Duration::from_mins(1)).await.expect("connects");
    assert_eq!(loaded.status, 200);
}

#[tokio::test]
async fn the_fake_answers_as_the_recorded_server_did() {
    let fake = FakeOllama::spawn(Script::default()).await.expect("a free port");
    load_something(&fake).await;
    let files = ["native-basics", "native-generate", "native-chat", "native-embed", "faults"];
    let exchanges: Vec<Exchange> = files.into_iter().flat_map(recorded).filter(Exchange::modelled).collect();
    let mut wrong = Vec::new();
    for exchange in &exchanges {
        fake.adjust(|script| exchange.script(script));
        let reply = raw::exchange(fake.address(), &exchange.bytes(), Duration::from_mins(1)).await.expect("connects");
        assert_ne!(reply.ended, Ended::TimedOut, "{}/{}", exchange.file, exchange.name);
        let found = differences(exchange, &reply);
        if !found.is_empty() {
            wrong.push(format!("{}/{}\n {}", exchange.file, exchange.name, found.join("\n ")));
        }
    }
    println!("{} exchanges compared", exchanges.len());
    assert!(wrong.is_empty(), "{} of {} differ:\n{}", wrong.len(), exchanges.len(), wrong.join("\n"));
    assert!(exchanges.len() >= AT_LEAST, "only {} exchanges were compared", exchanges.len());
}
