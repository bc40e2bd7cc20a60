//! The backends that could answer one request, as the queue sees them: which there are, and how dear each is at this moment.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::domain::model::ModelInfo;
use crate::models::{Entry, Loaded};
use crate::routing::{Look, Router};
use crate::scheduler::Candidates;

/// The cost of a backend that is asked only because all others are worse.
const LAST_RESORT: f64 = 1e9;

/// A backend that has the model.
pub struct Host {
    pub entry: Arc<Entry>,
    pub name: Arc<str>,
    pub model: Arc<ModelInfo>,
    /// Requests for the model that it works on at a time.
    pub slots: u32,
    /// The time that what it holds of the prompt saves.
    pub warm_saves: Duration,
    /// It was asked, and failed.
    left_out: AtomicBool,
}

impl Host {
    pub fn new(entry: Arc<Entry>, model: Arc<ModelInfo>, slots: u32, warm_saves: Duration) -> Self {
        let name = entry.backend.name().into();
        Self { entry, name, model, slots, warm_saves, left_out: AtomicBool::new(false) }
    }

    fn is_left_out(&self) -> bool {
        self.left_out.load(Ordering::Relaxed)
    }

    fn look(&self) -> Look {
        Look {
            up: self.entry.is_up(),
            loaded: matches!(self.entry.loaded(&self.model.name), Loaded::Yes(_)) || self.model.loaded,
            in_flight: u32::try_from(self.entry.in_flight()).unwrap_or(u32::MAX),
            slots: self.slots,
            warm_saves: self.warm_saves,
            weight: self.entry.backend.weight(),
        }
    }
}

/// All of them, for one request. What was tried in vain is left out from then on.
pub struct Choice {
    hosts: Vec<Host>,
    names: Vec<Arc<str>>,
    router: Router,
}

impl Choice {
    pub fn new(hosts: Vec<Host>, router: Router) -> Self {
        let names = hosts.iter().map(|host| Arc::clone(&host.name)).collect();
        Self { hosts, names, router }
    }

    pub fn host(&self, backend: &str) -> Option<&Host> {
        self.hosts.iter().find(|host| &*host.name == backend)
    }

    pub fn hosts(&self) -> &[Host] {
        &self.hosts
    }

    pub fn leave_out(&self, backend: &str) {
        if let Some(host) = self.host(backend) {
            host.left_out.store(true, Ordering::Relaxed);
        }
    }

    /// Whether there is one that was not tried in vain.
    pub fn has_others(&self) -> bool {
        self.hosts.iter().any(|host| !host.is_left_out())
    }

    /// The same backends without this one.
    pub fn without(&self, backend: &str) -> Self {
        let others = self.hosts.iter().filter(|host| &*host.name != backend && !host.is_left_out());
        let copy = |host: &Host| Host::new(Arc::clone(&host.entry), host.model.clone(), host.slots, host.warm_saves);
        Self::new(others.map(copy).collect(), self.router.clone())
    }

    fn open_cost(&self, host: &Host) -> Option<f64> {
        self.router.cost(&host.name, host.model.name.canonical(), &host.look())
    }

    /// Whether this is the one to ask when none should be asked: waiting until one may be would only hide that all fail.
    fn is_least_bad(&self, host: &Host) -> bool {
        let candidates = || self.hosts.iter().filter(|host| !host.is_left_out());
        if candidates().any(|host| self.open_cost(host).is_some()) {
            return false;
        }
        let rank =
            |host: &&Host| (!host.entry.is_up(), self.router.opens_in(&host.name, host.model.name.canonical()), host.entry.in_flight());
        candidates().min_by_key(rank).is_some_and(|least| Arc::ptr_eq(&least.name, &host.name))
    }
}

impl Candidates for Choice {
    fn backends(&self) -> &[Arc<str>] {
        &self.names
    }

    fn cost(&self, backend: &str) -> Option<f64> {
        let host = self.host(backend).filter(|host| !host.is_left_out())?;
        self.open_cost(host).or_else(|| self.is_least_bad(host).then_some(LAST_RESORT))
    }
}
