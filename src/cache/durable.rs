//! From the cache to the database, without making a request wait.
//!
//! Answers, notes of use and purges go through one bounded queue, in order, so that a purge also finds what was put just before
//! it. One [`Keeper`] writes in batches, each whole or not at all. This is a cache: what the database refuses is dropped and
//! counted, not tried again.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::exact::{Config, Entry, covers};
use super::key::Key;
use super::stored::encode;
use crate::domain::clock::Clock;
use crate::storage::answers::{AnswerTable, Row, Size, Which};
use crate::storage::{Error, Storage};
use crate::telemetry::Metrics;
use crate::telemetry::metrics::answers::{Removed, Tier, Unwritten};

/// Rows deleted at once: few enough that other writers, who wait meanwhile, do not fall behind.
const ROWS_AT_ONCE: u32 = 500;

type Purged = Result<HashSet<Key>, Error>;

enum Message {
    Put(Box<Waiting>),
    /// An answer was given, at this time (milliseconds since 1970).
    Used(Key, i64),
    /// The row cannot be read.
    Forget(Key),
    Purge(Which, oneshot::Sender<Purged>),
    /// Write everything before this, then answer.
    Flush(oneshot::Sender<()>),
}

/// An answer on its way.
pub(super) struct Waiting {
    key: Key,
    entry: Arc<Entry>,
    key_id: Option<Arc<str>>,
    room: Option<Room>,
}

impl Waiting {
    pub(super) fn new(key: Key, entry: Arc<Entry>, key_id: Option<Arc<str>>) -> Self {
        Self { key, entry, key_id, room: None }
    }

    fn row(&self) -> Option<Row> {
        let entry = &self.entry;
        Some(Row {
            key: *self.key.as_bytes(),
            model: entry.model.clone(),
            digest: entry.digest.clone(),
            tenant: entry.tenant.clone(),
            key_id: self.key_id.as_deref().map(str::to_owned),
            created_at_ms: entry.created_at_ms,
            expires_at_ms: entry.expires_at_ms,
            answer: encode(&self.key, &entry.answer)?,
        })
    }
}

/// A share of the bytes that may wait; dropping it gives it back.
struct Room {
    waiting_bytes: Arc<AtomicU64>,
    bytes: u64,
}

