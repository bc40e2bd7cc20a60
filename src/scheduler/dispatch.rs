//! What goes where now: the one place that hands out slots.

use std::sync::Arc;
use std::time::Duration;

use super::backend::{Backend, State};
use super::class::Turn;
use super::entry::Entry;
use super::lane::Lane;
use super::order::seconds;
use super::queue::{Flight, Grant, Queue};
use super::refusal::Refusal;
use super::swap::{Claim, Holder, must_yield};
use super::tenants;
use super::{At, Id, LaneId, Runner};
use crate::domain::generation::Priority;

/// Time to load a model that was never seen being loaded, in seconds.
pub(super) const UNKNOWN_LOAD_S: f64 = 2.0;
/// Time to serve a request of which nothing is known, in seconds.
pub(super) const UNKNOWN_SERVICE_S: f64 = 1.0;

/// A request that goes now.
#[derive(Debug)]
struct Next {
    lane: LaneId,
    id: Id,
    turn: Turn,
    loads: bool,
    probe: bool,
}

/// What one backend's lanes may do now.
#[derive(Debug, Default)]
pub(super) struct Plan {
    /// These get nothing: the backend is to be free of them.
    pub held: Vec<Runner>,
    /// These may be loaded now.
    pub loadable: Vec<Runner>,
}

impl Queue {
    /// Gives the backend's free slots to those that wait for them.
    pub(super) fn fill(&mut self, now: At, name: &str) {
        while let Some(next) = self.next(now, name) {
            self.send(now, name, &next);
        }
    }

    /// The backends a new request may go to, best first: where its model is loaded, then the cheapest.
    pub(super) fn by_cost(&self, entry: &Entry) -> Vec<Arc<str>> {
        let names = entry.candidates.backends();
        if let [only] = names {
            return vec![only.clone()];
        }
        let loaded = |name: &Arc<str>| self.backends.get(name).and_then(|b| b.runners.get(&entry.runner)).is_some_and(|s| s.resident);
        let empty = |name: &Arc<str>| self.backends.get(name).is_some_and(|b| b.runners.values().all(|state| !state.resident));
        let mut ranked: Vec<(bool, bool, f64, &Arc<str>)> = names
            .iter()
            .filter_map(|name| Some((!loaded(name), !empty(name), entry.candidates.cost(name)?, name)))
            .map(|(away, full, cost, name)| (away, away && full, cost, name))
            .collect();
        ranked.sort_by(|a, b| (a.0, a.1).cmp(&(b.0, b.1)).then(a.2.total_cmp(&b.2)));
        ranked.into_iter().map(|(_, _, _, name)| name.clone()).collect()
    }

    fn next(&self, now: At, name: &str) -> Option<Next> {
        let (name, backend) = self.backends.get_key_value(name)?;
        if backend.lanes.is_empty() {
            return None;
        }
        // One that is down is asked where all are: its failure says more than waiting until one is up again.
        let open = |lane: &Lane| backend.available || !self.is_served(lane);
        let lanes = backend.lanes.iter().filter_map(|id| Some((*id, self.lanes.get(id)?)));
        let mut lanes: Vec<(LaneId, &Lane)> = lanes.filter(|(_, lane)| open(lane)).collect();
        if lanes.is_empty() {
            return None;
        }
        let plan = self.plan(now, name, backend);
        if lanes.len() > 1 {
            lanes.sort_by_key(|(_, lane)| (std::cmp::Reverse(lane.highest()), oldest(lane)));
        }
        lanes.into_iter().find_map(|(id, lane)| self.next_of(now, name, backend, &plan, id, lane))
    }

    /// Whether a backend is up that the lane's requests may go to.
    fn is_served(&self, lane: &Lane) -> bool {
        lane.backends.iter().any(|name| self.backends.get(name).is_some_and(|backend| backend.available))
    }

    fn next_of(&self, now: At, name: &Arc<str>, backend: &Backend, plan: &Plan, lane_id: LaneId, lane: &Lane) -> Option<Next> {
        let state = backend.runners.get(&lane.runner);
        let there = state.is_some_and(|state| state.resident || state.busy() > 0);
        if if there { plan.held.contains(&lane.runner) } else { !plan.loadable.contains(&lane.runner) } {
            return None;
        }
        let busy = state.map_or(0, State::busy);
        let slots = state.map_or_else(|| lane.slots_on(backend), |state| lane.slots_of(state));
        let probe = busy >= slots;
        if probe && (lane.slots.is_some() || !state.is_some_and(|state| self.may_probe(now, state))) {
            return None;
        }
        let recent: Vec<u64> = state.map(|state| state.recent.iter().copied().collect()).unwrap_or_default();
        let margin = seconds(lane.turn_s());
        let takes = |id: Id| self.takes(now, name, backend, lane, id);
        let (id, turn) = lane.pick(now, &self.config, &recent, margin, takes)?;
        Some(Next { lane: lane_id, id, turn, loads: !there, probe })
    }

