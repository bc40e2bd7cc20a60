//! The queue itself: requests come, go, are served and end; after each of these what can be served now is.
//!
//! Pure: the time comes in, and what happened to others comes out as [`Effect`]s. `dispatch` decides what goes where, `forecast`
//! what is to be expected, `standing` who is told what.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use hashbrown::HashMap;

use super::backend::Backend;
use super::bounds::Outlook;
use super::class::index;
use super::config::Config;
use super::entry::{Candidates, Entry};
use super::estimate::{Lengths, float};
use super::lane::{Lane, Place};
use super::order::{self, Arrival};
use super::refusal::Refusal;
use super::tenants::{self, Item};
use super::view::BackendView;
use super::{At, Id, LaneId, Runner};
use crate::domain::generation::{Priority, Usage};
use crate::domain::id::RequestId;

/// Lanes that may exist at a time.
const MOST_LANES: usize = 1_024;
/// A lane without work is forgotten after this long.
const LANE_REST: Duration = Duration::from_mins(10);

/// What became of others.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Effect {
    Granted(Grant),
    Refused {
        id: Id,
        class: Priority,
        refusal: Refusal,
    },
    /// A running request is to give up its slot.
    Displace(Id),
}

/// A slot for a request.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Grant {
    pub id: Id,
    pub backend: Arc<str>,
    pub class: Priority,
    pub waited: Duration,
    pub loads: bool,
    pub lifted: bool,
}

/// One that waits.
#[derive(Debug)]
pub(super) struct Waiter {
    pub request: RequestId,
    pub lane: LaneId,
    pub place: Place,
    pub key: Option<Arc<str>>,
    pub num_predict: Option<u64>,
    pub deadline: Option<At>,
    pub expires: At,
    pub bytes: usize,
    pub candidates: Arc<dyn Candidates>,
    pub service_s: Option<f64>,
    /// The wait that was expected when it came, uncorrected, in seconds.
    pub expected_s: Option<f64>,
    /// When it was first looked at in the order that stands, and the wait that was left then, before correction.
    pub foretold: Option<(At, f64)>,
}

/// One that is being served.
#[derive(Debug)]
pub(super) struct Flight {
    pub backend: Arc<str>,
    pub runner: Runner,
    pub lane: LaneId,
    pub class: Priority,
    pub tenant: Arc<str>,
    pub key: Option<Arc<str>>,
    pub num_predict: Option<u64>,
    pub prompt_tokens: u64,
    pub started: At,
    pub first_token: Option<At>,
    pub service_s: Option<f64>,
    /// Tokens charged so far, generated ones as the paper weighs them.
    pub charged: u64,
    pub loads: bool,
    pub displaced: bool,
    pub booked: Option<At>,
}

/// How a request ended.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Ending {
    pub usage: Option<Usage>,
    pub failed: bool,
    /// The slot cannot be used before this.
    pub booked: Option<At>,
}

/// The lane of a runner on these backends.
type Named = (Vec<Arc<str>>, LaneId);

#[derive(Debug, Default)]
pub(super) struct Queue {
    pub config: Config,
    pub backends: BTreeMap<Arc<str>, Backend>,
    pub lanes: HashMap<LaneId, Lane>,
    named: HashMap<Runner, Vec<Named>>,
    pub waiters: HashMap<Id, Waiter>,
    pub flights: HashMap<Id, Flight>,
    /// Those that wait, for each class in the order in which they came.
    pub came: [BTreeSet<(At, Id)>; Priority::ALL.len()],
    expiring: BTreeSet<(At, Id)>,
    booked: BTreeSet<(At, Id)>,
    pub bytes: usize,
    pub lengths: Lengths,
    last: u64,
    pub happened: Vec<Effect>,
}

impl Queue {
    pub(super) fn new(config: Config) -> Self {
        Self { config, ..Self::default() }
    }

    /// What happened since the last call.
    pub(super) fn effects(&mut self) -> Vec<Effect> {
        std::mem::take(&mut self.happened)
    }

    pub(super) fn update(&mut self, now: At, name: &str, view: &BackendView) {
        if !self.backends.contains_key(name) {
            let lanes = self.lanes.iter().filter(|(_, lane)| lane.waiting > 0 && lane.backends.iter().any(|b| &**b == name));
            let lanes = lanes.map(|(&id, _)| id).collect();
            let mut backend = Backend { lanes, ..Backend::default() };
            // It was here before: what is still in flight there counts.
            for (&id, flight) in self.flights.iter().filter(|(_, flight)| &*flight.backend == name) {
                let state = backend.runner(now, &flight.runner);
                state.resident = true;
                state.in_flight.push(id);
            }
            self.backends.insert(name.into(), backend);
        }
        if let Some(backend) = self.backends.get_mut(name) {
            backend.update(now, view);
            for lane in backend.lanes.clone().iter().filter_map(|id| self.lanes.get(id)) {
                backend.meet(now, &lane.runner);
            }
        }
        self.fill(now, name);
    }

