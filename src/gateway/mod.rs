//! One request, from start to end: which model, which backend, how long, what it cost.
//!
//! [`Gateway::generate`] promises: the answer ends with exactly one [`Event::Done`](crate::domain::generation::Event::Done) or one
//! error; a deadline covers waiting and generating; dropping the [`Generation`] (or the future that would give it) stops the
//! backend's work; however it ends, it is counted and logged exactly once.
//! Nothing here knows HTTP or any dialect.

mod attempt;
mod collect;
mod deadline;
mod error;
mod generate;
mod metered;
mod record;

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::domain::id::ModelName;
use crate::domain::span;

pub use crate::backends::Error as BackendError;
pub use collect::{Answer, collect};
pub use error::Error;
pub use generate::{Gateway, Generation};
pub use record::Ledger;

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
}

impl Default for Config {
    fn default() -> Self {
        Self { default_model: None, default_deadline: None, max_deadline: Duration::from_hours(24), max_answer_bytes: 64 << 20 }
    }
}