    fn may_probe(&self, now: At, state: &State) -> bool {
        let generating =
            state.in_flight.iter().filter(|&id| self.flights.get(id).is_some_and(|flight| flight.first_token.is_some())).count();
        // Only beside requests that have most of their way before them, or their end would say nothing.
        let young = state.in_flight.iter().all(|id| {
            self.flights.get(id).is_some_and(|flight| {
                let service = seconds(flight.service_s.unwrap_or(UNKNOWN_SERVICE_S));
                flight.booked.is_none() && now.saturating_sub(flight.started) * 2 <= service
            })
        });
        self.config.probe_slots && young && state.slots.may_probe(now, state.busy(), u32::try_from(generating).unwrap_or(u32::MAX))
    }

    /// Whether this request may go to this backend now. One whose prefix is warm elsewhere waits for that a while: as long as
    /// computing it anew would take.
    fn takes(&self, now: At, name: &Arc<str>, backend: &Backend, lane: &Lane, id: Id) -> bool {
        let Some(waiter) = self.waiters.get(&id) else { return false };
        if waiter.candidates.cost(name).is_none() {
            return false;
        }
        let Some(warm) = waiter.place.warm.filter(|_| lane.backends.len() > 1) else { return true };
        let holds = |backend: &Backend| backend.runners.get(&lane.runner).is_some_and(|state| state.recent.contains(&warm));
        if holds(backend) {
            return true;
        }
        let others = lane.backends.iter().filter(|other| *other != name);
        let home = others.filter_map(|other| Some((other, self.backends.get(other)?))).find(|(_, other)| other.available && holds(other));
        let Some((home, _)) = home else { return true };
        let again = backend.runners.get(&lane.runner).and_then(|state| state.speed.first_token_s(waiter.place.prompt_tokens));
        waiter.candidates.cost(home).is_none() || now.saturating_sub(waiter.place.arrived) >= seconds(again.unwrap_or(UNKNOWN_SERVICE_S))
    }

    /// Which models the backend is to be free of, and which it may load.
    pub(super) fn plan(&self, now: At, name: &Arc<str>, backend: &Backend) -> Plan {
        let there = |lane: &Lane| backend.runners.get(&lane.runner).is_some_and(|state| state.resident || state.busy() > 0);
        if backend.lanes.iter().filter_map(|id| self.lanes.get(id)).all(there) {
            return Plan::default();
        }
        let mut claims: Vec<(&Runner, Claim)> = Vec::new();
        let mut waiting: Vec<(&Runner, Priority)> = Vec::new();
        for lane in backend.lanes.iter().filter_map(|id| self.lanes.get(id)) {
            let Some(class) = lane.highest() else { continue };
            // What cannot come here claims nothing here.
            if lane.pick(now, &self.config, &[], Duration::ZERO, |id| self.takes(now, name, backend, lane, id)).is_none() {
                continue;
            }
            if there(lane) {
                waiting.push((&lane.runner, class));
            } else if self.worth_loading(name, backend, lane) {
                claims.push((&lane.runner, claim(backend, lane, class)));
            }
        }
        if claims.is_empty() {
            return Plan::default();
        }
        claims.sort_by_key(|(_, claim)| {
            let overdue = now.saturating_sub(claim.oldest) >= self.config.max_wait.of(claim.class);
            (!overdue, std::cmp::Reverse(if overdue { Priority::Urgent } else { claim.class }), claim.oldest)
        });
        self.decide(now, backend, &claims, &waiting)
    }

    fn decide(&self, now: At, backend: &Backend, claims: &[(&Runner, Claim)], waiting: &[(&Runner, Priority)]) -> Plan {
        let holds = |(_, state): &(&Runner, &State)| state.busy() > 0;
        let mut holding: Vec<Runner> = backend.runners.iter().filter(holds).map(|(runner, _)| runner.clone()).collect();
        for (runner, _) in waiting {
            if !holding.contains(runner) {
                holding.push((*runner).clone());
            }
        }
        let mut plan = Plan::default();
        for (runner, claim) in claims {
            let way = backend.in_the_way(runner, &holding);
            let yields = |held: &Runner| must_yield(now, &self.holder(now, backend, held, waiting), claim, &self.config);
            if !way.iter().all(yields) {
                continue;
            }
            if way.iter().all(|held| backend.runners.get(held).is_none_or(|state| state.busy() == 0)) {
                plan.loadable.push((*runner).clone());
            }
            plan.held = way;
            break;
        }
        plan
    }

    fn holder(&self, now: At, backend: &Backend, runner: &Runner, waiting: &[(&Runner, Priority)]) -> Holder {
        let state = backend.runners.get(runner);
        let drain_s = state.map_or(0.0, |state| self.busy_s(now, state).into_iter().fold(0.0, f64::max));
        let idle = state.is_some_and(|state| state.busy() == 0);
        // An idle one that is not serving yet has just been evicted by what is loading; it holds nothing.
        let since = state.and_then(|state| state.since).or_else(|| idle.then_some(now));
        let class = waiting.iter().filter(|(held, _)| *held == runner).map(|&(_, class)| class).max();
        // The next request would end after one more service time.
        let service = state.and_then(|state| state.speed.service_s(0, None)).unwrap_or_default();
        Holder { since, waiting: class, drain_s: drain_s.max(service) }
    }

