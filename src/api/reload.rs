//! Asking the process for its configuration to be read anew.

use serde::Serialize;
use tokio::sync::{mpsc, oneshot};
use utoipa::ToSchema;

/// How long requests for it may pile up.
const WAITING: usize = 8;

/// One wish for a new configuration, and where the answer goes.
pub struct Asked(pub oneshot::Sender<Result<Applied, Refused>>);

/// What a new configuration changed.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, ToSchema)]
pub struct Applied {
    /// Sections that changed and hold now.
    pub changed: Vec<String>,
    /// Sections that changed and hold from the next start on.
    pub needs_restart: Vec<String>,
    pub backends_added: Vec<String>,
    pub backends_removed: Vec<String>,
}

/// Everything that is wrong with a configuration. Nothing of it is in force.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused {
    pub problems: Vec<String>,
}

/// Where wishes go. Cheap to clone.
#[derive(Clone)]
pub struct Reloader(mpsc::Sender<Asked>);

impl Reloader {
    #[must_use]
    pub fn new() -> (Self, mpsc::Receiver<Asked>) {
        let (sender, receiver) = mpsc::channel(WAITING);
        (Self(sender), receiver)
    }

    /// Has the configuration read anew. `None`: the process is ending.
    pub async fn reload(&self) -> Option<Result<Applied, Refused>> {
        let (answer, answered) = oneshot::channel();
        self.0.send(Asked(answer)).await.ok()?;
        answered.await.ok()
    }
}
