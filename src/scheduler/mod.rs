//! Who goes next: the queue before every backend.

use serde::{Deserialize, Serialize};

/// How requests wait for their turn.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {}
