//! What a gateway is made of. `app` builds it.

use std::sync::Arc;

use tokio_util::task::TaskTracker;

use super::kept::Kept;
use super::learning::TokenSizes;
use super::record::Ledger;
use super::shares::Shares;
use crate::cache::answer::Answer;
use crate::cache::exact::Exact;
use crate::cache::prefix::Prefixes;
use crate::cache::semantic::Semantic;
use crate::cache::warm_set::WarmSet;
use crate::limits::Limits;
use crate::models::{Normaliser, Registry};
use crate::routing::Router;
use crate::routing::fallback::Pressure;
use crate::scheduler::Scheduler;

pub struct Parts {
    pub registry: Registry,
    pub scheduler: Scheduler,
    pub router: Router,
    pub limits: Limits,
    pub exact: Exact,
    pub shares: Shares,
    pub prefixes: Prefixes,
    pub semantic: Semantic<Answer>,
    pub warm: WarmSet,
    pub normaliser: Arc<Normaliser>,
    pub sizes: TokenSizes,
    pub kept: Kept,
    pub ledger: Ledger,
    /// Runs what outlives its client; waited for at the end.
    pub tasks: TaskTracker,
}

impl Parts {
    /// How hard-pressed the machine is. Nothing measures it yet; conditions on it do not hold then.
    pub fn pressure(&self) -> Pressure {
        Pressure::default()
    }
}
