//! The effective configuration for people (TOML with the place each value came from) and for programs (JSON). Secrets are masked.

use std::fmt::Write;

use serde_json::{Map, Value, json as json_value};

use super::secret::{self, MASK};
use super::tree::{Path, Step};
use super::{Config, Loaded};

/// The configuration as TOML, each value with `# from …`. Reads back as a configuration file, but for what is masked.
#[must_use]
pub fn toml(loaded: &Loaded) -> String {
    let mut text = String::new();
    if let Value::Object(entries) = values(&loaded.config) {
        table(loaded, &Path::default(), &entries, &mut text);
    }
    text
}

/// `{"config": {…}, "from": {"server.listen": "default", …}}`.
#[must_use]
pub fn json(loaded: &Loaded) -> Value {
    let mut config = values(&loaded.config);
    let mut origins = Map::new();
    mask(&Path::default(), &mut config, &mut |path| {
        origins.insert(path.to_string(), Value::String(loaded.origin(path).to_string()));
    });
    json_value!({ "config": config, "from": origins })
}

fn values(config: &Config) -> Value {
    // Plain data: it serialises.
    serde_json::to_value(config).unwrap_or(Value::Null)
}

/// Masks what is secret and names every value that is no table.
fn mask(path: &Path, value: &mut Value, seen: &mut impl FnMut(&Path)) {
    match value {
        Value::Object(entries) => {
            for (key, value) in entries {
                mask(&path.join(Step::Key(key.clone())), value, seen);
            }
        }
        Value::Array(items) if items.iter().any(Value::is_object) => {
            for (index, value) in items.iter_mut().enumerate() {
                mask(&path.join(Step::Index(index)), value, seen);
            }
        }
        leaf => {
            *leaf = masked(path, leaf);
            seen(path);
        }
    }
}

fn masked(path: &Path, value: &Value) -> Value {
    match value {
        // What is not set is no secret.
        Value::String(text) if text.is_empty() => value.clone(),
        Value::String(_) | Value::Array(_) if secret::is_secret(path) => Value::String(MASK.to_owned()),
        Value::String(text) => Value::String(secret::without_credentials(text)),
        Value::Array(items) => Value::Array(items.iter().map(|item| masked(path, item)).collect()),
        other => other.clone(),
    }
}

/// Plain values first, as TOML demands, then the tables.
fn table(loaded: &Loaded, path: &Path, entries: &Map<String, Value>, text: &mut String) {
    let is_table = |value: &Value| value.is_object() || value.as_array().is_some_and(|items| items.iter().any(Value::is_object));
    for (key, value) in entries.iter().filter(|(_, value)| !is_table(value)) {
        line(loaded, &path.join(Step::Key(key.clone())), key, value, text);
    }
    for (key, value) in entries.iter().filter(|(_, value)| is_table(value)) {
        let path = path.join(Step::Key(key.clone()));
        match value {
            Value::Object(entries) => section(loaded, &path, &format!("[{}]", keys(&path)), entries, text),
            Value::Array(items) => {
                for (index, entries) in items.iter().enumerate().filter_map(|(n, item)| Some((n, item.as_object()?))) {
                    section(loaded, &path.join(Step::Index(index)), &format!("[[{}]]", keys(&path)), entries, text);
                }
            }
            _ => {}
        }
    }
}

fn section(loaded: &Loaded, path: &Path, heading: &str, entries: &Map<String, Value>, text: &mut String) {
    let gap = if text.is_empty() { "" } else { "\n" };
    let _ = writeln!(text, "{gap}{heading}");
    table(loaded, path, entries, text);
}

/// The keys of a path, without the positions in lists, as headings of tables are written.
fn keys(path: &Path) -> String {
    let keys = path.0.iter().filter_map(|step| match step {
        Step::Key(key) => Some(key.as_str()),
        Step::Index(_) => None,
    });
    keys.collect::<Vec<_>>().join(".")
}

fn line(loaded: &Loaded, path: &Path, key: &str, value: &Value, text: &mut String) {
    let written = literal(&masked(path, value));
    let _ = match written {
        Some(written) => writeln!(text, "{key} = {written}  # from {}", loaded.origin(path)),
        None => writeln!(text, "# {key} is not set"),
    };
}

/// A value as TOML. `None` for null, which TOML does not have.
fn literal(value: &Value) -> Option<String> {
    match value {
        Value::Null => None,
        other => toml::Value::try_from(other).ok().map(|value| value.to_string()),
    }
}
