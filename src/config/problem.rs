//! What is wrong with a configuration, in words a person can act on.
//!
//! One problem is one line: where, which key, what is wrong, what it takes. Values of secret keys are never repeated.

use std::fmt;

use super::decode::{Fault, Kind};
use super::secret;
use super::tree::{Node, Origin, Path};

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The key, e.g. `server.listen`. `None` when the file is not even TOML.
    pub key: Option<String>,
    pub origin: Origin,
    /// What is wrong and what it takes.
    pub what: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.key {
            Some(key) => write!(f, "{}: `{key}` {}", self.origin, self.what),
            None => write!(f, "{}: {}", self.origin, self.what),
        }
    }
}

impl Problem {
    #[must_use]
    pub fn new(key: impl Into<String>, origin: Origin, what: impl Into<String>) -> Self {
        Self { key: Some(key.into()), origin, what: what.into() }
    }

    #[must_use]
    pub fn syntax(origin: Origin, message: &str) -> Self {
        Self { key: None, origin, what: format!("not valid TOML: {}", message.replace('\n', "; ")) }
    }

    /// A fault of decoding, with what the tree and the defaults know about its place.
    #[must_use]
    pub fn of(fault: &Fault, tree: &Node, defaults: &Node, variables: &[&str]) -> Self {
        let path = fault.path();
        let origin = tree.origin_of(&path);
        let what = match &fault.kind {
            Kind::Unknown(expected) => unknown(&path, &origin, expected, defaults, variables),
            Kind::Missing(field) => format!("lacks `{field}`"),
            Kind::Wrong { got, takes } => format!("takes {}, not {}", plain(takes), masked(&path, got)),
            // The type's own words may quote the value.
            Kind::Refused(_) if secret::is_secret(&path) => "has a value that is not accepted".to_owned(),
            Kind::Refused(message) => format!("is not accepted: {message}{}", example(&path, defaults)),
        };
        Self { key: Some(path.to_string()), origin, what }
    }
}

fn masked(path: &Path, got: &str) -> String {
    if secret::is_secret(path) { "the value given".to_owned() } else { secret::without_credentials(got) }
}

/// The default as an example of what a key takes.
fn example(path: &Path, defaults: &Node) -> String {
    use super::tree::Value;
    match defaults.at(path).map(|node| &node.value) {
        Some(Value::Text(text)) if !text.is_empty() => format!("; the default is \"{text}\""),
        Some(Value::Integer(number)) => format!("; the default is {number}"),
        _ => String::new(),
    }
}

/// serde's names of types, in plain words.
fn plain(takes: &str) -> String {
    let range = |least: &str, most: &str| format!("a whole number from {least} to {most}");
    match takes {
        "u8" => range("0", "255"),
        "u16" => range("0", "65535"),
        "u32" => range("0", "4294967295"),
        "u64" | "usize" => "a whole number of at least 0".to_owned(),
        "i8" | "i16" | "i32" | "i64" | "isize" => "a whole number".to_owned(),
        "f32" | "f64" => "a number".to_owned(),
        "a boolean" => "true or false".to_owned(),
        "a string" | "string" | "path string" | "a borrowed string" => "text in quotes".to_owned(),
        "a sequence" => "a list".to_owned(),
        "a map" => "a table".to_owned(),
        "socket address" => "an address with a port such as \"127.0.0.1:8000\"".to_owned(),
        other if other.starts_with("struct ") => "a table".to_owned(),
        other if other.starts_with("a nonzero ") => "a whole number of at least 1".to_owned(),
        other => other.to_owned(),
    }
}

fn unknown(path: &Path, origin: &Origin, expected: &[&str], defaults: &Node, variables: &[&str]) -> String {
    let key = path.last_key().unwrap_or_default();
    let around = path.parent().map(|parent| parent.to_string()).unwrap_or_default();
    let dotted = |name: &str| if around.is_empty() { name.to_owned() } else { format!("{around}.{name}") };
    let elsewhere = defaults.keys().into_iter().find(|known| known.rsplit('.').next() == Some(key));
    let near = nearest(key, expected).map(dotted).or(elsewhere);
    if let Origin::Variable(name) = origin {
        return unknown_variable(name, near, variables);
    }
    match near {
        Some(near) => format!("is unknown; did you mean `{near}`?"),
        None => format!("is unknown; known here: {}", expected.iter().map(|name| dotted(name)).collect::<Vec<_>>().join(", ")),
    }
}

fn unknown_variable(name: &str, near: Option<String>, variables: &[&str]) -> String {
    let short = nearest(name, variables).map(str::to_owned);
    match short.or_else(|| near.map(|key| variable(&key))) {
        Some(near) => format!("is unknown; did you mean ${near}?"),
        None => "is unknown: variables are named like $ARRIERO_SERVER__LISTEN for `server.listen`; unset it".to_owned(),
    }
}

/// The variable that sets a key.
#[must_use]
pub fn variable(key: &str) -> String {
    format!("ARRIERO_{}", key.replace('.', "__").to_ascii_uppercase())
}

/// The known word that a mistyped one most likely means.
#[must_use]
pub fn nearest<'a>(word: &str, known: &[&'a str]) -> Option<&'a str> {
    const ALIKE: f64 = 0.75;
    known
        .iter()
        .map(|candidate| (strsim::normalized_damerau_levenshtein(word, candidate).max(prefix_score(word, candidate)), *candidate))
        .filter(|(score, _)| *score >= ALIKE)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, candidate)| candidate)
}

/// A word that is the start or the end of a known one is close to it, however short.
fn prefix_score(word: &str, candidate: &str) -> f64 {
    let long_enough = word.len() >= 4;
    if long_enough && (candidate.starts_with(word) || candidate.ends_with(word) || word.starts_with(candidate)) { 0.8 } else { 0.0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mistyped_words_find_their_neighbours_and_others_do_not() {
        let known = ["listen", "max_connections", "header_timeout"];
        assert_eq!(nearest("listne", &known), Some("listen"));
        assert_eq!(nearest("connections", &known), Some("max_connections"));
        assert_eq!(nearest("header_timout", &known), Some("header_timeout"));
        assert_eq!(nearest("colour", &known), None);
    }

    #[test]
    fn a_key_names_its_variable() {
        assert_eq!(variable("server.header_timeout"), "ARRIERO_SERVER__HEADER_TIMEOUT");
        assert_eq!(variable("data_dir"), "ARRIERO_DATA_DIR");
    }
}
