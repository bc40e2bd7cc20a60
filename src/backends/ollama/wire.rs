//! The waist in Ollama's words: a request as the body of `/api/generate`, a line of its answer as events.
//!
//! Pure. Fields this version does not know pass in both directions; none of them can replace one that it does know.

use std::borrow::Cow;
use std::fmt;
use std::time::Duration;

use bytes::Bytes;
use serde::de::{Deserialize, Deserializer, IgnoredAny, MapAccess, Visitor};
use serde::ser::{Serialize, SerializeMap, Serializer};
use serde_json::value::RawValue;
use serde_json::{Map, Value};

use super::refusal;
use crate::backends::Error;
use crate::domain::generation::{Delta, Finish, FinishReason, Remarks, Request, Timing, Usage};

/// The body of `POST /api/generate`. Always asks for a stream: a stream that breaks shows where, a single object does not; and always
/// says whether an over-long prompt may be cut: when it is not told, the server cuts without a word.
///
/// # Errors
/// A request that JSON cannot express, which no dialect lets through.
pub fn body(request: &Request, truncate: bool) -> Result<Bytes, Error> {
    let mut body = Vec::with_capacity(request.ask.prompt.text.len() + 512);
    match serde_json::to_writer(&mut body, &Asked { request, truncate }) {
        Ok(()) => Ok(body.into()),
        Err(error) => Err(Error::Unsupported { field: "request", why: error.to_string() }),
    }
}

struct Asked<'a> {
    request: &'a Request,
    truncate: bool,
}

/// Every field that [`Asked`] may write.
const KNOWN: [&str; 14] = [
    "model",
    "prompt",
    "stream",
    "suffix",
    "system",
    "template",
    "context",
    "images",
    "raw",
    "format",
    "options",
    "think",
    "keep_alive",
    "truncate",
];

impl Serialize for Asked<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Self { request, truncate } = self;
        let prompt = &request.ask.prompt;
        let options = request.ask.options.to_map();
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("model", request.model.as_str())?;
        map.serialize_entry("prompt", &prompt.text)?;
        map.serialize_entry("stream", &true)?;
        put(&mut map, "suffix", prompt.suffix.as_ref())?;
        put(&mut map, "system", prompt.system.as_ref())?;
        put(&mut map, "template", prompt.template.as_ref())?;
        put(&mut map, "context", Some(&prompt.context).filter(|c| !c.is_empty()))?;
        put(&mut map, "images", Some(&prompt.images).filter(|i| !i.is_empty()))?;
        put(&mut map, "raw", Some(true).filter(|_| prompt.raw))?;
        put(&mut map, "format", request.ask.format.as_ref().map(crate::domain::generation::Format::to_value))?;
        put(&mut map, "options", Some(&options).filter(|o| !o.is_empty()))?;
        put(&mut map, "think", request.ask.think)?;
        put(&mut map, "keep_alive", request.ask.keep_alive.as_ref().map(|k| &k.0))?;
        map.serialize_entry("truncate", truncate)?;
        for (name, value) in request.ask.extra.iter().filter(|(name, _)| !is_known(name)) {
            map.serialize_entry(name, value)?;
        }
        map.end()
    }
}

fn put<M: SerializeMap, T: Serialize>(map: &mut M, name: &str, value: Option<T>) -> Result<(), M::Error> {
    value.map_or(Ok(()), |value| map.serialize_entry(name, &value))
}

/// Whether the server would read `name` as a field that is already written. Go matches names without regard to case, and by
/// Unicode's simple folding, in which two letters outside ASCII are a `k` and an `s`; of two equal names the last one wins.
fn is_known(name: &str) -> bool {
    let folded: String = name
        .chars()
        .map(|c| match c {
            '\u{212a}' => 'k',
            '\u{17f}' => 's',
            other => other.to_ascii_lowercase(),
        })
        .collect();
    KNOWN.contains(&folded.as_str())
}

/// What one line of an answer says: a piece, the end, or the last piece and the end.
#[derive(Debug, Clone, PartialEq)]
pub struct Said {
    pub delta: Option<Delta>,
    pub finish: Option<Box<Finish>>,
}

/// # Errors
/// [`Error::Failed`] (or what the text says more exactly) for a line that reports a failure, [`Error::Protocol`] for one that is
/// no JSON object or whose text is no text.
pub fn read(line: &[u8]) -> Result<Said, Error> {
    let line: Line = serde_json::from_slice(line).map_err(|error| garbled(line, &error))?;
    if let Some(error) = line.error {
        return Err(refusal::in_band(&error));
    }
    let delta = Delta { text: line.text, thinking: line.thinking, extra: Map::new() };
    // A render without inference is one object that says `done: false` and has no successor.
    let rendered = line.extra.contains_key("_debug_info");
    if !line.done && !rendered {
        return Ok(Said { delta: Some(Delta { extra: line.extra, ..delta }), finish: None });
    }
    let speaks = !delta.text.is_empty() || !delta.thinking.is_empty();
    let reason = line.reason.map_or_else(|| if rendered { FinishReason::Other("debug".to_owned()) } else { FinishReason::Stop }, reason);
    let finish =
        Finish { reason, context: line.context, usage: line.usage, timing: line.timing, remarks: Remarks::default(), extra: line.extra };
    Ok(Said { delta: speaks.then_some(delta), finish: Some(Box::new(finish)) })
}

fn garbled(line: &[u8], error: &serde_json::Error) -> Error {
    let what = if error.is_eof() { "a line ends in the middle of its JSON" } else { "a line is not the JSON of an answer" };
    Error::Protocol { message: format!("{what}: {}", refusal::excerpt(line)) }
}

