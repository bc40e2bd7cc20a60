//! Answers that need not be computed again.

use serde::{Deserialize, Serialize};

/// What is kept, and for how long.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {}
