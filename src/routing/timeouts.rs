//! How long each stage of a request may take.
//!
//! Connecting, the first answer and silence in an answer have their bounds with each backend (`[[ollama]]`); here are those that
//! belong to the gateway, and tighter ones by model. Nothing here waits: the gateway does.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::domain::id::ModelName;
use crate::domain::principal::matches;

/// Bounds for all models, and for some.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Longest wait for a slot; absent: as long as the deadline allows.
    #[serde(with = "crate::domain::span::option")]
    pub queue: Option<Duration>,
    /// Longest time until a model is loaded.
    #[serde(with = "crate::domain::span")]
    pub load: Duration,
    /// Longest time to the first token of a model that is loaded; absent: the backend's own bound.
    #[serde(with = "crate::domain::span::option")]
    pub ttft: Option<Duration>,
    /// Longest silence between two tokens; absent: the backend's own bound.
    #[serde(with = "crate::domain::span::option")]
    pub between_tokens: Option<Duration>,
    /// Longest time of all stages together; absent: the request's deadline.
    #[serde(with = "crate::domain::span::option")]
    pub total: Option<Duration>,
    /// Other bounds for some models; of those that fit the first one counts.
    pub models: Vec<ForModels>,
}

/// Bounds for the models that a pattern means; what it does not say is as for all.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ForModels {
    /// A model's name; `*` stands for any characters.
    pub model: String,
    #[serde(default, with = "crate::domain::span::option")]
    pub queue: Option<Duration>,
    #[serde(default, with = "crate::domain::span::option")]
    pub load: Option<Duration>,
    #[serde(default, with = "crate::domain::span::option")]
    pub ttft: Option<Duration>,
    #[serde(default, with = "crate::domain::span::option")]
    pub between_tokens: Option<Duration>,
    #[serde(default, with = "crate::domain::span::option")]
    pub total: Option<Duration>,
}

impl Default for Config {
    fn default() -> Self {
        Self { queue: None, load: Duration::from_mins(5), ttft: None, between_tokens: None, total: None, models: Vec::new() }
    }
}

/// The bounds of one request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timeouts {
    pub queue: Option<Duration>,
    pub load: Duration,
    pub first_token: Option<Duration>,
    pub between_tokens: Option<Duration>,
    pub total: Option<Duration>,
}

impl Config {
    /// The bounds for a model.
    #[must_use]
    pub fn of(&self, model: &ModelName) -> Timeouts {
        let own = self.models.iter().find(|row| matches(&row.model, model));
        let pick = |of: fn(&ForModels) -> Option<Duration>, all: Option<Duration>| own.and_then(of).or(all);
        Timeouts {
            queue: pick(|row| row.queue, self.queue),
            load: own.and_then(|row| row.load).unwrap_or(self.load),
            first_token: pick(|row| row.ttft, self.ttft),
            between_tokens: pick(|row| row.between_tokens, self.between_tokens),
            total: pick(|row| row.total, self.total),
        }
    }
}

impl Timeouts {
    /// The longest time to the first token of an attempt, loading included where the model is not loaded.
    #[must_use]
    pub fn until_first_token(&self, loaded: bool) -> Option<Duration> {
        self.first_token.map(|bound| if loaded { bound } else { bound.saturating_add(self.load) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_pattern_that_fits_says_what_it_says_and_no_more() {
        let row = |model: &str, total| ForModels {
            model: model.to_owned(),
            queue: None,
            load: None,
            ttft: None,
            between_tokens: None,
            total: Some(Duration::from_secs(total)),
        };
        let config = Config { ttft: Some(Duration::from_secs(9)), models: vec![row("big:*", 1), row("*", 2)], ..Config::default() };
        let of = |name: &str| config.of(&ModelName::parse(name).expect("valid"));
        assert_eq!(of("big:70b").total, Some(Duration::from_secs(1)));
        assert_eq!(of("small").total, Some(Duration::from_secs(2)));
        assert_eq!(of("small").first_token, Some(Duration::from_secs(9)));
        assert_eq!(of("small").until_first_token(true), Some(Duration::from_secs(9)));
        assert_eq!(of("small").until_first_token(false), Some(Duration::from_secs(309)));
        assert_eq!(Config::default().of(&ModelName::parse("x").expect("valid")).until_first_token(true), None);
    }
}
