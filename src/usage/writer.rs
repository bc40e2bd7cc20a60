//! From the end of a request to the database, without making it wait.
//!
//! A row goes into a bounded queue; when that is full the row is dropped and counted. One writer empties the queue in batches:
//! after a short time, or as soon as a batch is full. While the database cannot be written (a full disk, another program that
//! holds it) rows are kept up to a bound, the trouble is told once in a while, and writing goes on by itself when it is over.

use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::trouble::Trouble;
use super::{Config, Row};
use crate::domain::clock::Clock;
use crate::storage::Storage;
use crate::storage::usage::UsageTable;
use crate::telemetry::{Dropped, Metrics};

/// Attempts at the end, when there is no later.
const FINAL_ATTEMPTS: u32 = 2;

enum Message {
    Row(Box<Row>),
    /// Write everything before this, then answer.
    Flush(oneshot::Sender<()>),
}

/// Takes rows. Cheap to clone.
#[derive(Debug, Clone)]
pub struct UsageLog {
    queue: mpsc::Sender<Message>,
    metrics: Metrics,
}

impl UsageLog {
    /// Hands a row over. Never waits: with a full queue the row is dropped, and counted.
    pub fn record(&self, row: Row) {
        if self.queue.try_send(Message::Row(Box::new(row))).is_err() {
            self.metrics.usage_rows_dropped(Dropped::QueueFull, 1);
        }
    }

    /// Waits until every row recorded before this call was written, or tried and kept for later. While the database cannot be
    /// written and as many rows as allowed are kept, that may take until it can be again.
    pub async fn flush(&self) {
        let (done, written) = oneshot::channel();
        if self.queue.send(Message::Flush(done)).await.is_ok() {
            // An error means that the writer ended, and it ends by writing everything.
            let _ = written.await;
        }
    }
}

/// Brings rows to the database while [`Writer::run`] is polled.
#[derive(Debug)]
pub struct Writer {
    queue: mpsc::Receiver<Message>,
    batch: Batch,
}

/// The two ends of a request log: one for those who record, one for the task that writes.
pub fn usage_log(config: &Config, storage: &Storage, metrics: Metrics, clock: Clock) -> (UsageLog, Writer) {
    let (sender, receiver) = mpsc::channel(config.max_waiting_rows.max(1));
    let full = config.max_batch_rows.max(1);
    let batch = Batch {
        rows: Vec::new(),
        due: Instant::now(),
        full,
        most: config.max_waiting_rows.max(full),
        table: storage.usage(),
        metrics: metrics.clone(),
        trouble: Trouble::new(clock, config.flush_interval.max(Duration::from_millis(1))),
    };
    (UsageLog { queue: sender, metrics }, Writer { queue: receiver, batch })
}

impl Writer {
    /// Writes until cancelled, then writes what is left and returns. Also returns when the last [`UsageLog`] is gone.
    pub async fn run(mut self, cancel: CancellationToken) {
        loop {
            // In this order, so that a steady stream of rows cannot keep the batch from being written.
            tokio::select! {
                biased;
                () = cancel.cancelled() => break,
                () = tokio::time::sleep_until(self.batch.due), if !self.batch.rows.is_empty() => self.batch.flush().await,
                message = self.queue.recv(), if self.batch.has_room() => match message {
                    Some(message) => self.batch.accept(message).await,
                    None => break,
                },
            }
        }
        self.finish().await;
    }

    async fn finish(mut self) {
        self.queue.close();
        while let Some(message) = self.queue.recv().await {
            self.batch.accept(message).await;
        }
        for _ in 0..FINAL_ATTEMPTS {
            self.batch.flush().await;
        }
        self.batch.give_up();
    }
}

/// Rows that have left the queue and not reached the database.
#[derive(Debug)]
struct Batch {
    rows: Vec<Row>,
    /// When it is to be written; means nothing while there are no rows.
    due: Instant,
    /// Written at once with this many rows.
    full: usize,
    /// No more rows are taken from the queue beyond this.
    most: usize,
    table: UsageTable,
    metrics: Metrics,
    trouble: Trouble,
}

impl Batch {
    fn has_room(&self) -> bool {
        self.rows.len() < self.most
    }

    async fn accept(&mut self, message: Message) {
        match message {
            Message::Row(row) => self.push(*row).await,
            Message::Flush(done) => {
                self.flush().await;
                let _ = done.send(()); // whoever asked may have left
            }
        }
    }

    async fn push(&mut self, row: Row) {
        if self.rows.is_empty() {
            self.due = Instant::now() + self.trouble.pause();
        }
        self.rows.push(row);
        if self.rows.len() >= self.full && !self.trouble.lasts() {
            self.flush().await;
        }
    }

    async fn flush(&mut self) {
        if self.rows.is_empty() {
            return;
        }
        match self.table.insert(&self.rows).await {
            Ok(()) => {
                self.metrics.usage_rows_written(self.rows.len() as u64);
                self.rows.clear();
                self.rows.shrink_to(self.full);
                self.trouble.over();
            }
            Err(error) => {
                self.trouble.again(&error, self.rows.len());
                self.due = Instant::now() + self.trouble.pause();
            }
        }
    }

    /// The end, with rows that could not be written.
    fn give_up(self) {
        if !self.rows.is_empty() {
            let rows = self.rows.len();
            self.metrics.usage_rows_dropped(Dropped::Storage, rows as u64);
            tracing::error!(rows, "rows of the request log are lost: the database could not be written before the end");
        }
    }
}

#[cfg(test)]
#[path = "writer_tests.rs"]
mod tests;
