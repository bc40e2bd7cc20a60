//! Requests as Go binds them to its structs: keys in any case, `null` as unset, types checked in the order of the document.

use super::gojson::type_name;
use serde_json::{Map, Value};

/// What a field of a request struct takes.
#[derive(Clone, Copy)]
pub(super) enum Kind {
    Text,
    Flag,
    Int,
    Ints,
    Any,
    Object,
    Images,
    Messages,
    Tools,
    Think,
    KeepAlive,
    ToolCalls,
}

type Fields = &'static [(&'static str, Kind)];

pub(super) const GENERATE: Fields = &[
    ("model", Kind::Text),
    ("prompt", Kind::Text),
    ("suffix", Kind::Text),
    ("system", Kind::Text),
    ("template", Kind::Text),
    ("context", Kind::Ints),
    ("stream", Kind::Flag),
    ("raw", Kind::Flag),
    ("format", Kind::Any),
    ("keep_alive", Kind::KeepAlive),
    ("images", Kind::Images),
    ("options", Kind::Object),
    ("think", Kind::Think),
    ("truncate", Kind::Flag),
    ("shift", Kind::Flag),
    ("_debug_render_only", Kind::Flag),
    ("logprobs", Kind::Flag),
    ("top_logprobs", Kind::Int),
];

pub(super) const CHAT: Fields = &[
    ("model", Kind::Text),
    ("messages", Kind::Messages),
    ("stream", Kind::Flag),
    ("format", Kind::Any),
    ("keep_alive", Kind::KeepAlive),
    ("tools", Kind::Tools),
    ("options", Kind::Object),
    ("think", Kind::Think),
    ("truncate", Kind::Flag),
    ("shift", Kind::Flag),
    ("_debug_render_only", Kind::Flag),
    ("logprobs", Kind::Flag),
    ("top_logprobs", Kind::Int),
];

const MESSAGE: Fields = &[
    ("role", Kind::Text),
    ("content", Kind::Text),
    ("thinking", Kind::Text),
    ("images", Kind::Images),
    ("tool_calls", Kind::ToolCalls),
    ("tool_name", Kind::Text),
    ("tool_call_id", Kind::Text),
];

pub(super) const EMBED: Fields = &[
    ("model", Kind::Text),
    ("input", Kind::Any),
    ("keep_alive", Kind::KeepAlive),
    ("truncate", Kind::Flag),
    ("dimensions", Kind::Int),
    ("options", Kind::Object),
];

pub(super) const EMBEDDINGS: Fields =
    &[("model", Kind::Text), ("prompt", Kind::Text), ("keep_alive", Kind::KeepAlive), ("options", Kind::Object)];

pub(super) const SHOW: Fields = &[
    ("model", Kind::Text),
    ("name", Kind::Text),
    ("system", Kind::Text),
    ("template", Kind::Text),
    ("verbose", Kind::Flag),
    ("options", Kind::Object),
];

pub(super) const COPY: Fields = &[("source", Kind::Text), ("destination", Kind::Text)];

pub(super) const DELETE: Fields = &[("model", Kind::Text), ("name", Kind::Text)];

pub(super) const CREATE: Fields = &[
    ("model", Kind::Text),
    ("name", Kind::Text),
    ("stream", Kind::Flag),
    ("quantize", Kind::Text),
    ("from", Kind::Text),
    ("files", Kind::Object),
    ("adapters", Kind::Object),
    ("template", Kind::Text),
    ("license", Kind::Any),
    ("system", Kind::Text),
    ("parameters", Kind::Object),
    ("messages", Kind::Messages),
];

/// A bound request: the known fields that are set, under their canonical names.
#[derive(Debug, Clone, Default)]
pub(super) struct Bound(Map<String, Value>);

impl Bound {
    pub fn get(&self, key: &str) -> Option<&Value> {
        self.0.get(key)
    }

    pub fn text(&self, key: &str) -> &str {
        self.get(key).and_then(Value::as_str).unwrap_or("")
    }

    pub fn flag(&self, key: &str) -> Option<bool> {
        self.get(key).and_then(Value::as_bool)
    }

    pub fn list(&self, key: &str) -> &[Value] {
        self.get(key).and_then(Value::as_array).map_or(&[], Vec::as_slice)
    }
}

/// Binds a body to a struct, or says what Go says.
pub(super) fn bind(name: &str, fields: Fields, value: Value) -> Result<Bound, String> {
    match value {
        Value::Null => Ok(Bound::default()),
        Value::Object(map) => Binder { root: name, path: String::new() }.object(fields, map).map(Bound),
        other => Err(format!("json: cannot unmarshal {} into Go value of type api.{name}", type_name(&other))),
    }
}

struct Binder<'a> {
    root: &'a str,
    path: String,
}

