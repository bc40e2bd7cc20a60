//! Who is asked for what, as people and programs write it.

use serde::{Deserialize, Serialize};

use crate::jobs::dataset::error::Error;

/// A model that writes answers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Teacher {
    /// As the gateway calls it; or a file: `ollama:TAG`, `artifact:JOB/NAME`, or a path that ends in `.gguf`.
    pub model: String,
    #[serde(default)]
    pub answers: Answers,
    /// Most tokens of an answer; longer ones are left out.
    #[serde(default = "max_tokens")]
    pub max_tokens: u32,
    /// 0: the likeliest answer.
    #[serde(default)]
    pub temperature: f64,
    #[serde(default)]
    pub seed: u64,
}

/// Which answers are had from it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Answers {
    /// Those that rows do not have.
    #[default]
    Missing,
    /// The last one of every conversation, in the place of the row's own.
    All,
}

/// More than any model reads at a time.
const MOST_TOKENS: u32 = 1 << 20;

fn max_tokens() -> u32 {
    512
}

impl Teacher {
    #[must_use]
    pub fn new(model: impl Into<String>) -> Self {
        Self { model: model.into(), answers: Answers::default(), max_tokens: max_tokens(), temperature: 0.0, seed: 0 }
    }

    /// Whether it is run in this process.
    #[must_use]
    pub fn is_file(&self) -> bool {
        let is_gguf = std::path::Path::new(&self.model).extension().is_some_and(|ending| ending.eq_ignore_ascii_case("gguf"));
        self.model.starts_with("ollama:") || self.model.starts_with("artifact:") || is_gguf
    }

    /// # Errors
    /// What makes no sense.
    pub fn validate(&self) -> Result<(), Error> {
        let wrong = |why: &str| Err(Error::Options(format!("`teacher`: {why}")));
        if self.model.trim().is_empty() || self.model.len() > 1_024 || self.model.chars().any(char::is_control) {
            return wrong("`model` names a model of the gateway, or a GGUF file");
        }
        if self.model.starts_with("hf:") {
            return wrong("models on the Hub are not fetched to be asked: name a model of the gateway, a GGUF file or `ollama:TAG`");
        }
        if self.max_tokens == 0 || self.max_tokens > MOST_TOKENS {
            return wrong("`max_tokens` is from 1 to 1048576");
        }
        if !(0.0..=5.0).contains(&self.temperature) {
            return wrong("`temperature` is from 0 to 5");
        }
        if self.is_file() && self.temperature > 0.0 {
            return wrong("a file gives its likeliest answer: `temperature` is for models of a gateway");
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn read(change: &Value) -> Result<Teacher, String> {
        let mut all = json!({"model": "m"});
        for (key, value) in change.as_object().expect("an object") {
            all[key] = value.clone();
        }
        let teacher: Teacher = serde_json::from_value(all).map_err(|error| error.to_string())?;
        teacher.validate().map_err(|error| error.to_string())?;
        Ok(teacher)
    }

    #[test]
    fn what_is_not_said_is_as_usual_and_what_makes_no_sense_is_refused() {
        assert_eq!(read(&json!({})), Ok(Teacher::new("m")));
        for (change, word) in [
            (json!({"model": " "}), "`model`"),
            (json!({"model": "a\nb"}), "`model`"),
            (json!({"model": "hf:o/n"}), "Hub"),
            (json!({"max_tokens": 0}), "max_tokens"),
            (json!({"temperature": -1}), "temperature"),
            (json!({"temperature": 0.5, "model": "t.gguf"}), "likeliest"),
            (json!({"url": "http://x"}), "unknown field"),
            (json!({"answers": "some"}), "unknown variant"),
        ] {
            let wrong = read(&change).expect_err("wrong");
            assert!(wrong.contains(word), "{change}: {wrong}");
        }
    }

    #[test]
    fn files_are_told_from_models_by_their_names() {
        for name in ["ollama:gemma3", "artifact:j/m", "models/a.GGUF"] {
            assert!(Teacher::new(name).is_file(), "{name}");
        }
        for name in ["gemma3:270m", "hf.co/o/n-GGUF:Q4_K_M", "gguf"] {
            assert!(!Teacher::new(name).is_file(), "{name}");
        }
    }
}
