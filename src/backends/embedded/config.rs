//! How the embedded engine is set up.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::lm::Choice;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// GGUF files. Each is served under its file name without the ending.
    pub models: Vec<PathBuf>,
    /// Folder of a model that turns texts into vectors (`config.json`, `tokenizer.json`, `model.safetensors`), served under the
    /// folder's name. Empty: none.
    pub embedding_model: PathBuf,
    pub device: Choice,
    /// Threads of the CPU; 0: one for each physical core.
    pub threads: usize,
    /// Requests that one model works on at a time.
    pub slots: usize,
    /// Requests that wait for a slot of one model; more are refused.
    pub queue: usize,
    /// Tokens of prompt and answer together, at most what the model was trained for.
    pub context_length: u32,
    /// Memory for weights and caches. Without it: what the system says is available at start.
    pub memory_limit_bytes: Option<u64>,
    /// A Jinja template instead of the models' own; `plain` for the one of models without.
    pub chat_template: Option<String>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            models: Vec::new(),
            embedding_model: PathBuf::new(),
            device: Choice::Auto,
            threads: 0,
            slots: 2,
            queue: 64,
            context_length: 4096,
            memory_limit_bytes: None,
            chat_template: None,
        }
    }
}
