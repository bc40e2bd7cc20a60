//! What an operator sees of the gateway, and may do to it.

use std::sync::Arc;

use serde::Serialize;

use super::generate::Gateway;
use crate::backends::{Health, Resident, Trouble};
use crate::cache::exact::{Filter, Stats};
use crate::cache::semantic::Purge;
use crate::domain::principal::Principal;
use crate::models::Entry;
use crate::routing;
use crate::scheduler::QueueView;

/// One backend, as everything that decides about it sees it.
#[derive(Debug, Serialize)]
pub struct BackendReport {
    pub name: String,
    pub kind: &'static str,
    /// Where or on what it runs.
    pub about: String,
    /// `up`, `unknown` or `down`.
    pub health: &'static str,
    /// Why it is down.
    pub why: Option<String>,
    pub in_flight: usize,
    /// Requests for one model that it works on at a time, where that is configured.
    pub slots: Option<u32>,
    pub models: usize,
    /// What it has in memory; absent before it could be asked.
    pub resident: Option<Arc<Vec<Resident>>>,
    /// What is stuck there, and what is done about it.
    pub troubles: Vec<Trouble>,
    /// What was stuck lately and is no longer, the latest last.
    pub past_troubles: Vec<Trouble>,
    /// What routing thinks of it; absent before its first request.
    pub routing: Option<routing::BackendView>,
}

impl Gateway {
    /// The names that stand for models which this caller may ask for, each with its models in order.
    pub fn aliases(&self, who: &Principal) -> Vec<(String, Vec<String>)> {
        self.settings().aliases.for_whom(|name| who.may_use(name))
    }

    /// The queue as it stands.
    pub fn queue(&self) -> QueueView {
        self.parts().scheduler.view()
    }

    pub fn backends(&self) -> Vec<BackendReport> {
        let mut views = self.parts().router.view();
        let report = |entry: &Arc<Entry>| {
            let name = entry.backend.name();
            let view = views.iter().position(|view| view.backend == name).map(|at| views.swap_remove(at));
            report(entry, view)
        };
        self.registry().entries().iter().map(report).collect()
    }

    pub fn cached(&self) -> Stats {
        self.parts().exact.stats()
    }

    /// Forgets answers, and tells how many.
    ///
    /// # Errors
    /// When the database cannot be written; those in memory are forgotten all the same.
    pub async fn purge(&self, filter: &Filter) -> Result<u64, crate::cache::exact::Error> {
        let parts = self.parts();
        // As the backends have it now. Another name of it stands for the same answers.
        let digest = match filter {
            Filter::Model(model) => super::steps::digest(&self.registry().having(model)),
            _ => None,
        };
        let alike = match filter {
            Filter::All => Some(Purge::All),
            Filter::Tenant(tenant) => Some(Purge::Tenant(tenant.clone())),
            Filter::Model(model) => Some(Purge::ModelDigest(digest.clone().unwrap_or_else(|| model.canonical().to_owned()))),
            Filter::Digest(digest) => Some(Purge::ModelDigest(digest.clone())),
            Filter::Key(_) => None,
        };
        let mut purged = alike.map_or(0, |alike| parts.semantic.purge(&alike)) as u64;
        purged += parts.exact.purge(filter).await?;
        if let Some(digest) = digest {
            purged += parts.exact.purge(&Filter::Digest(digest)).await?;
        }
        Ok(purged)
    }

    /// Answers that are given to questions that mean the same: how many, and their size in bytes.
    pub fn alike(&self) -> (usize, usize) {
        self.parts().semantic.size()
    }

    /// Generations that are kept for their clients.
    pub fn kept_count(&self) -> usize {
        self.parts().kept.count()
    }
}

fn report(entry: &Entry, routing: Option<routing::BackendView>) -> BackendReport {
    let health = match entry.backend.health() {
        Health::Up => "up",
        Health::Unknown => "unknown",
        Health::Down(_) => "down",
    };
    BackendReport {
        name: entry.backend.name().to_owned(),
        kind: entry.backend.kind().as_str(),
        about: entry.backend.describe(),
        health,
        why: entry.down(),
        in_flight: entry.in_flight(),
        slots: entry.backend.slots(),
        models: entry.models().len(),
        resident: entry.resident(),
        troubles: entry.backend.troubles(),
        past_troubles: entry.backend.past_troubles(),
        routing,
    }
}