    /// Expected time for each request in flight to end, in seconds.
    pub(super) fn busy_s(&self, now: At, state: &State) -> Vec<f64> {
        let left = |id: &Id| {
            let Some(flight) = self.flights.get(id) else { return 0.0 };
            if let Some(until) = flight.booked {
                return until.saturating_sub(now).as_secs_f64();
            }
            let load = if flight.loads && flight.first_token.is_none() { state.speed.load_s().unwrap_or(UNKNOWN_LOAD_S) } else { 0.0 };
            let service = flight.service_s.or_else(|| state.speed.service_s(0, None)).unwrap_or(UNKNOWN_SERVICE_S);
            let elapsed = now.saturating_sub(flight.started).as_secs_f64();
            // One that takes longer than expected takes some more.
            (load + service - elapsed).max(service / 10.0)
        };
        state.in_flight.iter().map(left).collect()
    }

    /// A model that is loaded on another backend is loaded on this one too only when the wait there is longer than loading takes.
    fn worth_loading(&self, name: &Arc<str>, backend: &Backend, lane: &Lane) -> bool {
        let elsewhere = lane.backends.iter().filter(|other| *other != name).filter_map(|other| self.backends.get(other));
        let slots: u32 = elsewhere
            .filter(|other| other.available)
            .filter_map(|other| other.runners.get(&lane.runner))
            .filter(|state| state.resident || state.busy() > 0)
            .map(|state| lane.slots_of(state))
            .sum();
        if slots == 0 {
            return true;
        }
        let work: f64 = lane.classes.iter().map(|class| class.work_s).sum();
        let load = backend.load_s(&lane.runner).unwrap_or(UNKNOWN_LOAD_S);
        work / f64::from(slots) >= load
    }

    fn send(&mut self, now: At, name: &str, next: &Next) {
        let Some(waiter) = self.waiters.get(&next.id) else { return };
        let waited = now.saturating_sub(waiter.place.arrived);
        let half = seconds(waiter.service_s.unwrap_or_default() / 2.0);
        if waiter.deadline.is_some_and(|deadline| now.saturating_add(half) > deadline) {
            // Serving it would take a slot from one that can still be served in time.
            self.refuse(next.id, Refusal::Expired { waited });
            return;
        }
        let Some(waiter) = self.take(next.id) else { return };
        let Some((name, _)) = self.backends.get_key_value(name) else { return };
        let name = name.clone();
        let charged = tenants::cost(waiter.place.prompt_tokens, 0);
        let Some(lane) = self.lanes.get_mut(&next.lane) else { return };
        lane.took(next.turn, &waiter.place, charged, &self.config);
        if let (Some(expected), false) = (waiter.expected_s, next.turn.lifted) {
            lane.class_mut(waiter.place.class).calibration.came_out(expected, waited.as_secs_f64());
        }
        if let (Some((at, left_s)), false) = (waiter.foretold, next.turn.lifted) {
            lane.class_mut(waiter.place.class).standing.came_out(left_s, now.saturating_sub(at).as_secs_f64());
        }
        let runner = lane.runner.clone();
        self.occupy(now, &name, &runner, next, waiter.place.warm);
        let class = waiter.place.class;
        self.flights.insert(
            next.id,
            Flight {
                backend: name.clone(),
                runner,
                lane: next.lane,
                class,
                tenant: waiter.place.tenant,
                key: waiter.key,
                num_predict: waiter.num_predict,
                prompt_tokens: waiter.place.prompt_tokens,
                started: now,
                first_token: None,
                service_s: waiter.service_s,
                charged,
                loads: next.loads,
                displaced: false,
                booked: None,
            },
        );
        self.granted(Grant { id: next.id, backend: name, class, waited, loads: next.loads, lifted: next.turn.lifted });
    }

    fn occupy(&mut self, now: At, name: &Arc<str>, runner: &Runner, next: &Next, warm: Option<u64>) {
        let Some(backend) = self.backends.get_mut(name) else { return };
        let state = backend.runner(now, runner);
        state.in_flight.push(next.id);
        state.used(now, warm);
        if next.probe {
            state.slots.probing(next.id);
        }
        if next.loads {
            backend.loads(runner);
        }
    }
}

fn claim(backend: &Backend, lane: &Lane, class: Priority) -> Claim {
    let speed = backend.runners.get(&lane.runner).map(|state| state.speed).unwrap_or_default();
    Claim {
        class,
        oldest: oldest(lane),
        load_s: backend.load_s(&lane.runner).unwrap_or(UNKNOWN_LOAD_S),
        service_s: speed.service_s(0, None).unwrap_or(UNKNOWN_SERVICE_S),
    }
}

fn oldest(lane: &Lane) -> At {
    lane.oldest().into_iter().flatten().min().unwrap_or(Duration::MAX)
}
