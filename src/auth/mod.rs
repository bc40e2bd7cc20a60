//! Who asks: API keys and what their holders may do.

use serde::{Deserialize, Serialize};

/// How callers are known.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {}
