//! What a request has to expect when it comes.

use std::sync::Arc;

use super::backend::{Backend, State};
use super::dispatch::{UNKNOWN_LOAD_S, UNKNOWN_SERVICE_S};
use super::entry::Entry;
use super::estimate::{float, wait_s};
use super::lane::Lane;
use super::queue::Queue;
use super::swap::residence;
use super::tenants::{cost, whole};
use super::{At, LaneId, Runner};
use crate::domain::generation::Priority;

/// All in seconds.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Forecast {
    pub service_s: Option<f64>,
    /// Mean service time of those that came lately.
    pub mean_s: f64,
    /// How long it is expected to take, over that mean. Not in seconds: before the speed is known it is told by tokens.
    pub relative: Option<f64>,
    /// Expected wait, before correction. `None`: nothing is known.
    pub wait_s: Option<f64>,
    /// Expected wait if it came after all that wait in its class.
    pub behind_all_s: f64,
    /// What the request will probably be charged.
    pub cost: u64,
    /// By which the expected wait is to be multiplied.
    pub factor: f64,
}

impl Queue {
    pub(super) fn forecast(&self, now: At, lane: LaneId, entry: &Entry) -> Forecast {
        let Some(lane) = self.lanes.get(&lane) else { return Forecast::default() };
        let generated = self.lengths.predict(&entry.runner.model, entry.key.as_ref(), entry.num_predict);
        let speed = lane.backends.iter().find_map(|name| {
            let speed = self.backends.get(name)?.runners.get(&lane.runner)?.speed;
            speed.service_s(0, None).map(|_| speed)
        });
        let service_s = speed.and_then(|speed| speed.service_s(entry.prompt_tokens, generated));
        let class = lane.class(entry.class);
        let mean_s = class.mean_s.get().or(service_s).unwrap_or_default();
        let cost = cost(entry.prompt_tokens, whole(generated.unwrap_or_default()));
        let factor = class.calibration.factor();
        let by_speed = service_s.filter(|_| speed.is_some_and(|speed| speed.is_trusted())).map(|service| service / mean_s);
        let by_tokens = || generated.and(class.mean_cost.get()).map(|mean| float(cost) / mean);
        let relative = by_speed.or_else(by_tokens).filter(|relative| relative.is_finite());
        if lane.waiting == 0 && self.has_free_slot(lane) {
            // The usual case, in which thousands may be in flight that need not be looked at.
            return Forecast { service_s, mean_s, relative, wait_s: speed.map(|_| 0.0), behind_all_s: 0.0, cost, factor };
        }
        let mut busy = self.busy_slots(now, lane);
        let behind: f64 = Priority::ALL.into_iter().filter(|&c| c >= entry.class).map(|c| lane.class(c).work_s).sum();
        let behind_all_s = wait_s(&mut busy, behind, lane.turn_s());
        let ahead = lane.ahead_s(entry.class, &entry.tenant, service_s.unwrap_or(mean_s));
        let wait_s = speed.map(|_| wait_s(&mut busy, ahead, lane.turn_s()));
        Forecast { service_s, mean_s, relative, wait_s, behind_all_s, cost, factor }
    }

    /// Whether a request of the lane could be served at once.
    fn has_free_slot(&self, lane: &Lane) -> bool {
        let mut there = lane.backends.iter().filter_map(|name| self.backends.get(name)).filter(|backend| backend.available);
        there.any(|backend| backend.runners.get(&lane.runner).is_some_and(|state| state.resident && state.busy() < lane.slots_of(state)))
    }

    /// After how many seconds each slot falls free that the lane's requests may get.
    pub(super) fn busy_slots(&self, now: At, lane: &Lane) -> Vec<f64> {
        let available = || lane.backends.iter().filter_map(|name| Some((name, self.backends.get(name)?))).filter(|(_, b)| b.available);
        let mut slots = Vec::new();
        for state in available().filter_map(|(_, backend)| backend.runners.get(&lane.runner)).filter(|s| s.resident || s.busy() > 0) {
            slots.extend(self.busy_s(now, state));
            let free = lane.slots_of(state).saturating_sub(state.busy()) as usize;
            slots.extend(std::iter::repeat_n(0.0, free.min(lane.waiting + 1)));
        }
        if slots.is_empty()
            && let Some((name, backend)) = available().next()
        {
            let after = self.until_loaded_s(now, name, backend, &lane.runner);
            slots = vec![after; (lane.slots_on(backend) as usize).min(lane.waiting + 1)];
        }
        slots
    }

    /// Time until a model that is not loaded can serve, in seconds.
    fn until_loaded_s(&self, now: At, name: &Arc<str>, backend: &Backend, runner: &Runner) -> f64 {
        let load = backend.load_s(runner).unwrap_or(UNKNOWN_LOAD_S);
        let busy: Vec<Runner> = backend.busy().map(|(runner, _)| runner.clone()).collect();
        let way = backend.in_the_way(runner, &busy);
        let held = self.plan(now, name, backend).held;
        let leaves = |held_runner: &Runner| {
            let Some(state) = backend.runners.get(held_runner) else { return 0.0 };
            let drain = self.busy_s(now, state).into_iter().fold(0.0, f64::max);
            if held.contains(held_runner) || !self.waits_for(backend, held_runner) {
                drain
            } else {
                self.stays_s(now, state, load).max(drain)
            }
        };
        way.iter().map(leaves).fold(0.0, f64::max) + load
    }

    fn waits_for(&self, backend: &Backend, runner: &Runner) -> bool {
        backend.lanes.iter().filter_map(|id| self.lanes.get(id)).any(|lane| lane.runner == *runner)
    }

    fn stays_s(&self, now: At, state: &State, load_s: f64) -> f64 {
        let stays = residence(load_s, &self.config).min(self.config.swap_within).as_secs_f64();
        let own_load = if state.since.is_none() { state.speed.load_s().unwrap_or(UNKNOWN_LOAD_S) } else { 0.0 };
        let had = state.since.map_or(0.0, |since| now.saturating_sub(since).as_secs_f64());
        (own_load + stays - had).max(UNKNOWN_SERVICE_S.min(stays))
    }
}
