//! What handlers are given. Seen by `api` and `app` only.

use std::ops::Deref;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::Config;
use super::reload::Reloader;
use crate::auth::Keys;
use crate::collection::Collection;
use crate::domain::clock::Clock;
use crate::gateway::Gateway;
use crate::jobs::Jobs;
use crate::limits::Limits;
use crate::monitor::Sensors;
use crate::telemetry::metrics::Metrics;

/// Cheap to clone: every layer and handler of every request has one of its own.
#[derive(Clone)]
pub struct State(Arc<Parts>);

pub struct Parts {
    pub config: Config,
    pub gateway: Gateway,
    pub limits: Limits,
    pub collection: Collection,
    pub keys: Keys,
    pub jobs: Jobs,
    pub reloader: Reloader,
    pub metrics: Metrics,
    pub clock: Clock,
    pub sensors: Arc<Sensors>,
    pub readiness: Readiness,
    /// Runs what outlives its client; waited for at the end.
    pub tasks: TaskTracker,
    /// Cancelled when answers that are still running must end now.
    pub ending: CancellationToken,
}

impl State {
    pub fn new(parts: Parts) -> Self {
        Self(Arc::new(parts))
    }
}

impl Deref for State {
    type Target = Parts;

    fn deref(&self) -> &Parts {
        &self.0
    }
}

/// Whether this process wants to be given requests: its own state only, not whether a backend is up.
#[derive(Clone, Default)]
pub struct Readiness(Arc<AtomicU8>);

const STARTING: u8 = 0;
const READY: u8 = 1;
const LEAVING: u8 = 2;

impl Readiness {
    pub fn ready(&self) {
        self.0.store(READY, Ordering::SeqCst);
    }

    pub fn leaving(&self) {
        self.0.store(LEAVING, Ordering::SeqCst);
    }

    /// # Errors
    /// Why not.
    pub fn check(&self) -> Result<(), &'static str> {
        match self.0.load(Ordering::SeqCst) {
            STARTING => Err("starting"),
            LEAVING => Err("shutting down"),
            _ => Ok(()),
        }
    }
}
