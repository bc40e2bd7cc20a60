//! Identifiers: of a request, and of a model as clients spell it.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// Longest request id taken over from a client, in bytes.
pub const MAX_REQUEST_ID_BYTES: usize = 128;

/// Names one request in logs, answers and upstream calls.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct RequestId(Arc<str>);

impl RequestId {
    /// A fresh id: UUID version 7, so that ids sort by time.
    #[must_use]
    pub fn generate() -> Self {
        let mut text = [0; uuid::fmt::Hyphenated::LENGTH];
        Self((&*uuid::Uuid::now_v7().hyphenated().encode_lower(&mut text)).into())
    }

    /// Takes over the id a client sent, when it is short and made of characters that are safe in a header and a log line.
    #[must_use]
    pub fn from_client(value: &str) -> Option<Self> {
        let fits = !value.is_empty() && value.len() <= MAX_REQUEST_ID_BYTES;
        let safe = value.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.:/+=".contains(&b));
        (fits && safe).then(|| Self(value.into()))
    }

    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Longest model name that is taken from a client, in bytes.
pub const MAX_MODEL_NAME_BYTES: usize = 512;

/// The part of a name that Ollama fills in when it is left out.
const DEFAULT_TAG: &str = "latest";
const DEFAULT_HOST: &str = "registry.ollama.ai/";
const DEFAULT_NAMESPACE: &str = "library/";

/// A model's name, comparable the way Ollama compares: case does not matter, `x` is `x:latest`, the default registry and
/// namespace may be written or not.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ModelName {
    spelled: Arc<str>,
    canonical: Arc<str>,
}

/// Why a string is no model name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ModelNameError {
    #[error("a model name cannot be empty")]
    Empty,
    #[error("a model name has at most {MAX_MODEL_NAME_BYTES} bytes, this one has {0}")]
    TooLong(usize),
    #[error("a model name cannot contain the character {0:?}")]
    Character(char),
}

impl ModelName {
    /// # Errors
    /// When the string is empty, too long, or holds blanks or control characters.
    pub fn parse(value: &str) -> Result<Self, ModelNameError> {
        let value = value.trim();
        if value.is_empty() {
            return Err(ModelNameError::Empty);
        }
        if value.len() > MAX_MODEL_NAME_BYTES {
            return Err(ModelNameError::TooLong(value.len()));
        }
        if let Some(bad) = value.chars().find(|c| c.is_whitespace() || c.is_control()) {
            return Err(ModelNameError::Character(bad));
        }
        Ok(Self { spelled: value.into(), canonical: canonical(value).into() })
    }

    /// As it was written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.spelled
    }

    /// The one spelling under which all spellings of a model compare equal.
    #[must_use]
    pub fn canonical(&self) -> &str {
        &self.canonical
    }
}

fn canonical(spelled: &str) -> String {
    let lower = spelled.to_ascii_lowercase();
    let name = lower.strip_prefix(DEFAULT_HOST).unwrap_or(&lower);
    let name = name.strip_prefix(DEFAULT_NAMESPACE).unwrap_or(name);
    let last_segment = name.rsplit('/').next().unwrap_or(name);
    if last_segment.contains(':') { name.to_owned() } else { format!("{name}:{DEFAULT_TAG}") }
}

impl TryFrom<String> for ModelName {
    type Error = ModelNameError;

    fn try_from(value: String) -> Result<Self, ModelNameError> {
        Self::parse(&value)
    }
}

impl From<ModelName> for String {
    fn from(name: ModelName) -> Self {
        name.spelled.as_ref().to_owned()
    }
}

impl PartialEq for ModelName {
    fn eq(&self, other: &Self) -> bool {
        self.canonical == other.canonical
    }
}

impl Eq for ModelName {}

impl fmt::Display for ModelName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.spelled)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_spellings_of_a_model_are_one() {
        let canonical = |name: &str| ModelName::parse(name).map(|n| n.canonical().to_owned());
        for name in ["gemma3", "Gemma3:latest", "library/gemma3", "registry.ollama.ai/library/gemma3:LATEST"] {
            assert_eq!(canonical(name).as_deref(), Ok("gemma3:latest"), "{name}");
        }
        assert_eq!(canonical("hf.co/a/b").as_deref(), Ok("hf.co/a/b:latest"));
        assert_eq!(canonical("localhost:5000/a/b").as_deref(), Ok("localhost:5000/a/b:latest"));
    }

    #[test]
    fn names_that_cannot_be_are_refused() {
        assert_eq!(ModelName::parse("  "), Err(ModelNameError::Empty));
        assert_eq!(ModelName::parse("a b"), Err(ModelNameError::Character(' ')));
        assert_eq!(ModelName::parse("a\u{0}b"), Err(ModelNameError::Character('\0')));
        assert_eq!(ModelName::parse(&"x".repeat(513)), Err(ModelNameError::TooLong(513)));
    }

    #[test]
    fn request_ids_of_clients_are_taken_only_when_harmless() {
        assert!(RequestId::from_client("req-1.a_B:2").is_some());
        for bad in ["", "a b", "a\r\nb", "ü", &"x".repeat(129)] {
            assert!(RequestId::from_client(bad).is_none(), "{bad:?}");
        }
    }
}
