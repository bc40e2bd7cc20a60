//! From the end of a request to the database, without making it wait, and within bounds.
//!
//! One [`Keeper`] writes in batches, each whole or not at all. What the database refuses is given up and counted, not tried again: no
//! exchange is worth the memory of a database that cannot be written.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::service::ROWS_AT_ONCE;
use super::{Config, Exchange, Filter};
use crate::domain::clock::Clock;
use crate::storage::Error;
use crate::storage::collection::{CollectionTable, Size};
use crate::telemetry::Metrics;
use crate::telemetry::metrics::{Forgotten, Uncollected};

pub(super) enum Message {
    Put(Box<Waiting>),
    /// Write everything before this, then answer.
    Flush(oneshot::Sender<()>),
}

/// An exchange on its way.
pub(super) struct Waiting {
    exchange: Exchange,
    room: Room,
}

impl Waiting {
    pub(super) fn new(exchange: Exchange, room: Room) -> Self {
        Self { exchange, room }
    }
}

/// A share of the bytes that may wait; dropping it gives it back.
#[derive(Debug)]
pub(super) struct Room {
    waiting_bytes: Arc<AtomicU64>,
    bytes: u64,
}

impl Room {
    pub(super) fn take(waiting_bytes: &Arc<AtomicU64>, bytes: u64, most: u64) -> Option<Self> {
        let before = waiting_bytes.fetch_add(bytes, Ordering::Relaxed);
        let room = Self { waiting_bytes: Arc::clone(waiting_bytes), bytes };
        (before.saturating_add(bytes) <= most).then_some(room)
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        self.waiting_bytes.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

/// What others leave for the keeper to see to.
#[derive(Debug, Default)]
pub(super) struct Notes {
    /// Something that was forgotten may still be in the write-ahead log.
    pub unsettled: AtomicBool,
    /// The size is another than the keeper thinks.
    pub stale: AtomicBool,
}

/// Brings exchanges to the database and keeps them within their bounds while [`Keeper::run`] is polled.
pub struct Keeper {
    queue: mpsc::Receiver<Message>,
    batch: Vec<Waiting>,
    /// When the batch is to be written; means nothing while it is empty.
    due: Instant,
    full: usize,
    interval: Duration,
    prune_interval: Duration,
    keep: Option<Duration>,
    max_bytes: u64,
    table: CollectionTable,
    /// As last counted, and what was written since.
    size: Size,
    notes: Arc<Notes>,
    metrics: Metrics,
    clock: Clock,
    failing: bool,
}

impl Keeper {
    pub(super) fn new(
        config: &Config,
        table: CollectionTable,
        queue: mpsc::Receiver<Message>,
        notes: Arc<Notes>,
        metrics: &Metrics,
        clock: &Clock,
    ) -> Self {
        Self {
            queue,
            batch: Vec::new(),
            due: Instant::now(),
            full: config.max_batch.max(1),
            interval: config.flush_interval,
            // An interval of nothing would be a loop that never rests.
            prune_interval: config.prune_interval.max(Duration::from_secs(1)),
            keep: config.keep,
            max_bytes: config.max_bytes,
            table,
            size: Size::default(),
            notes,
            metrics: metrics.clone(),
            clock: clock.clone(),
            failing: false,
        }
    }

    /// Works until cancelled, then writes what is left and returns.
    pub async fn run(mut self, cancel: CancellationToken) {
        self.prune().await;
        let mut prune_at = Instant::now() + self.prune_interval;
        loop {
            // In this order, so that a steady stream of exchanges cannot keep the batch from being written.
            tokio::select! {
                biased;
                () = cancel.cancelled() => break,
                () = tokio::time::sleep_until(self.due), if !self.batch.is_empty() => self.write().await,
                () = tokio::time::sleep_until(prune_at) => {
                    self.prune().await;
                    prune_at = Instant::now() + self.prune_interval;
                }
                message = self.queue.recv() => match message {
                    Some(message) => self.accept(message).await,
                    None => break,
                },
            }
        }
        self.queue.close();
        while let Some(message) = self.queue.recv().await {
            self.accept(message).await;
        }
        self.write().await;
    }

    async fn accept(&mut self, message: Message) {
        match message {
            Message::Put(waiting) => {
                if self.batch.is_empty() {
                    self.due = Instant::now() + self.interval;
                }
                self.batch.push(*waiting);
                if self.batch.len() >= self.full {
                    self.write().await;
                }
            }
            Message::Flush(done) => {
                self.write().await;
                let _ = done.send(()); // whoever asked may have left
            }
        }
    }

    async fn write(&mut self) {
        if self.batch.is_empty() {
            return;
        }
        let (exchanges, _rooms): (Vec<_>, Vec<_>) = std::mem::take(&mut self.batch).into_iter().map(|one| (one.exchange, one.room)).unzip();
        let (rows, bytes) = (exchanges.len() as u64, exchanges.iter().map(|exchange| exchange.bytes() as u64).sum::<u64>());
        let written = self.table.insert(&exchanges).await;
        if self.told(written).is_none() {
            return self.metrics.uncollected(Uncollected::Storage, rows);
        }
        self.metrics.collected(rows);
        if self.notes.stale.swap(false, Ordering::AcqRel) {
            self.count().await;
        } else {
            self.counted(Size { rows: self.size.rows + rows, bytes: self.size.bytes + bytes });
        }
        if self.size.bytes > self.max_bytes {
            self.make_room().await;
        }
    }

    fn counted(&mut self, size: Size) {
        self.size = size;
        self.metrics.collection_size(size.rows, size.bytes);
    }

    async fn count(&mut self) -> Option<Size> {
        let size = self.table.size().await;
        let size = self.told(size)?;
        self.counted(size);
        Some(size)
    }

    /// Forgets the oldest until a twentieth of the room is free, so that this is not done for every batch.
    async fn make_room(&mut self) {
        while let Some(size) = self.count().await.filter(|size| size.bytes > self.max_bytes) {
            let gone = self.table.delete_oldest(size.bytes - (self.max_bytes - self.max_bytes / 20)).await;
            let Some(gone) = self.told(gone).filter(|gone| gone.rows > 0) else { return };
            self.metrics.collected_removed(Forgotten::Size, gone.rows);
        }
    }

    /// Forgets what is too old, and what is too much.
    async fn prune(&mut self) {
        if let Some(keep) = self.keep {
            let oldest = self.clock.unix_ms().saturating_sub(i64::try_from(keep.as_millis()).unwrap_or(i64::MAX));
            let filter = Filter { until_ms: Some(oldest), ..Filter::default() };
            loop {
                let gone = self.table.delete(&filter, ROWS_AT_ONCE).await;
                let Some(gone) = self.told(gone) else { break };
                self.metrics.collected_removed(Forgotten::Age, gone);
                if gone < u64::from(ROWS_AT_ONCE) {
                    break;
                }
                tokio::task::yield_now().await;
            }
        }
        self.make_room().await;
        if self.notes.unsettled.load(Ordering::Acquire) {
            let settled = self.table.settle().await;
            if self.told(settled) == Some(true) {
                self.notes.unsettled.store(false, Ordering::Release);
            }
        }
    }

    /// The result, if it is one; trouble with the database is told when it begins and when it is over.
    fn told<T>(&mut self, result: Result<T, Error>) -> Option<T> {
        match result {
            Ok(value) => {
                if std::mem::take(&mut self.failing) {
                    tracing::info!("exchanges can be collected again");
                }
                Some(value)
            }
            Err(error) => {
                if !std::mem::replace(&mut self.failing, true) {
                    tracing::warn!(%error, "exchanges cannot be collected: the database cannot be written");
                }
                None
            }
        }
    }
}