impl Drop for Room {
    fn drop(&mut self) {
        self.waiting_bytes.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

/// The size as last counted.
#[derive(Debug, Default)]
struct Counted {
    rows: AtomicU64,
    bytes: AtomicU64,
}

impl Counted {
    fn get(&self) -> Size {
        Size { rows: self.rows.load(Ordering::Relaxed), bytes: self.bytes.load(Ordering::Relaxed) }
    }

    fn set(&self, size: Size, metrics: &Metrics) {
        self.rows.store(size.rows, Ordering::Relaxed);
        self.bytes.store(size.bytes, Ordering::Relaxed);
        metrics.answers_kept(Tier::Durable, size.rows, size.bytes);
    }
}

/// The end for those who put and read.
pub(super) struct Durable {
    table: AnswerTable,
    queue: mpsc::Sender<Message>,
    waiting_bytes: Arc<AtomicU64>,
    max_waiting_bytes: u64,
    counted: Arc<Counted>,
    metrics: Metrics,
}

impl Durable {
    pub(super) fn new(config: &Config, storage: &Storage, metrics: &Metrics, clock: &Clock) -> (Self, Keeper) {
        let (queue, receiver) = mpsc::channel(config.max_waiting.max(1));
        let counted = Arc::new(Counted::default());
        let durable = Self {
            table: storage.answers(),
            queue,
            waiting_bytes: Arc::default(),
            max_waiting_bytes: config.max_waiting_bytes,
            counted: Arc::clone(&counted),
            metrics: metrics.clone(),
        };
        let batch = Batch {
            answers: HashMap::new(),
            used: HashMap::new(),
            due: Instant::now(),
            full: config.max_batch.max(1),
            interval: config.flush_interval,
            max_bytes: config.durable_max_bytes,
            table: storage.answers(),
            counted,
            metrics: metrics.clone(),
            clock: clock.clone(),
            failing: false,
        };
        (durable, Keeper(Some(Work { queue: receiver, batch, prune_interval: config.prune_interval.max(Duration::from_secs(1)) })))
    }

    pub(super) fn table(&self) -> &AnswerTable {
        &self.table
    }

    pub(super) fn size(&self) -> Size {
        self.counted.get()
    }

    /// Hands an answer over; with too many waiting it is dropped, and counted.
    pub(super) fn put(&self, mut waiting: Waiting) {
        waiting.room = self.room(waiting.entry.answer.bytes() as u64);
        if waiting.room.is_none() || self.queue.try_send(Message::Put(Box::new(waiting))).is_err() {
            self.metrics.answers_dropped(Unwritten::QueueFull, 1);
        }
    }

    fn room(&self, bytes: u64) -> Option<Room> {
        let before = self.waiting_bytes.fetch_add(bytes, Ordering::Relaxed);
        let room = Room { waiting_bytes: Arc::clone(&self.waiting_bytes), bytes };
        (before.saturating_add(bytes) <= self.max_waiting_bytes).then_some(room)
    }

    /// Notes that an answer was given. A lost note only makes it look older than it is.
    pub(super) fn used(&self, key: Key, at_ms: i64) {
        let _ = self.queue.try_send(Message::Used(key, at_ms));
    }

    /// Has a row deleted that cannot be read. If that is lost, the next who reads it asks again.
    pub(super) fn forget(&self, key: Key) {
        let _ = self.queue.try_send(Message::Forget(key));
    }

    /// Deletes; gives the keys of what is gone.
    pub(super) async fn purge(&self, which: Which) -> Purged {
        let (done, purged) = oneshot::channel();
        if self.queue.send(Message::Purge(which.clone(), done)).await.is_ok()
            && let Ok(purged) = purged.await
        {
            return purged;
        }
        // The writer has ended, after writing everything.
        delete_all(&self.table, &which).await
    }

    pub(super) async fn flush(&self) {
        let (done, written) = oneshot::channel();
        if self.queue.send(Message::Flush(done)).await.is_ok() {
            // An error means that the writer ended, and it ends by writing everything.
            let _ = written.await;
        }
    }
}

async fn delete_all(table: &AnswerTable, which: &Which) -> Purged {
    let mut gone = HashSet::new();
    loop {
        let some = table.delete(which, ROWS_AT_ONCE).await?;
        let is_last = some.len() < ROWS_AT_ONCE as usize;
        gone.extend(some.iter().filter_map(|key| Key::from_bytes(key)));
        if is_last {
            return Ok(gone);
        }
        tokio::task::yield_now().await;
    }
}

/// Brings answers to the database and keeps its part of the cache within its bounds while [`Keeper::run`] is polled.
pub struct Keeper(Option<Work>);

struct Work {
    queue: mpsc::Receiver<Message>,
    batch: Batch,
    prune_interval: Duration,
}

impl Keeper {
    /// For a cache without a database.
    pub(super) fn idle() -> Self {
        Self(None)
    }

    /// Works until cancelled, then writes what is left and returns.
    pub async fn run(self, cancel: CancellationToken) {
        match self.0 {
            Some(work) => work.run(cancel).await,
            None => cancel.cancelled().await,
        }
    }
}

impl Work {
    async fn run(mut self, cancel: CancellationToken) {
        self.batch.prune().await;
        let mut prune_at = Instant::now() + self.prune_interval;
        loop {
            // In this order, so that a steady stream of answers cannot keep the batch from being written.
            tokio::select! {
                biased;
                () = cancel.cancelled() => break,
                () = tokio::time::sleep_until(self.batch.due), if !self.batch.is_empty() => self.batch.flush().await,
                () = tokio::time::sleep_until(prune_at) => {
                    self.batch.prune().await;
                    prune_at = Instant::now() + self.prune_interval;
                }
                message = self.queue.recv() => match message {
                    Some(message) => self.batch.accept(message).await,
                    None => break,
                },
            }
        }
        self.queue.close();
        while let Some(message) = self.queue.recv().await {
            self.batch.accept(message).await;
        }
        self.batch.flush().await;
    }
}

/// What has left the queue and not reached the database.
struct Batch {
    answers: HashMap<Key, Waiting>,
    used: HashMap<Key, i64>,
    /// When it is to be written; means nothing while it is empty.
    due: Instant,
    /// Written at once with this many answers or notes.
    full: usize,
    interval: Duration,
    max_bytes: u64,
    table: AnswerTable,
    counted: Arc<Counted>,
    metrics: Metrics,
    clock: Clock,
    failing: bool,
}

impl Batch {
    fn is_empty(&self) -> bool {
        self.answers.is_empty() && self.used.is_empty()
    }

    async fn accept(&mut self, message: Message) {
        if self.is_empty() {
            self.due = Instant::now() + self.interval;
        }
        match message {
            Message::Put(waiting) => {
                self.answers.insert(waiting.key, *waiting);
            }
            Message::Used(key, at_ms) => {
                self.used.insert(key, at_ms);
            }
            Message::Forget(key) => self.forget(key).await,
            // Whoever asked may have left, in both cases.
            Message::Purge(which, done) => {
                let _ = done.send(self.purge(&which).await);
            }
            Message::Flush(done) => {
                self.flush().await;
                let _ = done.send(());
            }
        }
        if self.answers.len() >= self.full || self.used.len() >= self.full {
            self.flush().await;
        }
    }

    async fn forget(&mut self, key: Key) {
        // A new answer is on its way to the same place: it will replace what cannot be read.
        if self.answers.contains_key(&key) {
            return;
        }
        let gone = self.table.delete(&Which::Key(*key.as_bytes()), 1).await;
        let gone = self.told(gone).unwrap_or_default().len() as u64;
        self.metrics.answers_removed(Tier::Durable, Removed::Damage, gone);
    }

    async fn purge(&mut self, which: &Which) -> Purged {
        let mut gone: HashSet<Key> =
            self.answers.extract_if(|key, waiting| covers(which, key, &waiting.entry)).map(|(key, _)| key).collect();
        let deleted = delete_all(&self.table, which).await?;
        self.metrics.answers_removed(Tier::Durable, Removed::Purge, deleted.len() as u64);
        gone.extend(deleted);
        self.count().await;
        Ok(gone)
    }

    async fn flush(&mut self) {
        if self.is_empty() {
            return;
        }
        let answers = std::mem::take(&mut self.answers);
        let used: Vec<_> = std::mem::take(&mut self.used).into_iter().map(|(key, at_ms)| (*key.as_bytes(), at_ms)).collect();
        let rows: Vec<Row> = answers.values().filter_map(Waiting::row).collect();
        let written = self.table.write(&rows, &used).await;
        let reached = if self.told(written).is_some() { rows.len() } else { 0 };
        self.metrics.answers_dropped(Unwritten::Storage, (answers.len() - reached) as u64);
        if reached > 0 {
            self.grew(&rows).await;
        }
    }

    /// Adds up what was written, too high where it replaced something; beyond the bound it is counted exactly, and room made.
    async fn grew(&mut self, rows: &[Row]) {
        let before = self.counted.get();
        let bytes = rows.iter().map(|row| row.answer.len() as u64).sum::<u64>();
        let now = Size { rows: before.rows + rows.len() as u64, bytes: before.bytes + bytes };
        self.counted.set(now, &self.metrics);
        if now.bytes > self.max_bytes {
            self.make_room().await;
        }
    }

    async fn count(&mut self) -> Option<Size> {
        let size = self.table.size().await;
        let size = self.told(size)?;
        self.counted.set(size, &self.metrics);
        Some(size)
    }

    /// Deletes the least lately used until a twentieth of the room is free, so that this is not done for every batch.
    async fn make_room(&mut self) {
        while let Some(size) = self.count().await.filter(|size| size.bytes > self.max_bytes) {
            let gone = self.table.delete_least_used(size.bytes - (self.max_bytes - self.max_bytes / 20)).await;
            let Some(gone) = self.told(gone).filter(|gone| gone.rows > 0) else { return };
            self.metrics.answers_removed(Tier::Durable, Removed::Size, gone.rows);
        }
    }

    /// Deletes what is too old, and what is too much.
    async fn prune(&mut self) {
        let gone = delete_all(&self.table, &Which::ExpiredAt(self.clock.unix_ms())).await;
        let gone = self.told(gone).unwrap_or_default().len() as u64;
        self.metrics.answers_removed(Tier::Durable, Removed::Age, gone);
        self.make_room().await;
    }

    /// The result, if it is one; trouble with the database is told when it begins and when it is over.
    fn told<T>(&mut self, result: Result<T, Error>) -> Option<T> {
        match result {
            Ok(value) => {
                if std::mem::take(&mut self.failing) {
                    tracing::info!("kept answers can be written again");
                }
                Some(value)
            }
            Err(error) => {
                if !std::mem::replace(&mut self.failing, true) {
                    tracing::warn!(%error, "answers cannot be kept in the database; they are kept in memory only");
                }
                None
            }
        }
    }
}

#[cfg(test)]
#[path = "durable_tests.rs"]
mod tests;
