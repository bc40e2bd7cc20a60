//! Doubles that the tests of this folder share.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};

use super::answer::{Answer, Piece};
use crate::domain::generation::{
    Ask, Delta, Effort, Event, Finish, FinishReason, Format, KeepAlive, Prompt, Remarks, Think, Timing, Usage,
};
use crate::domain::options::Options;

pub(crate) fn delta(text: &str) -> Event {
    Event::Delta(Delta { text: text.to_owned(), ..Delta::default() })
}

pub(crate) fn finished(reason: FinishReason) -> Finish {
    Finish {
        reason,
        context: None,
        usage: Usage::default(),
        timing: Timing::default(),
        remarks: Remarks::default(),
        extra: serde_json::Map::new(),
    }
}

pub(crate) fn done() -> Event {
    Event::Done(Box::new(finished(FinishReason::Stop)))
}

/// Pieces ten milliseconds apart, and the end after them.
pub(crate) fn answer(texts: &[&str], finish: Finish) -> Answer {
    let events = texts.iter().map(|text| delta(text)).chain([Event::Done(Box::new(finish))]);
    let pieces = (1..).zip(events).map(|(n, event)| Arc::new(Piece::new(Duration::from_millis(n * 10), event)));
    Answer::new(pieces).expect("whole")
}

pub(crate) fn object(value: Value) -> serde_json::Map<String, Value> {
    match value {
        Value::Object(map) => map,
        other => panic!("{other} is no object"),
    }
}

/// A request with every field set.
pub(crate) fn full_ask() -> Ask {
    let options = json!({
        "num_keep": 1, "seed": 2, "num_predict": 3, "top_k": 4, "top_p": 0.5, "min_p": 0.25, "typical_p": 0.75, "repeat_last_n": 5,
        "temperature": 0.125, "repeat_penalty": 1.5, "presence_penalty": 0.375, "frequency_penalty": 0.625, "penalize_newline": true,
        "stop": ["a", "b"], "num_ctx": 6, "num_batch": 7, "num_gpu": 8, "main_gpu": 9, "use_mmap": true, "num_thread": 10,
        "draft_num_predict": 11, "mirostat": 2, "odd": {"a": 1, "b": [null]},
    });
    Ask {
        prompt: Prompt {
            text: "text".into(),
            suffix: Some("suffix".into()),
            system: Some("system".into()),
            template: Some("template".into()),
            context: vec![1, 2],
            images: vec!["aGk=".into(), "aG8=".into()],
            raw: true,
        },
        options: Options::parse(object(options)).expect("valid"),
        format: Some(Format::Schema(object(json!({"type": "object", "properties": {"x": {}, "y": {}}})))),
        think: Some(Think::Effort(Effort::High)),
        keep_alive: Some(KeepAlive(json!("5m"))),
        truncate: Some(true),
        extra: object(json!({"logprobs": true, "top_logprobs": 3})),
    }
}
