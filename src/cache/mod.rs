//! Answers that need not be computed again.
//!
//! [`recording`] keeps what is being answered so that more than one can read it, [`singleflight`] lets equal requests share one
//! generation, [`exact`] keeps finished answers under a [`key`] of everything that matters, in memory and in the database.

pub mod answer;
mod durable;
pub mod exact;
pub mod key;
pub mod policy;
pub mod recording;
pub mod singleflight;
mod stored;
#[cfg(test)]
mod testing;

use serde::{Deserialize, Serialize};

/// What is kept, and for how long.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    pub recording: recording::Config,
    pub exact: exact::Config,
}
