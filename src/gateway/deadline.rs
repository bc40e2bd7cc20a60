//! How long a generation may take.

use std::time::{Duration, Instant};

use super::error::{Error, Stage};

/// When a generation's time is up, and how long it was.
#[derive(Debug, Clone, Copy)]
pub struct Deadline {
    pub at: Instant,
    pub allowed: Duration,
}

impl Deadline {
    pub fn after(allowed: Duration) -> Self {
        Self { at: Instant::now() + allowed, allowed }
    }
}

/// Does work, but no longer than until the deadline.
///
/// # Errors
/// That the time was up before the work was done; the work is dropped then.
pub async fn within<T>(deadline: Option<Deadline>, work: impl Future<Output = T>) -> Result<T, Error> {
    match deadline {
        None => Ok(work.await),
        Some(Deadline { at, allowed }) => {
            let late = |_| Error::Deadline { stage: Stage::Waiting, allowed };
            tokio::time::timeout_at(at.into(), work).await.map_err(late)
        }
    }
}
