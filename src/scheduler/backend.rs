//! What is known of one backend: which runners it has, what is in flight on each, and what may be loaded together.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;

use hashbrown::HashMap;

use super::estimate::Speed;
use super::slots::Slots;
use super::swap::Room;
use super::view::BackendView;
use super::{At, Id, LaneId, Runner};

/// Prefixes that are taken to be warm on a runner, for each of its slots: a server keeps some in memory beside those in use.
const WARM_PER_SLOT: usize = 4;
/// The same for all of its slots together.
const MOST_WARM: usize = 256;
/// Runners without work that are remembered.
const MOST_RUNNERS: usize = 64;

#[derive(Debug, Default)]
pub(super) struct Backend {
    pub available: bool,
    pub slots: Option<u32>,
    pub room: Room,
    pub runners: HashMap<Runner, State>,
    /// Lanes that have something waiting and may go here.
    pub lanes: BTreeSet<LaneId>,
    /// Models it said it had, when it was last asked.
    pub listed: BTreeSet<Arc<str>>,
}

/// One runner of a backend.
#[derive(Debug, Default)]
pub(super) struct State {
    pub slots: Slots,
    pub in_flight: Vec<Id>,
    pub resident: bool,
    /// Since when it serves. `None`: it is being loaded, or is not.
    pub since: Option<At>,
    /// Prefixes it computed, the freshest first.
    pub recent: VecDeque<u64>,
    pub speed: Speed,
    used: At,
}

impl State {
    pub(super) fn busy(&self) -> u32 {
        u32::try_from(self.in_flight.len()).unwrap_or(u32::MAX)
    }

    pub(super) fn used(&mut self, now: At, warm: Option<u64>) {
        self.used = now;
        if let Some(warm) = warm {
            self.recent.retain(|&w| w != warm);
            self.recent.push_front(warm);
            self.recent.truncate((self.slots.known() as usize * WARM_PER_SLOT).min(MOST_WARM));
        }
    }

    fn evicted(&mut self) {
        self.resident = false;
        self.since = None;
        self.recent.clear();
    }
}

impl Backend {
    pub(super) fn update(&mut self, now: At, view: &BackendView) {
        self.available = view.available;
        self.slots = view.slots;
        self.room.max_loaded = view.max_loaded;
        self.room.exclusive = view.exclusive_models;
        for state in self.runners.values_mut() {
            state.slots.configure(view.slots);
        }
        if let Some(resident) = &view.resident {
            self.listed = resident.iter().cloned().collect();
            self.room.saw(&self.listed);
            self.settle(now);
        }
    }

    /// Brings what is believed in line with what the backend said. What is in flight is believed more than a list that may be older.
    fn settle(&mut self, now: At) {
        let mut newest: HashMap<Arc<str>, At> = HashMap::new();
        for (runner, state) in &self.runners {
            let used = newest.entry(runner.model.clone()).or_default();
            *used = (*used).max(state.used);
        }
        for (runner, state) in &mut self.runners {
            let listed = self.listed.contains(&runner.model) && newest.get(&runner.model) == Some(&state.used);
            if state.in_flight.is_empty() && listed != state.resident {
                if listed {
                    state.resident = true;
                    state.since = Some(now);
                } else {
                    state.evicted();
                }
            }
        }
    }

    /// The runner's state; made when it is new. A model that is listed and was never asked for may have any shape.
    pub(super) fn runner(&mut self, now: At, runner: &Runner) -> &mut State {
        if !self.runners.contains_key(runner) {
            let other_shape = self.runners.keys().any(|known| known.model == runner.model);
            let resident = self.listed.contains(&runner.model) && !other_shape;
            let mut state = State { resident, since: resident.then_some(now), ..State::default() };
            state.slots.configure(self.slots);
            self.forget_idle();
            self.runners.insert(runner.clone(), state);
        }
        self.runners.entry(runner.clone()).or_default()
    }

    /// A model that is listed is there, although nothing was sent to it from here.
    pub(super) fn meet(&mut self, now: At, runner: &Runner) {
        if self.listed.contains(&runner.model) && !self.runners.keys().any(|known| known.model == runner.model) {
            self.runner(now, runner);
        }
    }

    /// The runner is loaded now, or about to be: what is idle and not known to fit beside it is taken to be gone.
    pub(super) fn loads(&mut self, runner: &Runner) {
        let mut kept: BTreeSet<Arc<str>> = self.busy().map(|(busy, _)| busy.model.clone()).collect();
        kept.insert(runner.model.clone());
        let mut idle: Vec<(At, Runner)> =
            self.runners.iter().filter(|(_, s)| s.resident && s.busy() == 0).map(|(r, s)| (s.used, r.clone())).collect();
        idle.sort_by_key(|(used, _)| std::cmp::Reverse(*used));
        for (_, other) in idle.into_iter().filter(|(_, other)| other != runner) {
            let mut with = kept.clone();
            with.insert(other.model.clone());
            if other.model != runner.model && self.room.fits(&with) {
                kept = with;
            } else if let Some(state) = self.runners.get_mut(&other) {
                state.evicted();
            }
        }
        if let Some(state) = self.runners.get_mut(runner) {
            state.resident = true;
            state.since = None;
        }
    }

    pub(super) fn busy(&self) -> impl Iterator<Item = (&Runner, &State)> {
        self.runners.iter().filter(|(_, state)| state.busy() > 0)
    }

    /// Which of these runners must go before `newcomer` can be loaded: the longest there first, no more than needed.
    pub(super) fn in_the_way(&self, newcomer: &Runner, holding: &[Runner]) -> Vec<Runner> {
        let (mut gone, mut staying): (Vec<Runner>, Vec<Runner>) = holding.iter().cloned().partition(|held| held.model == newcomer.model);
        staying.sort_by_key(|held| std::cmp::Reverse(self.runners.get(held).and_then(|state| state.since)));
        loop {
            let mut models: BTreeSet<Arc<str>> = staying.iter().map(|held| held.model.clone()).collect();
            models.insert(newcomer.model.clone());
            if self.room.fits(&models) {
                return gone;
            }
            match staying.pop() {
                Some(longest) => gone.push(longest),
                None => return gone,
            }
        }
    }

    /// Time to load this runner, in seconds; what others took is the best guess for one that was never seen being loaded.
    pub(super) fn load_s(&self, runner: &Runner) -> Option<f64> {
        let own = self.runners.get(runner).and_then(|state| state.speed.load_s());
        own.or_else(|| self.runners.values().filter_map(|state| state.speed.load_s()).reduce(f64::max))
    }

    fn forget_idle(&mut self) {
        if self.runners.len() >= MOST_RUNNERS {
            let idle = self.runners.iter().filter(|(_, state)| state.busy() == 0 && !state.resident);
            if let Some(oldest) = idle.min_by_key(|(_, state)| state.used).map(|(runner, _)| runner.clone()) {
                self.runners.remove(&oldest);
            }
        }
    }
}
