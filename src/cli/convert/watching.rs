//! What somebody at a terminal sees of a conversion, and how it is stopped.

use std::sync::{Mutex, MutexGuard, PoisonError};

use serde_json::json;
use tokio_util::sync::CancellationToken;

use crate::cli::jobs;
use crate::cli::terminal::{self, Status};
use crate::jobs::make::steps::Watcher;

/// Hears for the command line.
pub struct Watching {
    status: Mutex<Status>,
    cancel: CancellationToken,
}

impl Watching {
    pub fn new() -> Self {
        Self { status: Mutex::new(Status::standard()), cancel: CancellationToken::new() }
    }

    /// Ctrl-C ends the work at its next good place, so that nothing is left half done.
    pub fn stop_on_interrupt(&self) {
        let cancel = self.cancel.clone();
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            if runtime.is_ok_and(|runtime| runtime.block_on(tokio::signal::ctrl_c()).is_ok()) {
                cancel.cancel();
            }
        });
    }

    fn status(&self) -> MutexGuard<'_, Status> {
        self.status.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn say(&self, line: &str) {
        self.clear();
        terminal::note(&terminal::harmless(line));
    }

    pub fn clear(&self) {
        self.status().clear();
    }
}

impl Watcher for Watching {
    fn progress(&self, what: &str, done: u64, total: u64, unit: &'static str) {
        let mut status = self.status();
        if status.is_shown() {
            status.show(&format!("{what} {}", jobs::bar(&json!({"done": done, "total": total, "unit": unit}))));
        }
    }

    fn note(&self, _: &str) {}

    fn cancel(&self) -> &CancellationToken {
        &self.cancel
    }
}
