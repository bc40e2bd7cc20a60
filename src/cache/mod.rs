//! Answers that need not be computed again, and prompts that need not be read again.

pub mod prefix;
pub mod semantic;
pub mod warm;

use serde::{Deserialize, Serialize};

/// What is kept, and for how long.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    pub prefix: prefix::Config,
    pub semantic: semantic::Config,
    pub warm: warm::Config,
}