    /// The backend is no more. What is in flight there ends by itself; what waits may go elsewhere, or expires.
    pub(super) fn remove(&mut self, now: At, name: &str) {
        self.backends.remove(name);
        let known = &self.backends;
        let served = |waiter: &Waiter| waiter.candidates.backends().iter().any(|b| known.contains_key(b));
        let lost: Vec<Id> = self.waiters.iter().filter(|(_, waiter)| !served(waiter)).map(|(&id, _)| id).collect();
        for id in lost {
            self.refuse(id, Refusal::NoBackend);
        }
        self.fill_all(now);
    }

    /// Lets a request in. Whether it was served at once is among the effects.
    pub(super) fn admit(&mut self, now: At, entry: &Entry, deadline: Option<At>) -> Result<Id, Refusal> {
        let backends = entry.candidates.backends();
        if !backends.iter().any(|b| self.backends.contains_key(b)) {
            return Err(Refusal::NoBackend);
        }
        let lane = self.lane(now, &entry.runner, backends)?;
        if let Some(lane) = self.lanes.get_mut(&lane) {
            lane.slots = entry.slots;
        }
        for name in backends {
            if let Some(backend) = self.backends.get_mut(name) {
                backend.meet(now, &entry.runner);
            }
        }
        self.last += 1;
        let id = self.last;
        let patience = entry.patience.unwrap_or(self.config.patience);
        let outlook = self.insert(now, id, lane, entry, deadline, patience);
        for backend in self.by_cost(entry) {
            self.fill(now, &backend);
        }
        if self.waiters.contains_key(&id) {
            self.keep(now, id, &outlook, patience, deadline)?;
        }
        Ok(id)
    }

    /// The one that asked is gone. True when it waited.
    pub(super) fn cancel(&mut self, now: At, id: Id) -> bool {
        let Some(waiter) = self.take(id) else { return false };
        for backend in waiter.candidates.backends() {
            self.fill(now, backend);
        }
        true
    }

    pub(super) fn first_token(&mut self, now: At, id: Id, after_s: f64) {
        let Some(flight) = self.flights.get_mut(&id) else { return };
        if flight.first_token.replace(now).is_some() {
            return;
        }
        let Some(backend) = self.backends.get_mut(&flight.backend) else { return };
        let Some(state) = backend.runners.get_mut(&flight.runner) else { return };
        state.slots.first_token(now, id, self.config.reprobe_after);
        state.since = state.since.or(Some(now));
        if flight.loads {
            state.speed.loaded(after_s, flight.prompt_tokens);
        }
        let name = flight.backend.clone();
        self.fill(now, &name);
    }

    /// Generated tokens of a request that is being served.
    pub(super) fn tokens(&mut self, id: Id, tokens: u64) {
        let Some(flight) = self.flights.get_mut(&id) else { return };
        let cost = tenants::cost(0, tokens);
        flight.charged += cost;
        if let Some(lane) = self.lanes.get_mut(&flight.lane) {
            lane.class_mut(flight.class).tenants.charge(&flight.tenant, cost);
        }
    }

    /// A request that was served has ended, or its slot need not be kept any longer.
    pub(super) fn end(&mut self, now: At, id: Id, ending: &Ending) {
        let Some(flight) = self.flights.get_mut(&id) else { return };
        if let Some(until) = ending.booked.filter(|&until| until > now && flight.booked.is_none()) {
            flight.booked = Some(until);
            self.booked.insert((until, id));
            return;
        }
        let Some(flight) = self.flights.remove(&id) else { return };
        if let Some(until) = flight.booked {
            self.booked.remove(&(until, id));
        }
        self.settle(now, &flight, ending);
        self.learn(now, id, &flight, ending);
        self.fill(now, &flight.backend);
    }

    /// What time alone brings: places that expire, slots that were kept, models that have had their time.
    pub(super) fn tick(&mut self, now: At) {
        while let Some(&(until, id)) = self.booked.first().filter(|&&(until, _)| until <= now) {
            self.booked.remove(&(until, id));
            self.end(now, id, &Ending::default());
        }
        while let Some(&(_, id)) = self.expiring.first().filter(|&&(until, _)| until <= now) {
            let waited = self.waiters.get(&id).map_or(Duration::ZERO, |waiter| now.saturating_sub(waiter.place.arrived));
            self.refuse(id, Refusal::Expired { waited });
        }
        self.fill_all(now);
        self.forget_lanes(now);
    }

    /// Whether time alone may change anything.
    pub(super) fn awaits_time(&self) -> bool {
        !self.waiters.is_empty() || !self.booked.is_empty()
    }

    /// What waits, by class, from the last to the first.
    pub(super) fn waiting_by_class(&self) -> [usize; Priority::ALL.len()] {
        std::array::from_fn(|n| self.came[n].len())
    }

