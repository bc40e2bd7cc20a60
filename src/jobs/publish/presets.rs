//! What a model is for: parameters and a system text to begin with, for those who do not want to choose each.
//!
//! Starting points, not truths: everything given explicitly wins. Models whose makers recommend other values should get those.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::Manifest;

/// A use of a model.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Preset {
    /// Talks with people.
    Assistant,
    /// Writes and changes programs.
    Coder,
    /// Draws facts out of texts, in a form machines read.
    Extractor,
    /// Continues texts: a base model, or one that brings everything itself.
    Raw,
}

impl Preset {
    pub const ALL: [Self; 4] = [Self::Assistant, Self::Coder, Self::Extractor, Self::Raw];

    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Assistant => "assistant",
            Self::Coder => "coder",
            Self::Extractor => "extractor",
            Self::Raw => "raw",
        }
    }

    /// The system text. A raw model has none.
    #[must_use]
    pub fn system(self) -> Option<&'static str> {
        match self {
            Self::Assistant => Some(
                "You are a helpful assistant. Answer in the language of the question, briefly unless more is asked for, and say so when you do not know.",
            ),
            Self::Coder => Some(
                "You are a programmer. Give complete code that runs, in the language and style of what you are shown, and explain only what is not plain from it.",
            ),
            Self::Extractor => Some(
                "You extract facts from the text you are given. Answer with nothing but JSON in the form that is asked for. Use null for what the text does not say; never guess.",
            ),
            Self::Raw => None,
        }
    }

    /// The parameters. Low temperatures where one answer is right; room for long inputs where files are read.
    #[must_use]
    pub fn parameters(self) -> Map<String, Value> {
        let parameters = match self {
            Self::Assistant => json!({"temperature": 0.7, "top_p": 0.9, "repeat_penalty": 1.05, "num_ctx": 8192}),
            Self::Coder => json!({"temperature": 0.2, "top_p": 0.95, "repeat_penalty": 1.0, "num_ctx": 16384}),
            Self::Extractor => json!({"temperature": 0.0, "top_k": 1, "repeat_penalty": 1.0, "num_ctx": 8192, "seed": 1}),
            Self::Raw => json!({"temperature": 0.8, "top_p": 0.95, "repeat_penalty": 1.0, "num_predict": 512}),
        };
        if let Value::Object(parameters) = parameters { parameters } else { Map::new() }
    }

    /// Fills in what a manifest does not say. A raw model's template passes the prompt through, so that no chat is made of it.
    pub fn apply(self, manifest: &mut Manifest) {
        for (name, value) in self.parameters() {
            manifest.parameters.entry(name).or_insert(value);
        }
        if manifest.system.is_none() {
            manifest.system = self.system().map(str::to_owned);
        }
        if self == Self::Raw && manifest.template.is_none() {
            manifest.template = Some("{{ .Prompt }}".to_owned());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::id::ModelName;

    #[test]
    fn every_preset_gives_a_manifest_that_can_be_published_and_written_down() {
        for preset in Preset::ALL {
            let mut manifest = Manifest::new(ModelName::parse("m").expect("a name"));
            preset.apply(&mut manifest);
            assert_eq!(manifest.check(), Ok(()), "{preset:?}");
            super::super::modelfile::render(&manifest, "./m.gguf", None).expect("a Modelfile");
            assert_eq!(serde_json::to_value(preset).expect("JSON"), preset.as_str());
        }
    }

    #[test]
    fn what_is_given_wins() {
        let mut manifest = Manifest::new(ModelName::parse("m").expect("a name"));
        manifest.system = Some("Mine.".into());
        manifest.parameters.insert("temperature".into(), json!(1.5));
        Preset::Coder.apply(&mut manifest);
        assert_eq!((manifest.system.as_deref(), &manifest.parameters["temperature"]), (Some("Mine."), &json!(1.5)));
        assert_eq!(manifest.parameters["num_ctx"], 16384);
    }
}
