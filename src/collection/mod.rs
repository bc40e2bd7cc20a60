//! Exchanges that are kept to learn from, and what people say of them.
//!
//! Nothing is kept unless the configuration says so, whoever asks has agreed ([`consent`]), and the request itself does not refuse. Then
//! a whole answer is kept with the conversation it belongs to: never a failed or cut one, and never one from a cache or of another's
//! request. [`Collection`] never makes a request wait: what cannot be taken is counted and left out. What is forgotten is overwritten in
//! the database. No task is started here: `app` runs [`Keeper::run`].
//!
//! Only the HTTP interface lets requests be collected; the process' own (checks, warming, jobs) never are.

mod collecting;
mod consent;
mod service;
mod writer;

use std::time::Duration;

use serde::{Deserialize, Serialize};

pub use crate::storage::collection::{Exchange, Feedback, Filter, Owner, Rated, Rating, Row, Size};
pub use collecting::Collecting;
pub use service::{Collection, Gone, Refused, collection};
pub use writer::Keeper;

/// What is collected, and how it is kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Whether anything is collected at all.
    pub enabled: bool,
    /// Whether all who need no key have agreed. Of those with a key, the key says it.
    pub everyone_without_a_key_consents: bool,
    /// Exchanges older than this are forgotten; absent, they are kept until others need their room.
    #[serde(with = "crate::domain::span::option")]
    pub keep: Option<Duration>,
    /// Texts that are kept, in bytes. Beyond it the oldest are forgotten.
    pub max_bytes: u64,
    /// Largest exchange that is kept, and largest correction, in bytes.
    pub max_exchange_bytes: usize,
    /// Exchanges that may wait to be written; more are left out, and counted.
    pub max_waiting: usize,
    /// The same in bytes.
    pub max_waiting_bytes: u64,
    /// With so many waiting they are written at once.
    pub max_batch: usize,
    /// The longest an exchange waits for others.
    #[serde(with = "crate::domain::span")]
    pub flush_interval: Duration,
    /// How often old exchanges are looked for.
    #[serde(with = "crate::domain::span")]
    pub prune_interval: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            enabled: false,
            everyone_without_a_key_consents: false,
            keep: Some(Duration::from_hours(24 * 90)),
            max_bytes: 1 << 30,
            max_exchange_bytes: 1 << 20,
            max_waiting: 1_000,
            max_waiting_bytes: 64 << 20,
            max_batch: 100,
            flush_interval: Duration::from_millis(250),
            prune_interval: Duration::from_mins(15),
        }
    }
}

#[cfg(test)]
mod tests;
