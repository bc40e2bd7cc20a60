//! How models are published.

use serde::{Deserialize, Serialize};

use crate::backends::ollama::shelf::Patience;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Servers that are given a model at a time.
    pub servers_at_once: usize,
    /// What a new model is asked before it gets its name.
    pub trial_prompt: String,
    /// Most tokens of the answer.
    pub trial_tokens: u32,
    /// Versions of a name that are kept to go back to. Zero: none, and there is no going back.
    pub keep_versions: usize,
    /// How long a server may take.
    pub patience: Patience,
}

impl Default for Config {
    fn default() -> Self {
        Self { servers_at_once: 2, trial_prompt: "Hello".to_owned(), trial_tokens: 8, keep_versions: 3, patience: Patience::default() }
    }
}
