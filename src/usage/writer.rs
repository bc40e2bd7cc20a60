//! From the end of a request to the database, without making it wait.
//!
//! A row goes into a bounded queue; when that is full the row is dropped and counted. One writer empties the queue in batches:
//! after a short time, or as soon as a batch is full. While the database cannot be written (a full disk, another program that
//! holds it) rows are kept up to a bound, the trouble is told once in a while, and writing goes on by itself when it is over.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::pending::Pending;
use super::trouble::Trouble;
use super::{Config, Row};
use crate::domain::clock::Clock;
use crate::storage::Storage;
use crate::storage::usage::UsageTable;
use crate::telemetry::{Dropped, Metrics};

/// Attempts at the end, when there is no later.
const FINAL_ATTEMPTS: u32 = 2;

/// Takes rows. Cheap to clone.
#[derive(Debug, Clone)]
pub struct UsageLog {
    end: Arc<End>,
    metrics: Metrics,
}

/// The last one to go tells the writer.
#[derive(Debug)]
struct End(Arc<Pending>);

impl Drop for End {
    fn drop(&mut self) {
        self.0.close();
    }
}

impl UsageLog {
    /// Hands a row over. Never waits: with a full queue the row is dropped, and counted.
    pub fn record(&self, row: Row) {
        if !self.end.0.push(row) {
            self.metrics.usage_rows_dropped(Dropped::QueueFull, 1);
        }
    }

    /// Waits until every row recorded before this call was written, or tried and kept for later.
    pub async fn flush(&self) {
        let (done, written) = oneshot::channel();
        self.end.0.flush(done);
        // An error means that the writer ended, and it ends by writing everything.
        let _ = written.await;
    }
}

/// Brings rows to the database while [`Writer::run`] is polled.
#[derive(Debug)]
pub struct Writer {
    pending: Arc<Pending>,
    /// Rows that have left the queue and not reached the database.
    batch: Vec<Row>,
    /// When rows that wait are to be written; `None` while there are none.
    due: Option<Instant>,
    /// Written at once with this many rows.
    full: usize,
    table: UsageTable,
    metrics: Metrics,
    trouble: Trouble,
}

/// The two ends of a request log: one for those who record, one for the task that writes.
pub fn usage_log(config: &Config, storage: &Storage, metrics: Metrics, clock: Clock) -> (UsageLog, Writer) {
    let full = config.max_batch_rows.max(1);
    let pending = Arc::new(Pending::new(full, config.max_waiting_rows.max(1)));
    let writer = Writer {
        pending: Arc::clone(&pending),
        batch: Vec::new(),
        due: None,
        full,
        table: storage.usage(),
        metrics: metrics.clone(),
        trouble: Trouble::new(clock, config.flush_interval.max(Duration::from_millis(1))),
    };
    (UsageLog { end: Arc::new(End(pending)), metrics }, writer)
}

impl Writer {
    /// Writes until cancelled, then writes what is left and returns. Also returns when the last [`UsageLog`] is gone.
    pub async fn run(mut self, cancel: CancellationToken) {
        let pending = Arc::clone(&self.pending);
        loop {
            // In this order, so that a steady stream of rows cannot keep the batch from being written.
            tokio::select! {
                biased;
                () = cancel.cancelled() => break,
                () = tokio::time::sleep_until(self.due.unwrap_or_else(Instant::now)), if self.due.is_some() => self.flush().await,
                () = pending.news() => {}
            }
            if self.look().await {
                break;
            }
        }
        self.finish().await;
    }

    /// Does what is due now; whether nothing more comes.
    async fn look(&mut self) -> bool {
        let (rows, asked, closed) = {
            let waiting = self.pending.lock();
            (waiting.rows.len(), !waiting.flushes.is_empty(), waiting.closed)
        };
        if asked || (rows >= self.full && !self.trouble.lasts()) {
            self.flush().await;
        } else if rows > 0 && self.due.is_none() {
            self.due = Some(Instant::now() + self.trouble.pause());
        }
        closed
    }

    async fn finish(mut self) {
        self.pending.close();
        for _ in 0..FINAL_ATTEMPTS {
            self.flush().await;
        }
        self.give_up();
    }

    /// Writes what there is. Rows that cannot be written stay, and until they can be no others are taken.
    async fn flush(&mut self) {
        // Before the rows are: what was recorded before someone asked is among them.
        let flushes = std::mem::take(&mut self.pending.lock().flushes);
        self.write().await;
        if self.batch.is_empty() {
            self.batch = std::mem::take(&mut self.pending.lock().rows);
            self.write().await;
        }
        for done in flushes {
            let _ = done.send(()); // whoever asked may have left
        }
        let something_waits = !self.batch.is_empty() || !self.pending.lock().rows.is_empty();
        self.due = something_waits.then(|| Instant::now() + self.trouble.pause());
    }

    async fn write(&mut self) {
        if self.batch.is_empty() {
            return;
        }
        match self.table.insert(&self.batch).await {
            Ok(()) => {
                self.metrics.usage_rows_written(self.batch.len() as u64);
                self.batch.clear();
                self.trouble.over();
            }
            Err(error) => self.trouble.again(&error, self.batch.len()),
        }
    }

    /// The end, with rows that could not be written.
    fn give_up(self) {
        let rows = self.batch.len() + self.pending.lock().rows.len();
        if rows > 0 {
            self.metrics.usage_rows_dropped(Dropped::Storage, rows as u64);
            tracing::error!(rows, "rows of the request log are lost: the database could not be written before the end");
        }
    }
}

#[cfg(test)]
#[path = "writer_tests.rs"]
mod tests;