    fn fill_all(&mut self, now: At) {
        let busy: Vec<Arc<str>> = self.backends.iter().filter(|(_, b)| !b.lanes.is_empty()).map(|(name, _)| name.clone()).collect();
        for name in busy {
            self.fill(now, &name);
        }
    }

    fn insert(&mut self, now: At, id: Id, lane: LaneId, entry: &Entry, deadline: Option<At>, patience: Duration) -> Outlook {
        let forecast = self.forecast(now, lane, entry);
        let mean_s = forecast.mean_s;
        let arrival =
            Arrival { at: now, wait_s: forecast.behind_all_s, service_s: forecast.service_s, relative: forecast.relative, deadline };
        let item = Item { due: order::due(&arrival), id, service_s: forecast.service_s.unwrap_or(mean_s) };
        let place = Place {
            class: entry.class,
            tenant: entry.tenant.clone(),
            weight: entry.weight,
            arrived: now,
            item,
            warm: entry.warm,
            prompt_tokens: entry.prompt_tokens,
        };
        let expires = deadline.unwrap_or(At::MAX).min(now.saturating_add(patience));
        if let Some(lane) = self.lanes.get_mut(&lane) {
            let (class, cost) = (lane.class_mut(entry.class), float(forecast.cost));
            class.mean_cost.add(cost);
            if let Some(service) = forecast.service_s.filter(|&s| s > 0.0) {
                class.mean_s.add(service);
                class.pace.add(cost / service);
            }
        }
        self.enter(
            id,
            Waiter {
                request: entry.request.clone(),
                lane,
                place,
                key: entry.key.clone(),
                num_predict: entry.num_predict,
                deadline,
                expires,
                bytes: entry.bytes,
                candidates: entry.candidates.clone(),
                service_s: forecast.service_s,
                expected_s: forecast.wait_s,
                foretold: None,
            },
        );
        Outlook { wait_s: forecast.wait_s.map(|wait| wait * forecast.factor), service_s: forecast.service_s }
    }

    fn enter(&mut self, id: Id, waiter: Waiter) {
        self.came[index(waiter.place.class)].insert((waiter.place.arrived, id));
        self.expiring.insert((waiter.expires, id));
        self.bytes += waiter.bytes;
        if let Some(lane) = self.lanes.get_mut(&waiter.lane) {
            lane.insert(&waiter.place, self.config.tenant_credit);
            for name in &lane.backends {
                if let Some(backend) = self.backends.get_mut(name) {
                    backend.lanes.insert(waiter.lane);
                }
            }
        }
        self.waiters.insert(id, waiter);
    }

    /// Takes one out that waits, whatever is to become of it.
    pub(super) fn take(&mut self, id: Id) -> Option<Waiter> {
        let waiter = self.waiters.remove(&id)?;
        self.came[index(waiter.place.class)].remove(&(waiter.place.arrived, id));
        self.expiring.remove(&(waiter.expires, id));
        self.bytes -= waiter.bytes;
        if let Some(lane) = self.lanes.get_mut(&waiter.lane) {
            lane.remove(&waiter.place);
            if lane.waiting == 0 {
                for name in &lane.backends {
                    if let Some(backend) = self.backends.get_mut(name) {
                        backend.lanes.remove(&waiter.lane);
                    }
                }
            }
        }
        Some(waiter)
    }

    pub(super) fn refuse(&mut self, id: Id, refusal: Refusal) {
        if let Some(waiter) = self.take(id) {
            self.happened.push(Effect::Refused { id, class: waiter.place.class, refusal });
        }
    }

    pub(super) fn granted(&mut self, grant: Grant) {
        self.happened.push(Effect::Granted(grant));
    }

    fn lane(&mut self, now: At, runner: &Runner, backends: &[Arc<str>]) -> Result<LaneId, Refusal> {
        let known = self.named.get(runner).and_then(|lanes| lanes.iter().find(|(names, _)| names == backends));
        if let Some(&(_, id)) = known {
            return Ok(id);
        }
        if self.lanes.len() >= MOST_LANES {
            self.forget_lanes(At::MAX);
        }
        if self.lanes.len() >= MOST_LANES {
            return Err(Refusal::Full { ahead: self.waiters.len(), most: self.config.max_waiting, retry_after: Duration::from_secs(1) });
        }
        self.last += 1;
        let mut lane = Lane::new(runner.clone(), backends.to_vec());
        lane.used = now;
        self.lanes.insert(self.last, lane);
        self.named.entry(runner.clone()).or_default().push((backends.to_vec(), self.last));
        Ok(self.last)
    }

    fn forget_lanes(&mut self, now: At) {
        let stale = |lane: &Lane| lane.waiting == 0 && now.saturating_sub(lane.used) > LANE_REST;
        if !self.lanes.values().any(stale) {
            return;
        }
        self.lanes.retain(|_, lane| !stale(lane));
        let lanes = &self.lanes;
        self.named.retain(|_, named| {
            named.retain(|(_, id)| lanes.contains_key(id));
            !named.is_empty()
        });
    }
}