fn reason(word: String) -> FinishReason {
    match word.as_str() {
        "stop" => FinishReason::Stop,
        "length" => FinishReason::Length,
        "load" => FinishReason::Load,
        "unload" => FinishReason::Unload,
        _ => FinishReason::Other(word),
    }
}

/// One line, read in one pass. What has an unexpected type and can be done without travels in `extra`.
#[derive(Default)]
struct Line {
    text: String,
    thinking: String,
    done: bool,
    reason: Option<String>,
    error: Option<Value>,
    context: Option<Vec<u32>>,
    usage: Usage,
    timing: Timing,
    extra: Map<String, Value>,
}

impl<'de> Deserialize<'de> for Line {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(LineVisitor)
    }
}

/// A field's name, borrowed from the line unless it holds escapes.
#[derive(serde::Deserialize)]
#[serde(transparent)]
struct Name<'a>(#[serde(borrow)] Cow<'a, str>);

struct LineVisitor;

impl<'de> Visitor<'de> for LineVisitor {
    type Value = Line;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Line, A::Error> {
        let mut line = Line::default();
        while let Some(Name(name)) = map.next_key()? {
            match &*name {
                "response" => line.text = map.next_value::<Option<String>>()?.unwrap_or_default(),
                "thinking" => line.thinking = map.next_value::<Option<String>>()?.unwrap_or_default(),
                "done" => line.done = map.next_value::<Option<bool>>()?.unwrap_or_default(),
                "model" | "created_at" => {
                    map.next_value::<IgnoredAny>()?;
                }
                "done_reason" => line.reason = map.next_value::<Option<String>>()?.filter(|word| !word.is_empty()),
                "error" => line.error = map.next_value::<Option<Value>>()?,
                _ => line.rest(&name, map.next_value()?).map_err(serde::de::Error::custom)?,
            }
        }
        Ok(line)
    }
}

impl Line {
    fn rest(&mut self, name: &str, value: &RawValue) -> serde_json::Result<()> {
        let understood = match name {
            "context" => put_in(&mut self.context, serde_json::from_str(value.get()).ok()),
            "prompt_eval_count" => put_in(&mut self.usage.prompt_tokens, whole(value)),
            "prompt_eval_cached_count" => put_in(&mut self.usage.cached_tokens, whole(value)),
            "eval_count" => put_in(&mut self.usage.completion_tokens, whole(value)),
            "total_duration" => put_in(&mut self.timing.total, nanoseconds(value)),
            "load_duration" => put_in(&mut self.timing.load, nanoseconds(value)),
            "prompt_eval_duration" => put_in(&mut self.timing.prompt_eval, nanoseconds(value)),
            "eval_duration" => put_in(&mut self.timing.eval, nanoseconds(value)),
            _ => false,
        };
        if !understood {
            self.extra.insert(name.to_owned(), serde_json::from_str(value.get())?);
        }
        Ok(())
    }
}

/// Whether there was something to put.
fn put_in<T>(slot: &mut Option<T>, value: Option<T>) -> bool {
    let present = value.is_some();
    *slot = value;
    present
}

fn whole(value: &RawValue) -> Option<u64> {
    value.get().parse().ok()
}

fn nanoseconds(value: &RawValue) -> Option<Duration> {
    whole(value).map(Duration::from_nanos)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    fn said(line: &Value) -> Said {
        read(line.to_string().as_bytes()).expect("a line of an answer")
    }

    #[test]
    fn thinking_and_unknown_fields_travel() {
        let line = json!({"model": "m", "response": "", "thinking": "hm", "done": false, "logprobs": [{"token": "a"}], "new": null});
        let delta = said(&line).delta.expect("a piece");
        assert_eq!((delta.text.as_str(), delta.thinking.as_str()), ("", "hm"));
        assert_eq!(Value::Object(delta.extra), json!({"logprobs": [{"token": "a"}], "new": null}));
    }

    #[test]
    fn a_final_object_of_another_version_is_still_final() {
        let said = said(
            &json!({"done": true, "prompt_eval_cached_count": 3, "eval_count": -1, "context": [1, "x"], "total_duration": 7, "new": 1}),
        );
        let finish = said.finish.expect("the end");
        assert_eq!((said.delta, finish.reason, finish.timing.total), (None, FinishReason::Stop, Some(Duration::from_nanos(7))));
        assert_eq!(finish.usage, Usage { cached_tokens: Some(3), ..Usage::default() });
        assert_eq!(Value::Object(finish.extra), json!({"eval_count": -1, "context": [1, "x"], "new": 1}));
    }

    #[test]
    fn nulls_are_absent() {
        let delta = said(&json!({"response": null, "thinking": null, "done": null, "error": null, "done_reason": null})).delta;
        assert_eq!(delta, Some(Delta::default()));
    }

    #[test]
    fn deep_nesting_is_refused() {
        let deep = format!("{{\"response\":\"\",\"x\":{}{}}}", "[".repeat(20_000), "]".repeat(20_000));
        assert!(matches!(read(deep.as_bytes()), Err(Error::Protocol { .. })));
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused_in_few_words(line in proptest::collection::vec(any::<u8>(), 0..2000)) {
            if let Err(error) = read(&line) {
                prop_assert!(error.to_string().len() < 1000);
            }
        }

        #[test]
        fn text_comes_out_as_it_went_in(text in ".*") {
            let delta = said(&json!({"response": text, "done": false})).delta.expect("a piece");
            prop_assert_eq!(delta.text, text);
        }
    }
}
