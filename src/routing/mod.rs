//! Which backend answers a request.
//!
//! [`policy`] is pure: it orders candidates from what is known of them. It does not ask, try or count anything.

pub mod policy;

use serde::{Deserialize, Serialize};

/// How a backend is chosen, given up and tried again.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {}
