//! `options` and `keep_alive`: which types they take, which of them belong to the runner, and how Go reads a duration.

use super::script::{Model, Script};
use serde_json::{Map, Value};
use std::time::Duration;

/// How long a runner stays after its last request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Life {
    For(Duration),
    Forever,
}

/// Reads a `keep_alive` value.
pub(super) fn keep_alive(value: &Value) -> Result<Life, String> {
    match value {
        Value::Number(number) => Ok(seconds(number.as_f64().unwrap_or(0.0))),
        Value::String(text) => go_duration(text).map(seconds),
        Value::Bool(_) => Err("Unsupported type: 'bool'".to_owned()),
        Value::Array(_) => Err("Unsupported type: '[]interface {}'".to_owned()),
        _ => Err("Unsupported type: 'map[string]interface {}'".to_owned()),
    }
}

fn seconds(value: f64) -> Life {
    if value < 0.0 { Life::Forever } else { Duration::try_from_secs_f64(value).map_or(Life::Forever, Life::For) }
}

/// `1h30m`, `-1s`, `0` in seconds.
fn go_duration(text: &str) -> Result<f64, String> {
    let invalid = || format!("time: invalid duration {text:?}");
    let (sign, mut rest) = match text.strip_prefix('-') {
        Some(rest) => (-1.0, rest),
        None => (1.0, text.strip_prefix('+').unwrap_or(text)),
    };
    if rest == "0" {
        return Ok(0.0);
    }
    if rest.is_empty() {
        return Err(invalid());
    }
    let mut total = 0.0;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
        let number: f64 = rest[..digits].parse().map_err(|_| invalid())?;
        rest = &rest[digits..];
        let letters = rest.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(rest.len());
        let unit = match &rest[..letters] {
            "ns" => 1e-9,
            "us" | "µs" => 1e-6,
            "ms" => 1e-3,
            "s" => 1.0,
            "m" => 60.0,
            "h" => 3_600.0,
            "" => return Err(format!("time: missing unit in duration {text:?}")),
            other => return Err(format!("time: unknown unit {other:?} in duration {text:?}")),
        };
        total += number * unit;
        rest = &rest[letters..];
    }
    Ok(sign * total)
}

/// What identifies a loaded runner beside its weights: a request that differs in any of these costs a reload.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Shape {
    pub num_ctx: u32,
    pub shift: bool,
    others: Vec<Option<Value>>,
}

/// The options that matter to a fake.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Options {
    pub shape: Shape,
    /// Below 1: no limit.
    pub num_predict: i64,
    pub num_keep: usize,
    pub seed: i64,
    pub stop: Vec<String>,
}

const INTEGERS: [&str; 11] = [
    "num_keep",
    "seed",
    "num_predict",
    "top_k",
    "repeat_last_n",
    "num_ctx",
    "num_batch",
    "num_gpu",
    "main_gpu",
    "num_thread",
    "draft_num_predict",
];
const FLOATS: [&str; 7] = ["top_p", "min_p", "typical_p", "temperature", "repeat_penalty", "presence_penalty", "frequency_penalty"];
const RUNNER: [&str; 5] = ["num_batch", "main_gpu", "use_mmap", "num_thread", "draft_num_predict"];

/// Checks types as Ollama does (its answer to a wrong one is a 500) and resolves defaults.
pub(super) fn read(options: &Map<String, Value>, shift: bool, model: &Model, script: &Script) -> Result<Options, String> {
    for (name, value) in options.iter().filter(|(_, value)| !value.is_null()) {
        check(name, value)?;
    }
    // A float where an integer is meant loses its fraction.
    #[expect(clippy::cast_possible_truncation, reason = "Go converts a float64 the same way")]
    let integer = |name: &str| options.get(name).and_then(Value::as_f64).map(|value| value as i64);
    let default_ctx = i64::from(model.num_ctx.unwrap_or(script.num_ctx));
    let num_ctx = integer("num_ctx").unwrap_or(default_ctx).clamp(4, i64::from(model.context_length.max(4)));
    let stop = options
        .get("stop")
        .and_then(Value::as_array)
        .map_or_else(Vec::new, |items| items.iter().filter_map(Value::as_str).map(str::to_owned).collect());
    Ok(Options {
        shape: Shape {
            num_ctx: u32::try_from(num_ctx).unwrap_or(4),
            shift,
            others: RUNNER.iter().map(|name| options.get(*name).filter(|value| !value.is_null()).cloned()).collect(),
        },
        num_predict: integer("num_predict").unwrap_or(-1),
        num_keep: integer("num_keep").and_then(|value| usize::try_from(value).ok()).unwrap_or(4),
        seed: integer("seed").unwrap_or(-1),
        stop,
    })
}

fn check(name: &str, value: &Value) -> Result<(), String> {
    let must = |what: &str| Err(format!("option {name:?} must be of {what}"));
    if INTEGERS.contains(&name) && !value.is_number() {
        return must("type integer");
    }
    if FLOATS.contains(&name) && !value.is_number() {
        return must("type float32");
    }
    if name == "use_mmap" && !value.is_boolean() {
        return must("type boolean");
    }
    match (name, value) {
        ("stop", Value::Array(items)) if !items.iter().all(Value::is_string) => must("an array of strings"),
        ("stop", Value::Array(_)) => Ok(()),
        ("stop", _) => must("type array"),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn keep_alive_takes_what_go_takes() {
        assert_eq!(keep_alive(&json!("1h30m")), Ok(Life::For(Duration::from_mins(90))));
        assert_eq!(keep_alive(&json!(2.5)), Ok(Life::For(Duration::from_millis(2_500))));
        assert_eq!(keep_alive(&json!("0")), Ok(Life::For(Duration::ZERO)));
        assert_eq!(keep_alive(&json!("-1s")), Ok(Life::Forever));
        assert_eq!(keep_alive(&json!(-1)), Ok(Life::Forever));
        assert_eq!(keep_alive(&json!("5")), Err("time: missing unit in duration \"5\"".into()));
        assert_eq!(keep_alive(&json!("abc")), Err("time: invalid duration \"abc\"".into()));
        assert_eq!(keep_alive(&json!("5x")), Err("time: unknown unit \"x\" in duration \"5x\"".into()));
    }

    #[test]
    fn a_shape_changes_with_runner_options_only() {
        let (model, script) = (Model::new("a"), Script::default());
        let shape = |value: Value, shift| read(value.as_object().expect("object"), shift, &model, &script).expect("valid").shape;
        assert_eq!(shape(json!({}), true), shape(json!({"temperature": 1, "num_ctx": 4096, "num_batch": null}), true));
        assert_ne!(shape(json!({}), true), shape(json!({"num_ctx": 2048}), true));
        assert_ne!(shape(json!({}), true), shape(json!({"num_thread": 2}), true));
        assert_ne!(shape(json!({}), true), shape(json!({}), false));
    }
}
