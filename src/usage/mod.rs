//! The request log: what was asked for, what it cost, how it ended. Never what was asked or answered.
//!
//! [`writer`] takes rows without ever making a request wait and brings them to the database in batches; [`retention`] forgets old
//! ones; [`report`] reads. A row that cannot be kept is counted, not hidden. No task is started here: `app` runs the futures.

mod pending;
pub mod report;
pub mod retention;
mod trouble;
pub mod writer;

use std::time::Duration;

use serde::{Deserialize, Serialize};

pub use crate::storage::usage::Row;
pub use report::Report;
pub use retention::Retention;
pub use writer::{UsageLog, Writer, usage_log};

/// How the request log is kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Rows that may wait to be written; beyond it they are dropped and counted. Twice as many may be in memory while the
    /// database cannot be written.
    pub max_waiting_rows: usize,
    /// With so many rows waiting they are written at once.
    pub max_batch_rows: usize,
    /// The longest a row waits for others.
    #[serde(with = "crate::domain::span")]
    pub flush_interval: Duration,
    /// Rows older than this are deleted; absent, all are kept.
    #[serde(with = "crate::domain::span::option")]
    pub keep: Option<Duration>,
    /// How often old rows are looked for.
    #[serde(with = "crate::domain::span")]
    pub prune_interval: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            max_waiting_rows: 10_000,
            max_batch_rows: 500,
            flush_interval: Duration::from_millis(250),
            keep: Some(Duration::from_hours(24 * 90)),
            prune_interval: Duration::from_hours(1),
        }
    }
}

#[cfg(test)]
pub(crate) mod testing {
    //! Doubles that the tests of this folder share.

    use super::Row;
    use crate::storage::{Config, Storage};
    use crate::telemetry::Outcome;

    pub(crate) fn row(id: &str, started_at_ms: i64) -> Row {
        Row {
            request_id: id.to_owned(),
            started_at_ms,
            dialect: "native".into(),
            model: Some("gemma3".to_owned()),
            backend: Some("local".to_owned()),
            outcome: Outcome::Ok,
            error_kind: None,
            streamed: false,
            prompt_tokens: Some(5),
            completion_tokens: Some(7),
            queued_ms: Some(0),
            ttft_ms: Some(12),
            total_ms: 30,
            prompt_bytes: 100,
            answer_bytes: 200,
            tenant: None,
            key_id: None,
            priority: None,
            cache: None,
            cached_tokens: None,
            attempts: None,
        }
    }

    pub(crate) async fn storage() -> (tempfile::TempDir, Storage) {
        let folder = tempfile::tempdir().expect("a folder");
        let storage = Storage::open(folder.path(), &Config::default()).await.expect("opened");
        (folder, storage)
    }
}
