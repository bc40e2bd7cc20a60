//! What holds for every generation, and can change while the process runs.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::kept;
use crate::domain::id::ModelName;
use crate::domain::span;
use crate::models::{Policies, Policy};
use crate::routing::fallback::Aliases;
use crate::routing::{self, Wrong, timeouts};

/// What holds for every generation.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// The model of requests that name none. Unset: the only one there is, or the only one that is loaded.
    pub default_model: Option<ModelName>,
    /// The deadline of requests that set none. Unset: no bound.
    #[serde(with = "span::option")]
    pub default_deadline: Option<Duration>,
    /// Longest deadline a request may ask for.
    #[serde(with = "span")]
    pub max_deadline: Duration,
    /// Longest answer that is collected for a client that does not stream, in bytes.
    pub max_answer_bytes: usize,
    /// How long a request that is over a rate of its key waits for it instead of being refused. 0: not at all.
    #[serde(with = "span")]
    pub wait_for_rate: Duration,
    /// What becomes of an answer whose backend fails in the middle.
    pub on_cut: OnCut,
    /// Generations that go on without their clients.
    pub kept: kept::Config,
}

/// What becomes of an answer whose backend fails in the middle.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OnCut {
    /// It ends with the error.
    #[default]
    Error,
    /// Another backend with the very same model goes on after the last character, where the request allows that.
    Continue,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            default_model: None,
            default_deadline: None,
            max_deadline: Duration::from_hours(24),
            max_answer_bytes: 64 << 20,
            wait_for_rate: Duration::ZERO,
            on_cut: OnCut::Error,
            kept: kept::Config::default(),
        }
    }
}

/// The settings in force.
#[derive(Debug, Clone, Default)]
pub struct Settings {
    pub config: Config,
    pub policies: Policies,
    pub aliases: Aliases,
    pub timeouts: timeouts::Config,
}

impl Settings {
    /// # Errors
    /// What is wrong with the fallback hierarchy.
    pub fn new(config: Config, models: Vec<Policy>, routing: &routing::Config) -> Result<Self, Vec<Wrong>> {
        Ok(Self { config, policies: Policies::new(models), aliases: Aliases::new(&routing.alias)?, timeouts: routing.timeouts.clone() })
    }
}
