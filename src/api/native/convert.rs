//! From the body of `POST /generate` to a draft of a generation.

use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use http::{HeaderMap, HeaderValue};
use serde_json::Value;

use crate::api::fields::{FieldProblem, Fields, object};
use crate::api::problem::Problem;
use crate::domain::generation::{Ask, Control, Dialect, Draft, Format, KeepAlive, Prompt, Think};
use crate::domain::id::{ModelName, RequestId};
use crate::domain::options::Options;
use crate::domain::principal::Principal;

/// Longest name of a session, in bytes.
const MAX_SESSION_BYTES: usize = 256;

/// How a request says that it must not be collected.
pub const COLLECT: &str = "x-arriero-collect";

/// Whether the exchange may be collected as far as the request is concerned. Whoever sends the header with anything but `yes` means
/// that it must not.
pub fn may_collect(headers: &HeaderMap) -> bool {
    let is_yes = |value: &HeaderValue| value.to_str().is_ok_and(|word| word.trim().eq_ignore_ascii_case("yes"));
    headers.get_all(COLLECT).iter().all(is_yes)
}

/// Reads a body. `streamed` is what the `Accept` header asks for.
///
/// # Errors
/// A body that is no JSON object, or all fields that are wrong.
pub fn draft(id: RequestId, principal: Arc<Principal>, body: &[u8], accepts_events: bool) -> Result<Draft, Problem> {
    let fields = Fields::new(object(body)?);
    read(id, principal, fields, accepts_events).map_err(Problem::fields)
}

fn read(id: RequestId, principal: Arc<Principal>, mut fields: Fields, accepts_events: bool) -> Result<Draft, Vec<FieldProblem>> {
    let model = fields.read("model", "the name of a model", |v| v.as_str().and_then(|name| ModelName::parse(name).ok()));
    let prompt = prompt(&mut fields);
    let options = options(&mut fields);
    let format = format(&mut fields);
    let think = fields.typed::<Think>("think", "true, false, \"low\", \"medium\", \"high\" or \"max\"");
    let keep_alive = fields.read("keep_alive", "a number of seconds, or a duration such as \"5m\"", keep_alive);
    let truncate = fields.switch("truncate");
    let stream = fields.switch("stream");
    let deadline = fields
        .read("deadline_ms", "a whole number of milliseconds above 0", |v| v.as_u64().filter(|ms| *ms > 0).map(Duration::from_millis));
    let control = control(&mut fields);
    if control.detach && !is_one_segment(&id) {
        // Or nobody could stop it.
        fields.problem("detach", "an `x-request-id` without `/` beside it, as the answer is read at /generate/{id}", id.to_string());
    }
    let streamed = accepts_events || stream.unwrap_or(false);
    let extra = fields.rest()?;
    Ok(Draft {
        id,
        dialect: Dialect::Native,
        principal,
        model,
        ask: Ask { prompt, options, format, think, keep_alive, truncate, extra },
        deadline,
        streamed,
        control,
    })
}

/// Whether an id can be the last part of a path.
fn is_one_segment(id: &RequestId) -> bool {
    !id.as_str().contains('/') && !matches!(id.as_str(), "." | "..")
}

fn prompt(fields: &mut Fields) -> Prompt {
    let prompt = Prompt {
        text: fields.text("prompt").unwrap_or_default(),
        suffix: fields.text("suffix"),
        system: fields.text("system"),
        template: fields.text("template"),
        context: fields.typed("context", "a list of token ids").unwrap_or_default(),
        images: fields.read("images", "a list of images in base64, with padding and without a `data:` prefix", images).unwrap_or_default(),
        raw: fields.switch("raw").unwrap_or(false),
    };
    let template_too = prompt.system.is_some() || prompt.template.is_some() || !prompt.context.is_empty();
    if prompt.raw && template_too {
        fields.problem("raw", "no `system`, `template` or `context` beside it", "true");
    }
    prompt
}

fn images(value: &Value) -> Option<Vec<String>> {
    let image = |value: &Value| {
        let text = value.as_str()?;
        base64::engine::general_purpose::STANDARD.decode(text).ok().filter(|bytes| !bytes.is_empty())?;
        Some(text.to_owned())
    };
    value.as_array()?.iter().map(image).collect()
}

