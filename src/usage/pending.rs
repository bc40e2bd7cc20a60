//! Rows on their way to the writer: taken without waiting, and without waking anyone for each of them.

use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::{Notify, oneshot};

use super::Row;

/// What waits for the writer, between it and all who record.
#[derive(Debug)]
pub(super) struct Pending {
    waiting: Mutex<Waiting>,
    news: Notify,
    /// So many rows are a batch.
    full: usize,
    /// No more are kept.
    most: usize,
}

/// What the writer finds.
#[derive(Debug, Default)]
pub(super) struct Waiting {
    pub rows: Vec<Row>,
    /// Who wants to know when these rows were written.
    pub flushes: Vec<oneshot::Sender<()>>,
    /// Nothing more comes.
    pub closed: bool,
}

impl Pending {
    pub(super) fn new(full: usize, most: usize) -> Self {
        Self { waiting: Mutex::default(), news: Notify::new(), full, most }
    }

    /// Takes a row; false when there are as many as may wait, or nobody writes any more.
    pub(super) fn push(&self, row: Row) -> bool {
        let mut waiting = self.lock();
        if waiting.closed || waiting.rows.len() >= self.most {
            return false;
        }
        waiting.rows.push(row);
        let rows = waiting.rows.len();
        drop(waiting);
        // The first starts the writer's clock and a whole batch is written at once; whoever comes between needs nobody's attention.
        if rows == 1 || rows == self.full {
            self.news.notify_one();
        }
        true
    }

    /// Is told when everything pushed before was written, or when nobody writes any more.
    pub(super) fn flush(&self, done: oneshot::Sender<()>) {
        let mut waiting = self.lock();
        if !waiting.closed {
            waiting.flushes.push(done);
            drop(waiting);
            self.news.notify_one();
        }
    }

    /// Nothing more is taken.
    pub(super) fn close(&self) {
        self.lock().closed = true;
        self.news.notify_one();
    }

    /// Until something is worth looking at.
    pub(super) async fn news(&self) {
        self.news.notified().await;
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
