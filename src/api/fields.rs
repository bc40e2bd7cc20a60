//! Fields of a JSON object, taken one by one, so that every wrong one is reported with its name and what it takes.

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};
use utoipa::ToSchema;

use super::problem::Problem;

/// A field that cannot be what it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct FieldProblem {
    /// Name of the field, with a dot before a name inside an object.
    pub field: String,
    /// What the field accepts, in words.
    pub takes: String,
    /// What was given, shortened.
    pub got: String,
}

/// Longest excerpt of a wrong value that is given back, in bytes.
const EXCERPT_BYTES: usize = 64;

/// Reads a body.
///
/// # Errors
/// One that is no JSON object in UTF-8.
pub fn object(body: &[u8]) -> Result<Map<String, Value>, Problem> {
    let malformed = |detail: String| Problem::new("malformed_body", detail);
    if body.iter().all(u8::is_ascii_whitespace) {
        return Err(malformed("the body is empty".into()));
    }
    let text = str::from_utf8(body).map_err(|e| malformed(format!("the body is not UTF-8: the byte at {} is wrong", e.valid_up_to())))?;
    match serde_json::from_str(text) {
        Ok(Value::Object(map)) => Ok(map),
        Ok(_) => Err(malformed("the body is JSON, but not an object".into())),
        Err(error) => Err(malformed(format!("the body is not JSON: {error}"))),
    }
}

/// The fields of a request that are not read yet, and the problems of those that are.
pub struct Fields {
    map: Map<String, Value>,
    problems: Vec<FieldProblem>,
}

impl Fields {
    pub fn new(map: Map<String, Value>) -> Self {
        Self { map, problems: Vec::new() }
    }

    /// Takes a field out. Absent and `null` are the same.
    fn take(&mut self, name: &str) -> Option<Value> {
        self.map.shift_remove(name).filter(|value| !value.is_null())
    }

    /// Notes a problem; `got` is what was given, in words.
    pub fn problem(&mut self, field: impl Into<String>, takes: impl Into<String>, got: impl Into<String>) {
        self.problems.push(FieldProblem { field: field.into(), takes: takes.into(), got: got.into() });
    }

    /// Whether a problem with this field was noted.
    pub fn has_problem_with(&self, field: &str) -> bool {
        self.problems.iter().any(|problem| problem.field == field)
    }

    /// Reads `null` as another value. Without this it is as if the field were left out.
    pub fn take_null_for(&mut self, name: &str, meant: &str) {
        if let Some(value @ Value::Null) = self.map.get_mut(name) {
            *value = Value::from(meant);
        }
    }

    /// Takes a field through `read`; `None` from it means that the value is not what the field takes.
    pub fn read<T>(&mut self, name: &str, takes: &str, read: impl FnOnce(&Value) -> Option<T>) -> Option<T> {
        let value = self.take(name)?;
        let taken = read(&value);
        if taken.is_none() {
            self.problem(name, takes, excerpt(&value));
        }
        taken
    }

    /// Takes a text without copying it.
    pub fn text(&mut self, name: &str) -> Option<String> {
        match self.take(name)? {
            Value::String(text) => Some(text),
            other => {
                self.problem(name, "a string", excerpt(&other));
                None
            }
        }
    }

    pub fn switch(&mut self, name: &str) -> Option<bool> {
        self.read(name, "true or false", Value::as_bool)
    }

    /// Takes a field whose type says by itself what it reads.
    pub fn typed<T: DeserializeOwned>(&mut self, name: &str, takes: &str) -> Option<T> {
        self.read(name, takes, |value| serde_json::from_value(value.clone()).ok())
    }

    /// Takes an object.
    pub fn object(&mut self, name: &str) -> Option<Map<String, Value>> {
        match self.take(name)? {
            Value::Object(map) => Some(map),
            other => {
                self.problem(name, "an object", excerpt(&other));
                None
            }
        }
    }

    /// For bodies in which everything must have been asked for: a field that was misspelt must not be taken for one.
    ///
    /// # Errors
    /// All problems, those of unknown fields included.
    pub fn done(self) -> Result<(), Vec<FieldProblem>> {
        let unknown = |(field, value): (String, Value)| FieldProblem {
            field,
            takes: "nothing: there is no such field".into(),
            got: kind(&value).into(),
        };
        let unknown: Vec<FieldProblem> = self.rest()?.into_iter().map(unknown).collect();
        if unknown.is_empty() { Ok(()) } else { Err(unknown) }
    }

    /// What nobody asked for, when everything that was asked for is right.
    ///
    /// # Errors
    /// All problems, in the order in which they were found.
    pub fn rest(self) -> Result<Map<String, Value>, Vec<FieldProblem>> {
        if self.problems.is_empty() { Ok(self.map) } else { Err(self.problems) }
    }
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "true or false",
        Value::Number(_) => "a number",
        Value::String(_) => "a text",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}

fn excerpt(value: &Value) -> String {
    let mut text = match value {
        Value::Array(list) => format!("a list of {}", list.len()),
        Value::Object(map) => format!("an object of {}", map.len()),
        Value::String(text) if text.len() > EXCERPT_BYTES => format!("\"{}…\"", &text[..text.floor_char_boundary(EXCERPT_BYTES)]),
        other => other.to_string(),
    };
    if text.len() > EXCERPT_BYTES * 2 {
        text.truncate(text.floor_char_boundary(EXCERPT_BYTES * 2));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn fields(value: &Value) -> Fields {
        Fields::new(value.as_object().cloned().unwrap_or_default())
    }

    #[test]
    fn every_wrong_field_is_reported() {
        let mut fields = fields(&json!({"a": 1, "b": "x", "c": null, "d": "kept"}));
        assert_eq!(fields.text("a"), None);
        assert_eq!(fields.switch("b"), None);
        assert_eq!(fields.text("c"), None);
        let problems = fields.rest().expect_err("two are wrong");
        assert_eq!(problems.iter().map(|p| p.field.as_str()).collect::<Vec<_>>(), ["a", "b"]);
    }

    #[test]
    fn the_rest_is_untouched_and_in_order() {
        let mut fields = fields(&json!({"z": 1, "take": "x", "a": [1]}));
        assert_eq!(fields.text("take").as_deref(), Some("x"));
        assert_eq!(fields.rest().expect("right"), *json!({"z": 1, "a": [1]}).as_object().expect("an object"));
    }

    #[test]
    fn excerpts_are_short_and_cut_between_characters() {
        assert!(excerpt(&Value::from("ä".repeat(1_000_000))).len() < 80);
        assert_eq!(excerpt(&json!([1, 2])), "a list of 2");
    }
}
