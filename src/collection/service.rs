//! The handle: beginning to collect, feedback, looking, forgetting.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::{mpsc, oneshot};

use super::collecting::Collecting;
use super::consent::consents;
use super::writer::{Keeper, Message, Notes, Room, Waiting};
use super::{Config, Exchange, Feedback, Filter, Owner, Row};
use crate::domain::clock::Clock;
use crate::domain::generation::Draft;
use crate::domain::principal::Principal;
use crate::storage::collection::{CollectionTable, Order, Told};
use crate::storage::{Error, Storage};
use crate::telemetry::Metrics;
use crate::telemetry::metrics::{Forgotten, Uncollected};

/// Rows deleted at once: few enough that other writers, who wait meanwhile, do not fall behind.
pub(super) const ROWS_AT_ONCE: u32 = 200;
/// Texts of one page, in bytes, but for the last row of it.
const PAGE_BYTES: u64 = 4 << 20;

/// Why feedback is not taken.
#[derive(Debug, thiserror::Error)]
pub enum Refused {
    #[error("no exchange with the request id `{0}` is kept")]
    Unknown(String),
    #[error("exchanges of several keys have the request id `{0}`")]
    Ambiguous(String),
    #[error(transparent)]
    Storage(#[from] Error),
}

/// What became of a wish to forget.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Gone {
    pub exchanges: u64,
    /// Whether nothing of them is left in the write-ahead log either. False: somebody reads it, and it is tried again later.
    pub overwritten: bool,
}

/// Cheap to clone.
#[derive(Debug, Clone)]
pub struct Collection(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    config: Config,
    table: CollectionTable,
    queue: mpsc::Sender<Message>,
    waiting_bytes: Arc<AtomicU64>,
    notes: Arc<Notes>,
    metrics: Metrics,
}

/// The two ends of a collection: one for those who use it, one for the task that writes.
#[must_use]
pub fn collection(config: &Config, storage: &Storage, metrics: &Metrics, clock: &Clock) -> (Collection, Keeper) {
    let (queue, receiver) = mpsc::channel(config.max_waiting.max(1));
    let notes = Arc::new(Notes::default());
    let keeper = Keeper::new(config, storage.collection(), receiver, Arc::clone(&notes), metrics, clock);
    let inner = Inner {
        config: config.clone(),
        table: storage.collection(),
        queue,
        waiting_bytes: Arc::default(),
        notes,
        metrics: metrics.clone(),
    };
    (Collection(Arc::new(inner)), keeper)
}

impl Collection {
    pub(super) fn config(&self) -> &Config {
        &self.0.config
    }

    /// Whether anything is collected at all.
    #[must_use]
    pub fn is_enabled(&self) -> bool {
        self.0.config.enabled
    }

    /// Whether exchanges of this caller are kept, where the request does not refuse.
    #[must_use]
    pub fn consents(&self, who: &Principal) -> bool {
        consents(&self.0.config, who, true)
    }

    /// Longest correction, in bytes.
    #[must_use]
    pub fn max_correction_bytes(&self) -> usize {
        self.0.config.max_exchange_bytes
    }

    /// Begins to collect an exchange, where that may be.
    #[must_use]
    pub fn begin(&self, draft: &Draft, at_ms: i64) -> Option<Box<Collecting>> {
        consents(&self.0.config, &draft.principal, draft.control.collect).then(|| Box::new(Collecting::new(self.clone(), draft, at_ms)))
    }

    /// Hands an exchange over. Never waits: with too many waiting it is left out, and counted.
    pub(super) fn put(&self, exchange: Exchange) {
        let room = Room::take(&self.0.waiting_bytes, exchange.bytes() as u64, self.0.config.max_waiting_bytes);
        let sent = room.is_some_and(|room| self.0.queue.try_send(Message::Put(Box::new(Waiting::new(exchange, room)))).is_ok());
        if !sent {
            self.left_out(Uncollected::QueueFull);
        }
    }

    pub(super) fn left_out(&self, why: Uncollected) {
        self.0.metrics.uncollected(why, 1);
    }

    /// Waits until everything handed over before was written, or given up.
    pub async fn flush(&self) {
        let (done, written) = oneshot::channel();
        if self.0.queue.send(Message::Flush(done)).await.is_ok() {
            // An error means that the writer ended, and it ends by writing everything.
            let _ = written.await;
        }
    }

    /// Notes what somebody says of an exchange, in the place of what was said before. `owner`: whose it must be; `None`: anyone's.
    ///
    /// # Errors
    /// An exchange that is not there, several that could be meant, or the database.
    pub async fn rate(&self, request_id: &str, owner: Option<&Owner>, feedback: &Feedback) -> Result<(), Refused> {
        let mut told = self.0.table.rate(request_id, owner, feedback).await?;
        if told == Told::Unknown {
            // It may be on its way.
            self.flush().await;
            told = self.0.table.rate(request_id, owner, feedback).await?;
        }
        match told {
            Told::Kept => {
                self.0.notes.stale.store(true, Ordering::Release);
                Ok(())
            }
            Told::Unknown => Err(Refused::Unknown(request_id.to_owned())),
            Told::Ambiguous => Err(Refused::Ambiguous(request_id.to_owned())),
        }
    }

    /// At most so many exchanges, the newest first, before the one of this number; fewer where they are large. The second part says whether
    /// there may be more.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn page(&self, filter: &Filter, before: Option<i64>, most: u32) -> Result<(Vec<Row>, bool), Error> {
        if before.is_none() {
            self.flush().await;
        }
        let mut rows = self.0.table.page(filter, Order::NewestFirst(before), most.saturating_add(1), PAGE_BYTES).await?;
        let most = usize::try_from(most).unwrap_or(usize::MAX);
        let bytes: u64 = rows.iter().map(bytes_of).sum();
        let more = rows.len() > most || bytes >= PAGE_BYTES;
        rows.truncate(most);
        Ok((rows, more))
    }

    /// Forgets exchanges for good. They are overwritten in the file, and in its log as soon as nobody reads it.
    ///
    /// # Errors
    /// When the database cannot be written.
    pub async fn forget(&self, filter: &Filter) -> Result<Gone, Error> {
        self.flush().await;
        let mut exchanges = 0;
        loop {
            let some = self.0.table.delete(filter, ROWS_AT_ONCE).await?;
            exchanges += some;
            if some < u64::from(ROWS_AT_ONCE) {
                break;
            }
            tokio::task::yield_now().await;
        }
        self.0.metrics.collected_removed(Forgotten::Request, exchanges);
        self.0.notes.stale.store(true, Ordering::Release);
        let size = self.0.table.size().await?;
        self.0.metrics.collection_size(size.rows, size.bytes);
        let overwritten = matches!(self.0.table.settle().await, Ok(true));
        // Otherwise the keeper tries again.
        self.0.notes.unsettled.fetch_or(!overwritten, Ordering::AcqRel);
        tracing::info!(exchanges, overwritten, "collected exchanges were forgotten");
        Ok(Gone { exchanges, overwritten })
    }
}

fn bytes_of(row: &Row) -> u64 {
    let said = row
        .feedback
        .as_ref()
        .map_or(0, |said| said.correction.as_ref().map_or(0, String::len) + said.comment.as_ref().map_or(0, String::len));
    (row.exchange.bytes() + said) as u64
}