fn options(fields: &mut Fields) -> Options {
    let Some(map) = fields.object("options") else { return Options::default() };
    Options::parse(map).unwrap_or_else(|error| {
        fields.problem(format!("options.{}", error.name), error.takes, error.got);
        Options::default()
    })
}

fn format(fields: &mut Fields) -> Option<Format> {
    let read = |value: &Value| match value {
        Value::String(word) if word.is_empty() => Some(None),
        Value::String(word) if word == "json" => Some(Some(Format::Json)),
        Value::Object(schema) => Some(Some(Format::Schema(schema.clone()))),
        _ => None,
    };
    fields.read("format", "\"json\" or a JSON Schema", read).flatten()
}

/// Numbers, and durations as Go writes them (`5m`, `1h30m`, `-1s`, `1.5h`, `0`).
fn keep_alive(value: &Value) -> Option<KeepAlive> {
    let valid = match value {
        Value::Number(_) => true,
        Value::String(text) => is_go_duration(text),
        _ => false,
    };
    valid.then(|| KeepAlive(value.clone()))
}

fn is_go_duration(text: &str) -> bool {
    let mut rest = text.strip_prefix(['-', '+']).unwrap_or(text);
    if rest == "0" {
        return true;
    }
    if rest.is_empty() {
        return false;
    }
    while !rest.is_empty() {
        let digits = rest.len() - rest.trim_start_matches(|c: char| c.is_ascii_digit() || c == '.').len();
        let number = &rest[..digits];
        let unit_and_rest = &rest[digits..];
        let unit =
            ["ns", "us", "µs", "ms", "s", "m", "h"].iter().filter(|unit| unit_and_rest.starts_with(**unit)).max_by_key(|unit| unit.len());
        let Some(unit) = unit.filter(|_| number.parse::<f64>().is_ok()) else { return false };
        rest = &unit_and_rest[unit.len()..];
    }
    true
}