impl Binder<'_> {
    fn object(&self, fields: Fields, map: Map<String, Value>) -> Result<Map<String, Value>, String> {
        let mut bound = Map::new();
        for (key, value) in map {
            let Some((name, kind)) = fields.iter().find(|(name, _)| name.eq_ignore_ascii_case(&key)) else { continue };
            if value.is_null() {
                bound.shift_remove(*name);
                continue;
            }
            let value = self.field(name, *kind, value)?;
            bound.insert((*name).to_owned(), value);
        }
        Ok(bound)
    }

    fn field(&self, name: &str, kind: Kind, value: Value) -> Result<Value, String> {
        match (kind, &value) {
            (Kind::Text, Value::String(_))
            | (Kind::Flag, Value::Bool(_))
            | (Kind::Object, Value::Object(_))
            | (Kind::Tools, Value::Array(_))
            | (Kind::Any, _) => Ok(value),
            (Kind::Int, Value::Number(n)) if n.is_i64() => Ok(value),
            (Kind::Ints, Value::Array(items)) => match items.iter().find(|item| !item.is_i64()) {
                Some(item) => Err(self.wrong(name, "int", item)),
                None => Ok(value),
            },
            (Kind::Images, Value::Array(items)) => items.iter().try_for_each(|item| self.image(name, item)).map(|()| value),
            (Kind::ToolCalls, Value::Array(calls)) => tool_calls(calls).map(|()| value),
            (Kind::Messages, Value::Array(items)) => items.iter().map(|item| self.message(name, item)).collect(),
            (Kind::Think, _) => think(&value).map(|()| value),
            (Kind::KeepAlive, _) => super::options::keep_alive(&value).map(|_| value),
            (kind, _) => Err(self.wrong(name, kind.go_type(), &value)),
        }
    }

    fn wrong(&self, name: &str, go_type: &str, value: &Value) -> String {
        let (root, path) = (self.root, &self.path);
        format!("json: cannot unmarshal {} into Go struct field {root}.{path}{name} of type {go_type}", type_name(value))
    }

    fn message(&self, name: &str, item: &Value) -> Result<Value, String> {
        let Value::Object(map) = item else { return Err(self.wrong(name, "api.Message", item)) };
        let inner = Binder { root: self.root, path: format!("{}{name}.", self.path) };
        inner.object(MESSAGE, map.clone()).map(Value::Object)
    }

    fn image(&self, name: &str, item: &Value) -> Result<(), String> {
        let Value::String(text) = item else { return Err(self.wrong(name, "api.ImageData", item)) };
        match illegal_base64(text) {
            Some(at) => Err(format!("illegal base64 data at input byte {at}")),
            None => Ok(()),
        }
    }
}

impl Kind {
    fn go_type(self) -> &'static str {
        match self {
            Self::Text => "string",
            Self::Flag => "bool",
            Self::Int => "int",
            Self::Ints => "[]int",
            Self::Object => "map[string]interface {}",
            Self::Images => "[]api.ImageData",
            Self::Messages => "[]api.Message",
            Self::Tools => "api.Tools",
            Self::ToolCalls => "[]api.ToolCall",
            Self::Any | Self::Think | Self::KeepAlive => "interface {}",
        }
    }
}

fn think(value: &Value) -> Result<(), String> {
    match value {
        Value::Bool(_) => Ok(()),
        Value::String(word) if matches!(word.as_str(), "high" | "medium" | "low" | "max") => Ok(()),
        Value::String(word) => {
            Err(format!("invalid think value: {word:?} (must be \"high\", \"medium\", \"low\", \"max\", true, or false)"))
        }
        _ => Err("think must be a boolean or string (\"high\", \"medium\", \"low\", \"max\", true, or false)".to_owned()),
    }
}

/// Arguments of a call must be an object; a string is what Go's ordered map stumbles over.
fn tool_calls(calls: &[Value]) -> Result<(), String> {
    let spelled = |call: &Value| call.pointer("/function/arguments").is_some_and(Value::is_string);
    if calls.iter().any(spelled) {
        return Err("Value looks like object, but can't find closing '}' symbol".to_owned());
    }
    Ok(())
}

/// Where padded standard base64 goes wrong, if it does.
fn illegal_base64(text: &str) -> Option<usize> {
    let body = text.trim_end_matches('=');
    let strange = body.bytes().position(|b| !(b.is_ascii_alphanumeric() || matches!(b, b'+' | b'/' | b'\n' | b'\r')));
    strange.or_else(|| (!text.len().is_multiple_of(4) || text.len() - body.len() > 2).then_some(text.len()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn keys_match_in_any_case_and_null_is_unset() {
        let bound = bind("GenerateRequest", GENERATE, json!({"MODEL": "a", "Prompt": null, "future": 1})).expect("binds");
        assert_eq!(bound.text("model"), "a");
        assert!(bound.get("prompt").is_none() && bound.get("future").is_none());
    }

    #[test]
    fn wrong_types_are_told_in_the_words_of_go() {
        let told = |value| bind("ChatRequest", CHAT, value).expect_err("wrong type");
        assert_eq!(
            told(json!({"messages": [{"content": []}]})),
            "json: cannot unmarshal array into Go struct field ChatRequest.messages.content of type string"
        );
        assert_eq!(told(json!([])), "json: cannot unmarshal array into Go value of type api.ChatRequest");
        assert_eq!(told(json!({"messages": [{"images": ["data:x"]}]})), "illegal base64 data at input byte 4");
    }
}
