//! Who asks: API keys, and what their holders may do.
//!
//! [`Keys`] is the whole interface. It promises: a secret is shown once and stored only as a keyed hash, whose own key lies in
//! a file beside the database; checking a key reads memory only, whether it is right or wrong; a key that is revoked, rotated or
//! has expired is refused at once, and what was started with it is told to end within a second; an acknowledged key survives a
//! crash and a power cut. [`key`] and [`index`] decide, without a clock and without I/O.
//!
//! Which route asks for which role is decided in `api`; how much a key may use is enforced in `limits`.

mod error;
mod index;
mod key;
mod keys;
mod pepper;
mod terms;

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::domain::allowance::Allowance;
use crate::domain::principal::Role;

pub use crate::storage::keys::{Key, Terms};
pub use error::{Denied, Error, Wrong};
pub use keys::Keys;
pub use terms::{Change, Expiry, new as new_terms};

/// How callers are known.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    pub required: Required,
    /// Keys that may exist. Beyond it the key that was revoked longest ago is forgotten for a new one.
    pub max_keys: usize,
    /// How often it is written down when keys were last used.
    #[serde(with = "crate::domain::span")]
    pub last_used_interval: Duration,
    pub anonymous: Anonymous,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            required: Required::default(),
            max_keys: 10_000,
            last_used_interval: Duration::from_secs(10),
            anonymous: Anonymous::default(),
        }
    }
}

/// Whether a request must bear a key.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Required {
    /// Once there has been a key, or when other machines can reach an address that is listened on.
    #[default]
    Auto,
    Always,
    Never,
}

/// What holds for requests without a key, where none is required.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Anonymous {
    pub role: Role,
    pub allowance: Allowance,
}

impl Default for Anonymous {
    fn default() -> Self {
        Self { role: Role::Operator, allowance: Allowance::default() }
    }
}
