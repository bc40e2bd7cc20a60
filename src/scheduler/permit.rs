//! The right to use a slot.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;

use super::Id;
use super::handle::Shared;
use super::queue::{Ending, Grant};
use crate::domain::generation::Usage;

/// Generated tokens are told to the queue in lots of this many: the lock is everyone's.
const LOT: u64 = 16;

/// A slot of a backend. It is free again when this is finished or dropped, exactly once.
#[derive(Debug)]
pub struct Permit {
    shared: Arc<Shared>,
    id: Id,
    backend: Arc<str>,
    waited: Duration,
    loads: bool,
    displaced: Arc<Notify>,
    untold: u64,
    failed: bool,
    booked: Option<Duration>,
    ended: bool,
}

impl Permit {
    pub(super) fn new(shared: Arc<Shared>, grant: Grant, displaced: Arc<Notify>) -> Self {
        let Grant { id, backend, waited, loads, .. } = grant;
        Self { shared, id, backend, waited, loads, displaced, untold: 0, failed: false, booked: None, ended: false }
    }

    /// Where to ask.
    #[must_use]
    pub fn backend(&self) -> &Arc<str> {
        &self.backend
    }

    /// How long the request waited.
    #[must_use]
    pub fn waited(&self) -> Duration {
        self.waited
    }

    /// Whether this request makes the backend load the model.
    #[must_use]
    pub fn loads(&self) -> bool {
        self.loads
    }

    /// The first token came, `after` the backend was asked.
    pub fn first_token(&mut self, after: Duration) {
        self.shared.act(|queue, now| queue.first_token(now, self.id, after.as_secs_f64()));
    }

    /// One more piece of the answer came.
    pub fn token(&mut self) {
        self.untold += 1;
        if self.untold >= LOT {
            self.shared.act(|queue, _| queue.tokens(self.id, self.untold));
            self.untold = 0;
        }
    }

    /// The backend has given its whole answer: the slot is free, and what it took is learnt from, unless the attempt failed.
    pub fn finish(&mut self, usage: &Usage) {
        self.end(Some(*usage));
    }

    /// The client left before the first token: the backend may not notice for as long as this, so the slot is kept after the drop.
    pub fn keep_booked(&mut self, span: Duration) {
        self.booked = Some(span);
    }

    /// Resolves when an urgent request is to have this slot. Stays pending for ever otherwise.
    pub async fn displaced(&self) {
        self.displaced.notified().await;
    }

    /// The attempt failed: nothing is learnt from it, and its tenant is not charged.
    pub fn failed(&mut self) {
        self.failed = true;
    }

    fn end(&mut self, usage: Option<Usage>) {
        if std::mem::replace(&mut self.ended, true) {
            return;
        }
        let (untold, failed, booked) = (std::mem::take(&mut self.untold), self.failed, self.booked);
        self.shared.landed(self.id);
        self.shared.act(|queue, now| {
            queue.tokens(self.id, untold);
            queue.end(now, self.id, &Ending { usage, failed, booked: booked.map(|span| now.saturating_add(span)) });
        });
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.end(None);
    }
}
