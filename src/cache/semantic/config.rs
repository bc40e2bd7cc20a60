//! How the semantic cache is set up.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Where it holds, and its bounds.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// The model that turns prompts into vectors, of any backend. Without one there is no semantic cache.
    pub model: Option<String>,
    /// Where it holds. Nowhere, unless said.
    pub routes: Vec<Route>,
    /// Patterns of the models whose answers are kept.
    pub models: Vec<String>,
    /// Similarity (cosine) that a hit needs at first, and below which it never goes.
    pub threshold: f32,
    /// Share of false hits, among those checked, beyond which the threshold rises.
    pub false_hit_budget: f64,
    /// Share of hits that are checked against a real generation.
    pub check_share: f64,
    /// Longest prompt that is looked up, in bytes.
    pub max_prompt_bytes: usize,
    /// Answers kept for one scope.
    pub max_entries_per_scope: usize,
    /// Size of everything kept, in bytes.
    pub max_bytes: usize,
    /// How long an answer is kept.
    #[serde(with = "crate::domain::span")]
    pub ttl: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            model: None,
            routes: Vec::new(),
            models: vec!["*".to_owned()],
            threshold: 0.95,
            false_hit_budget: 0.005,
            check_share: 0.05,
            max_prompt_bytes: 2048,
            max_entries_per_scope: 1000,
            max_bytes: 64 * 1024 * 1024,
            ttl: Duration::from_hours(1),
        }
    }
}

impl Config {
    /// What is wrong beyond types, by key.
    #[must_use]
    pub fn check(&self) -> Vec<(&'static str, String)> {
        let shares =
            [("threshold", f64::from(self.threshold)), ("false_hit_budget", self.false_hit_budget), ("check_share", self.check_share)];
        let wrong = shares.into_iter().filter(|(_, value)| !(0.0..=1.0).contains(value));
        wrong.map(|(key, value)| (key, format!("is {value}, but must be a share from 0 to 1"))).collect()
    }
}

/// A way to ask for an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Route {
    Generate,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_from_nothing_to_all() {
        assert_eq!(Config::default().check(), []);
        let config = Config { threshold: f32::NAN, false_hit_budget: -0.1, check_share: 1.5, ..Config::default() };
        let keys: Vec<_> = config.check().into_iter().map(|(key, _)| key).collect();
        assert_eq!(keys, ["threshold", "false_hit_budget", "check_share"]);
    }
}
