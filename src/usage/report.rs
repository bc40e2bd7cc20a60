//! Reading the request log.

use super::Row;
use crate::storage::usage::UsageTable;
use crate::storage::{Error, Storage};

/// The most rows that one question gets.
pub const MAX_ROWS: u32 = 1_000;

/// Answers questions about past requests. Sees what has been written, not what still waits.
#[derive(Debug, Clone)]
pub struct Report {
    table: UsageTable,
}

impl Report {
    #[must_use]
    pub fn new(storage: &Storage) -> Self {
        Self { table: storage.usage() }
    }

    /// How many requests are in the log.
    pub async fn count(&self) -> Result<u64, Error> {
        self.table.count().await
    }

    /// The latest requests, newest first; at most [`MAX_ROWS`].
    pub async fn last(&self, most: u32) -> Result<Vec<Row>, Error> {
        self.table.last(most.min(MAX_ROWS)).await
    }

    /// The requests with this id, newest first. Clients may choose ids, so there may be several; at most [`MAX_ROWS`].
    pub async fn of_request(&self, request_id: &str) -> Result<Vec<Row>, Error> {
        self.table.of_request(request_id, MAX_ROWS).await
    }
}
