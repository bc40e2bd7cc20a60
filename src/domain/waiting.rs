//! What a request that waits for its turn may know of it.

use std::time::Duration;

use serde::Serialize;
use tokio::sync::watch;

/// Why a request waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Reason {
    /// All slots for the model are in use.
    Busy,
    /// The model is being loaded, or waits for another one to make room.
    Loading,
    /// A limit of the key allows it only later.
    RateLimit,
}

/// Where a request stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Waiting {
    /// How many requests go before it. 0: it is next. It rises only when requests of a higher priority came.
    pub ahead: u32,
    pub reason: Reason,
    /// When it will be its turn, as far as can be told.
    pub eta: Option<Duration>,
}

/// Where news of a waiting request go. Cheap to clone. Nobody need listen.
#[derive(Debug, Clone)]
pub struct Progress(watch::Sender<Option<Waiting>>);

impl Progress {
    #[must_use]
    pub fn new() -> (Self, watch::Receiver<Option<Waiting>>) {
        let (sender, receiver) = watch::channel(None);
        (Self(sender), receiver)
    }

    /// Tells where the request stands now; says nothing when that is what was said last.
    pub fn tell(&self, waiting: Waiting) {
        self.0.send_if_modified(|told| told.replace(waiting) != Some(waiting));
    }

    /// Whether anybody listens: working out a position that nobody reads is a waste.
    #[must_use]
    pub fn is_heard(&self) -> bool {
        self.0.receiver_count() > 0
    }
}
