//! What a published model is beside its weights: its name, its texts and its parameters. Checked before anything is sent.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::backends::ollama::shelf::{Message, UNFINISHED};
use crate::domain::id::ModelName;
use crate::domain::options::{OptionError, Options};

/// Longest part of a name, in bytes; the host may be longer.
const MAX_PART_BYTES: usize = 80;
const MAX_HOST_BYTES: usize = 350;
/// All texts together.
const MAX_TEXT_BYTES: usize = 8 * 1024 * 1024;
const MAX_MESSAGES: usize = 1024;
const MAX_LICENSES: usize = 64;

/// What a model is published as. What is not given is left to the server, which looks into the file (for the chat template above all).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    pub name: ModelName,
    /// As in the `options` of a request.
    #[serde(default)]
    pub parameters: Map<String, Value>,
    #[serde(default)]
    pub system: Option<String>,
    /// A Go template. Leave it out unless the model's own is wrong.
    #[serde(default)]
    pub template: Option<String>,
    #[serde(default)]
    pub license: Vec<String>,
    /// What every conversation begins with.
    #[serde(default)]
    pub messages: Vec<Message>,
}

/// Why a manifest cannot be published.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ManifestError {
    #[error("`{name}` cannot be the name of a published model: {why}")]
    Name { name: String, why: &'static str },
    #[error(transparent)]
    Parameter(#[from] OptionError),
    #[error("there is no parameter `{name}`: see docs/publishing.md for those there are")]
    UnknownParameter { name: String },
    #[error("the texts have {bytes} bytes together, at most {MAX_TEXT_BYTES} are published")]
    TooLong { bytes: usize },
    #[error("there are {count} {what}, at most {most} are published")]
    TooMany { what: &'static str, count: usize, most: usize },
    #[error("the {what} holds a NUL character, which no server takes")]
    Nul { what: &'static str },
}

impl Manifest {
    /// Nothing but a name.
    #[must_use]
    pub fn new(name: ModelName) -> Self {
        Self { name, parameters: Map::new(), system: None, template: None, license: Vec::new(), messages: Vec::new() }
    }

    /// # Errors
    /// The first thing that no server would take.
    pub fn check(&self) -> Result<(), ManifestError> {
        check_name(self.name.as_str()).map_err(|why| ManifestError::Name { name: self.name.as_str().to_owned(), why })?;
        let options = Options::parse(self.parameters.clone())?;
        if let Some(name) = options.extra.keys().next() {
            return Err(ManifestError::UnknownParameter { name: name.chars().take(80).collect() });
        }
        self.check_counts()?;
        self.check_texts()
    }

    fn check_counts(&self) -> Result<(), ManifestError> {
        let few = |what, count, most| if count > most { Err(ManifestError::TooMany { what, count, most }) } else { Ok(()) };
        few("messages", self.messages.len(), MAX_MESSAGES)?;
        few("licences", self.license.len(), MAX_LICENSES)
    }

    fn check_texts(&self) -> Result<(), ManifestError> {
        let texts = self.texts();
        let bytes = texts.iter().map(|(_, text)| text.len()).sum();
        if bytes > MAX_TEXT_BYTES {
            return Err(ManifestError::TooLong { bytes });
        }
        let nul = texts.into_iter().find(|(_, text)| text.contains('\0'));
        nul.map_or(Ok(()), |(what, _)| Err(ManifestError::Nul { what }))
    }

    fn texts(&self) -> Vec<(&'static str, &str)> {
        let single = [("system text", &self.system), ("template", &self.template)];
        let single = single.into_iter().filter_map(|(what, text)| Some((what, text.as_deref()?)));
        let licenses = self.license.iter().map(|text| ("licence", text.as_str()));
        single.chain(licenses).chain(self.messages.iter().map(|message| ("message", message.content.as_str()))).collect()
    }
}

/// Ollama's rule for `host/namespace/model:tag`, of which all but the model may be left out.
fn check_name(name: &str) -> Result<(), &'static str> {
    let (path, tag) = match name.rsplit_once(':') {
        Some((path, tag)) if !tag.contains('/') => (path, Some(tag)),
        _ => (name, None),
    };
    let mut parts = path.split('/').rev();
    part(parts.next().unwrap_or_default(), MAX_PART_BYTES, b"_-.")?;
    tag.map_or(Ok(()), |tag| part(tag, MAX_PART_BYTES, b"_-."))?;
    parts.next().map_or(Ok(()), |namespace| part(namespace, MAX_PART_BYTES, b"_-"))?;
    parts.next().map_or(Ok(()), |host| part(host, MAX_HOST_BYTES, b"_-.:"))?;
    if parts.next().is_some() {
        return Err("it has more parts than host/namespace/model:tag");
    }
    let lower = name.to_ascii_lowercase();
    if lower.starts_with(UNFINISHED) {
        return Err("names that begin like this are for models that are being published");
    }
    if lower.ends_with(":cloud") || lower.ends_with("-cloud") {
        return Err("Ollama takes names that end in `cloud` for models of its own service");
    }
    Ok(())
}

fn part(text: &str, max_bytes: usize, also: &[u8]) -> Result<(), &'static str> {
    let first = text.bytes().next().ok_or("a part of it is empty")?;
    if text.len() > max_bytes {
        return Err("a part of it is longer than 80 characters");
    }
    if !first.is_ascii_alphanumeric() && first != b'_' {
        return Err("its parts begin with a letter, a digit or _");
    }
    let plain = text.bytes().all(|b| b.is_ascii_alphanumeric() || also.contains(&b));
    if plain { Ok(()) } else { Err("its parts are made of letters, digits, - and _, and . outside of the namespace") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn named(name: &str) -> Manifest {
        Manifest::new(ModelName::parse(name).expect("a name"))
    }

    #[test]
    fn names_are_those_ollama_takes() {
        for name in ["m", "gemma3:270m", "me/my_model-1.5:q4_K_M", "host.example:5000/me/m:t", "_x"] {
            assert_eq!(named(name).check(), Ok(()), "{name}");
        }
        let long = "x".repeat(81);
        for name in [
            "a/b/c/d",
            ".m",
            "m:",
            ":t",
            "a//b",
            "me.you/m",
            "ü",
            "m:a:b/c",
            "arriero-unfinished/x",
            "m:cloud",
            "m:7b-cloud",
            "m?",
            long.as_str(),
        ] {
            assert!(matches!(named(name).check(), Err(ManifestError::Name { .. })), "{name}");
        }
    }

    #[test]
    fn parameters_are_known_and_in_range() {
        let with = |parameters: Value| Manifest { parameters: parameters.as_object().cloned().unwrap_or_default(), ..named("m") };
        assert_eq!(with(json!({"temperature": 0.3, "stop": ["a", "b"], "num_ctx": 8192})).check(), Ok(()));
        assert!(matches!(with(json!({"temperature": -1})).check(), Err(ManifestError::Parameter(_))));
        assert!(matches!(with(json!({"temprature": 1})).check(), Err(ManifestError::UnknownParameter { .. })));
    }

    #[test]
    fn texts_are_bounded() {
        assert!(matches!(Manifest { license: vec!["x".into(); 65], ..named("m") }.check(), Err(ManifestError::TooMany { .. })));
        assert!(matches!(Manifest { system: Some("x".repeat(9 << 20)), ..named("m") }.check(), Err(ManifestError::TooLong { .. })));
        assert!(matches!(Manifest { template: Some("a\0b".into()), ..named("m") }.check(), Err(ManifestError::Nul { what: "template" })));
    }

    #[test]
    fn misspelt_fields_are_refused() {
        assert!(serde_json::from_value::<Manifest>(json!({"name": "m", "sytem": "x"})).is_err());
        let read: Manifest = serde_json::from_value(json!({"name": "m", "messages": [{"role": "user", "content": "hi"}]})).expect("valid");
        assert_eq!(read.messages.len(), 1);
    }
}
