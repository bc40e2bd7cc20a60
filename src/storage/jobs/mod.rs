//! The tables of background jobs: [`submit`](JobTable::submit), [`change`](JobTable::change), [`claim`](JobTable::claim), and looking.
//!
//! They promise that what was acknowledged survives a power cut, and that a job is changed only by whoever named the state and the
//! epoch it had: a worker that has lost its lease changes nothing any more. Which change is right is decided in `jobs::machine`, whose
//! pure functions are called while the write lock is held, so that nobody changes the row in between.

mod change;
mod claim;
mod look;
mod read;
mod row;
mod schedules;
mod submit;
#[cfg(test)]
pub(crate) mod tests;
mod tidy;

use super::Storage;

pub use change::{Attempt, Change, News};
pub use claim::Waiting;
pub use look::{Page, Pool, PoolOrder};
pub use row::{Artifact, AttemptMade, Event, Fault, Job, Needs, Order, Standing, State, Step};
pub use schedules::{Missed, Schedule};
pub use submit::{Key, Submitted};
pub use tidy::{Forgotten, Kept};

/// The jobs in the file.
#[derive(Debug, Clone)]
pub struct JobTable {
    storage: Storage,
}

impl JobTable {
    pub(super) fn new(storage: Storage) -> Self {
        Self { storage }
    }
}
