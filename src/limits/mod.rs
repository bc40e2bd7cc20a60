//! How much each key, tenant and address may use.

use serde::{Deserialize, Serialize};

/// What holds for everyone, whatever their key says.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {}
