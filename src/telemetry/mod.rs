//! Logs and metrics: how the process tells what it does. Never a prompt, a completion or a key.
//!
//! [`log`] sets up the lines on standard error, once. [`metrics`] is the only file that names metrics; everything else calls its
//! typed methods with the words of [`labels`].

mod exposition;
pub mod labels;
pub mod log;
pub mod metrics;

pub use exposition::{Kind, MetricSpec};
pub use labels::{Dropped, Operation, Outcome, Route};
pub use metrics::{Connection, Generation, Metrics, Process, RequestInFlight};

use serde::{Deserialize, Serialize};

/// Configuration of what is told, and how.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    pub log: log::Config,
    pub metrics: metrics::Config,
}
