//! What the queue is told of backends, and what it shows of itself.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;

use super::backend::{Backend, State};
use super::order::seconds;
use super::queue::{Queue, Waiter};
use super::standing::Stands;
use super::{At, Id, Runner};
use crate::domain::generation::Priority;
use crate::domain::waiting::Reason;

/// What is known of a backend from outside: configuration and its own word.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct BackendView {
    /// Requests it serves at a time, for each runner. `None`: to be found out.
    pub slots: Option<u32>,
    /// Models that it can hold loaded. `None`: to be found out.
    pub max_loaded: Option<u32>,
    /// Canonical names of the models that are loaded. `None`: not known now; what was last sent is taken to be.
    pub resident: Option<Vec<Arc<str>>>,
    /// Whether anything may be sent to it.
    pub available: bool,
    /// `Some(false)`: all models fit together. `Some(true)`: one at a time.
    pub exclusive_models: Option<bool>,
}

/// The queue at one moment.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct QueueView {
    pub waiting: usize,
    pub waiting_bytes: usize,
    pub in_flight: usize,
    pub classes: Vec<ClassView>,
    pub tenants: Vec<TenantView>,
    pub backends: Vec<BackendQueue>,
    /// Those that wait, in the order in which they are expected to go.
    pub requests: Vec<RequestView>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ClassView {
    pub class: Priority,
    pub waiting: usize,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct TenantView {
    pub tenant: Arc<str>,
    pub waiting: usize,
    pub in_flight: usize,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct BackendQueue {
    pub backend: Arc<str>,
    pub available: bool,
    pub runners: Vec<RunnerQueue>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RunnerQueue {
    pub model: Arc<str>,
    pub shape: Arc<str>,
    pub slots: u32,
    /// The number of slots was found out, not configured.
    pub learnt: bool,
    pub in_flight: usize,
    /// Of those in flight: clients that left, but whose slot cannot be free yet.
    pub booked: usize,
    pub resident: bool,
    /// Its requests are held back so that another model can be loaded.
    pub draining: bool,
    /// Expected time to load it, in milliseconds.
    pub load_ms: Option<u64>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RequestView {
    pub request: String,
    pub model: Arc<str>,
    pub class: Priority,
    pub tenant: Arc<str>,
    pub ahead: u32,
    pub reason: Reason,
    pub waited_ms: u64,
    pub eta_ms: Option<u64>,
}

/// Puts requests in the order in which they are expected to go, and says where each stands.
pub(super) fn in_order(stands: impl Iterator<Item = Stands>, mut requests: HashMap<Id, RequestView>) -> Vec<RequestView> {
    let mut ordered: Vec<RequestView> = stands
        .filter_map(|stands| {
            let request = requests.remove(&stands.id)?;
            let eta_ms = stands.eta_s.map(|eta| milliseconds(seconds(eta)));
            Some(RequestView { ahead: stands.ahead, reason: stands.reason, eta_ms, ..request })
        })
        .collect();
    ordered.sort_by_key(|request| request.ahead);
    ordered
}

impl Queue {
    /// Everything but the requests.
    pub(super) fn view(&self, now: At) -> QueueView {
        let classes = Priority::ALL.into_iter().rev().zip(self.waiting_by_class().into_iter().rev());
        QueueView {
            waiting: self.waiters.len(),
            waiting_bytes: self.bytes,
            in_flight: self.flights.len(),
            classes: classes.map(|(class, waiting)| ClassView { class, waiting }).collect(),
            tenants: self.tenants_view(),
            backends: self.backends.iter().map(|(name, backend)| self.backend_view(now, name, backend)).collect(),
            requests: Vec::new(),
        }
    }

    fn tenants_view(&self) -> Vec<TenantView> {
        let mut counts: BTreeMap<&Arc<str>, (usize, usize)> = BTreeMap::new();
        for waiter in self.waiters.values() {
            counts.entry(&waiter.place.tenant).or_default().0 += 1;
        }
        for flight in self.flights.values() {
            counts.entry(&flight.tenant).or_default().1 += 1;
        }
        counts.into_iter().map(|(tenant, (waiting, in_flight))| TenantView { tenant: tenant.clone(), waiting, in_flight }).collect()
    }

    fn backend_view(&self, now: At, name: &Arc<str>, backend: &Backend) -> BackendQueue {
        let held = self.plan(now, name, backend).held;
        let booked = |state: &State| state.in_flight.iter().filter(|&id| self.flights.get(id).is_some_and(|f| f.booked.is_some())).count();
        // What is set for the model goes before what is known of the backend, as it does when a slot is given.
        let set = |runner: &Runner| self.lanes.values().filter(|lane| lane.runner == *runner).find_map(|lane| lane.slots);
        let mut runners: Vec<RunnerQueue> = backend
            .runners
            .iter()
            .map(|(runner, state)| RunnerQueue {
                model: runner.model.clone(),
                shape: runner.shape.clone(),
                slots: set(runner).unwrap_or_else(|| state.slots.known()),
                learnt: set(runner).is_none() && state.slots.is_learnt(),
                in_flight: state.in_flight.len(),
                booked: booked(state),
                resident: state.resident,
                draining: held.contains(runner),
                load_ms: state.speed.load_s().map(|load| milliseconds(seconds(load))),
            })
            .collect();
        runners.sort_by(|a, b| (&a.model, &a.shape).cmp(&(&b.model, &b.shape)));
        BackendQueue { backend: name.clone(), available: backend.available, runners }
    }

    /// Those that wait, not yet in order.
    pub(super) fn requests(&self, now: At) -> HashMap<Id, RequestView> {
        let of = |waiter: &Waiter| {
            let model = self.lanes.get(&waiter.lane).map_or_else(|| "".into(), |lane| lane.runner.model.clone());
            RequestView {
                request: waiter.request.to_string(),
                model,
                class: waiter.place.class,
                tenant: waiter.place.tenant.clone(),
                ahead: 0,
                reason: Reason::Busy,
                waited_ms: milliseconds(now.saturating_sub(waiter.place.arrived)),
                eta_ms: None,
            }
        };
        self.waiters.iter().map(|(&id, waiter)| (id, of(waiter))).collect()
    }

    /// For each backend, the slots of the models it has loaded and how many requests are in flight.
    pub(super) fn slots(&self) -> Vec<(Arc<str>, u32, usize)> {
        let of = |backend: &Backend| {
            let loaded = backend.runners.values().filter(|state| state.resident);
            let in_flight = backend.runners.values().map(|state| state.in_flight.len()).sum();
            (loaded.map(|state| state.slots.known()).sum(), in_flight)
        };
        self.backends
            .iter()
            .map(|(name, backend)| {
                let (slots, in_flight) = of(backend);
                (name.clone(), slots, in_flight)
            })
            .collect()
    }
}

fn milliseconds(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}
