//! Answers that need not be computed again, and prompts that need not be read again.
//!
//! [`recording`] keeps what is being answered so that more than one can read it, [`singleflight`] lets equal requests share one
//! generation, [`exact`] keeps finished answers under a [`key`] of everything that matters, in memory and in the database.
//! [`semantic`] finds the answer to a question that means the same, [`prefix`] which backend has read the beginning of a prompt, and
//! [`warm`] which prompts are to be read ahead of time.

pub mod answer;
mod durable;
pub mod exact;
pub mod key;
pub mod policy;
pub mod prefix;
pub mod recording;
pub mod semantic;
pub mod singleflight;
mod stored;
#[cfg(test)]
mod testing;
pub mod warm;
pub mod warm_set;

use serde::{Deserialize, Serialize};

/// What is kept, and for how long.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    pub recording: recording::Config,
    pub exact: exact::Config,
    pub prefix: prefix::Config,
    pub semantic: semantic::Config,
    pub warm: warm::Config,
}
