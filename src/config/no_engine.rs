//! Stands in for the configuration of the embedded engine where it is not compiled in: one file serves builds with and without it.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// Takes any keys; none of them does anything.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Config(Map<String, Value>);