fn control(fields: &mut Fields) -> Control {
    let session = |value: &Value| value.as_str().filter(|s| !s.is_empty() && s.len() <= MAX_SESSION_BYTES).map(str::to_owned);
    Control {
        priority: fields.typed("priority", "\"batch\", \"low\", \"normal\", \"high\" or \"urgent\""),
        session: fields.read("session", "a string of 1 to 256 bytes", session),
        cache: fields.typed("cache", "\"default\", \"bypass\", \"refresh\" or \"only\""),
        fallback: fields.typed("fallback", "true, false or a list of model names"),
        detach: fields.switch("detach").unwrap_or(false),
        // A header says it: `may_collect`.
        collect: false,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use utoipa::PartialSchema;

    use super::*;
    use crate::api::native::types::GenerateRequest;
    use crate::domain::generation::{CacheMode, Effort, Fallback, Priority};
    use crate::domain::principal::Role;

    fn parse(body: &Value) -> Result<Draft, Problem> {
        draft(RequestId::generate(), Arc::new(Principal::anonymous(Role::Admin)), body.to_string().as_bytes(), false)
    }

    fn full() -> Value {
        json!({
            "model": "gemma3", "prompt": "p", "suffix": "s", "system": "y", "template": "t", "context": [1, 2], "images": ["aGk="],
            "format": {"type": "object"}, "options": {"temperature": 0.1, "new_option": 1}, "raw": false, "think": "high", "keep_alive": "5m",
            "truncate": false, "stream": true, "priority": "high", "deadline_ms": 1500, "session": "s1", "cache": "refresh", "fallback": ["a", "b"],
            "detach": true,
        })
    }

    #[test]
    fn every_field_arrives() {
        let draft = parse(&full()).expect("valid");
        assert_eq!(draft.model.map(|m| m.to_string()).as_deref(), Some("gemma3"));
        assert_eq!(draft.ask.prompt.context, [1, 2]);
        assert_eq!(draft.ask.options.temperature, Some(0.1));
        assert_eq!(draft.ask.options.extra["new_option"], 1);
        assert_eq!(draft.ask.think, Some(Think::Effort(Effort::High)));
        assert_eq!(draft.deadline, Some(Duration::from_millis(1500)));
        assert!(draft.streamed);
        assert_eq!((draft.control.priority, draft.control.cache), (Some(Priority::High), Some(CacheMode::Refresh)));
        assert!(matches!(draft.control.fallback, Some(Fallback::Models(models)) if models.len() == 2));
        assert!(draft.ask.extra.is_empty(), "{:?}", draft.ask.extra);
    }

    #[test]
    fn the_document_lists_exactly_the_fields_that_are_read() {
        let schema = serde_json::to_value(GenerateRequest::schema()).expect("serialises");
        let documented: std::collections::BTreeSet<String> = schema["properties"].as_object().expect("an object").keys().cloned().collect();
        let read: std::collections::BTreeSet<String> = full().as_object().expect("an object").keys().cloned().collect();
        assert_eq!(documented, read);
        for field in read {
            let problem = parse(&json!({&field: {"no": "field takes this"}}));
            let takes_objects = ["options", "format"].contains(&field.as_str());
            assert_eq!(problem.is_err(), !takes_objects, "{field}");
        }
    }

    #[test]
    fn a_request_is_collected_unless_it_says_otherwise_in_whatever_words() {
        let may = |values: &[&'static str]| {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append(COLLECT, HeaderValue::from_static(value));
            }
            may_collect(&headers)
        };
        assert!(may(&[]) && may(&["yes"]) && may(&[" Yes "]));
        for refusal in ["no", "NO", "false", "0", "never", "", "yes, no"] {
            assert!(!may(&[refusal]) && !may(&["yes", refusal]), "{refusal}");
        }
    }

    #[test]
    fn unknown_fields_travel() {
        let draft = parse(&json!({"prompt": "p", "logprobs": true, "future": {"a": 1}})).expect("valid");
        assert_eq!(Value::Object(draft.ask.extra), json!({"logprobs": true, "future": {"a": 1}}));
    }

    #[test]
    fn wrong_fields_are_named_with_what_they_take() {
        for (body, field) in [
            (json!({"model": ""}), "model"),
            (json!({"model": 5}), "model"),
            (json!({"prompt": ["x"]}), "prompt"),
            (json!({"context": [-1]}), "context"),
            (json!({"images": ["data:image/png;base64,aGk="]}), "images"),
            (json!({"format": "xml"}), "format"),
            (json!({"options": []}), "options"),
            (json!({"options": {"temperature": -1}}), "options.temperature"),
            (json!({"raw": true, "system": "x"}), "raw"),
            (json!({"think": "maybe"}), "think"),
            (json!({"keep_alive": "5"}), "keep_alive"),
            (json!({"keep_alive": {}}), "keep_alive"),
            (json!({"deadline_ms": 0}), "deadline_ms"),
            (json!({"deadline_ms": -1}), "deadline_ms"),
            (json!({"priority": "highest"}), "priority"),
            (json!({"session": ""}), "session"),
            (json!({"cache": "yes"}), "cache"),
            (json!({"fallback": [""]}), "fallback"),
        ] {
            let problem = parse(&body).expect_err("must be refused");
            assert_eq!((problem.status, problem.errors[0].field.as_str()), (422, field), "{body}");
        }
    }

    #[test]
    fn bodies_that_are_no_object_are_refused() {
        let deep = "[".repeat(100_000);
        for body in [&b""[..], b"  ", b"{", b"[]", b"null", b"\"x\"", b"{\"prompt\": NaN}", b"\xff\xfe", b"{\"a\":1}}", deep.as_bytes()] {
            let who = Arc::new(Principal::anonymous(Role::User));
            let problem = draft(RequestId::generate(), who, body, false).expect_err("must be refused");
            assert_eq!((problem.code, problem.status), ("malformed_body", 400));
            assert!(problem.detail.len() < 300);
        }
    }

    #[test]
    fn durations_are_those_of_go() {
        for good in ["5m", "1h30m", "-1s", "1.5h", "0", "250ms", "+10s"] {
            assert!(is_go_duration(good), "{good}");
        }
        for bad in ["", "5", "m", "5 m", "1.2.3s", "5x", "-"] {
            assert!(!is_go_duration(bad), "{bad}");
        }
    }
}
