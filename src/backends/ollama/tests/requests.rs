//! What the server is sent.

use serde_json::{Value, json};

use super::server::Server;
use super::{DONE, outcome, request};
use crate::backends::Backend;
use crate::backends::ollama::{Config, Ollama, wire};
use crate::domain::generation::{Effort, Format, KeepAlive, Request, Think};
use crate::domain::options::Options;

fn body(request: &Request) -> Value {
    serde_json::from_slice(&wire::body(request, request.ask.truncate == Some(true)).expect("a body")).expect("json")
}

#[test]
fn a_plain_request_says_only_what_was_asked() {
    assert_eq!(body(&request("m", "Hi")), json!({"model": "m", "prompt": "Hi", "stream": true, "truncate": false}));
}

#[test]
fn everything_that_was_asked_is_said() {
    let mut asked = request("M:tag", "a \u{2028} \"b\"");
    asked.ask.prompt.suffix = Some("s".into());
    asked.ask.prompt.system = Some(String::new());
    asked.ask.prompt.template = Some("{{ .Prompt }}".into());
    asked.ask.prompt.context = vec![1, 2];
    asked.ask.prompt.images = vec!["aGk=".into()];
    asked.ask.prompt.raw = true;
    asked.ask.format = Some(Format::Json);
    asked.ask.options = Options { temperature: Some(0.0), stop: Some(vec!["x".into()]), ..Options::default() };
    asked.ask.think = Some(Think::Effort(Effort::High));
    asked.ask.keep_alive = Some(KeepAlive(json!("1h30m")));
    asked.ask.truncate = Some(false);
    asked.ask.extra.insert("logprobs".into(), json!(true));
    let expected = json!({
        "model": "M:tag", "prompt": "a \u{2028} \"b\"", "stream": true, "suffix": "s", "system": "", "template": "{{ .Prompt }}",
        "context": [1, 2], "images": ["aGk="], "raw": true, "format": "json", "options": {"temperature": 0.0, "stop": ["x"]},
        "think": "high", "keep_alive": "1h30m", "truncate": false, "logprobs": true,
    });
    assert_eq!(body(&asked), expected);
}

#[test]
fn an_unknown_field_cannot_replace_a_known_one_under_any_spelling() {
    let mut asked = request("m", "Hi");
    for name in ["stream", "Stream", "\u{17f}tream", "MODEL", "\u{212a}eep_alive", "keep_alive", "think", "future"] {
        asked.ask.extra.insert(name.into(), json!("other"));
    }
    assert_eq!(body(&asked), json!({"model": "m", "prompt": "Hi", "stream": true, "truncate": false, "future": "other"}));
}

#[tokio::test]
async fn the_headers_are_the_gateways_own() {
    let server = Server::start(|talk| talk.json(DONE));
    let url = server.url().replace("http://", "http://me:secret@") + "/prefix";
    let ollama = Ollama::new(Config { url, ..Config::default() }).expect("a client");
    assert!(outcome(&ollama).await.error.is_none());
    let received = server.received();
    let head = &received[0].head;
    let mut lines: Vec<String> = head.lines().filter(|l| !l.is_empty()).map(str::to_lowercase).collect();
    lines[1..].sort();
    assert_eq!(
        lines,
        [
            "post /prefix/api/generate http/1.1".to_owned(),
            "accept: application/x-ndjson, application/json".to_owned(),
            "authorization: basic bwu6c2vjcmv0".to_owned(),
            format!("content-length: {}", received[0].body.len()),
            "content-type: application/json".to_owned(),
            format!("host: {}", server.address),
            concat!("user-agent: arriero/", env!("CARGO_PKG_VERSION")).to_owned(),
            "x-request-id: test-1".to_owned(),
        ]
    );
    assert_eq!(ollama.describe(), format!("http://{}/prefix", server.address));
    assert_eq!(ollama.name(), server.address.to_string());
}
