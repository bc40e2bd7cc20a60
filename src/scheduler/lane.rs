//! Requests that can take each other's place: the same runner, the same backends.
//!
//! A lane keeps them by class, tenant, due time, age and warm prefix at once, and picks the one that goes next. It does not know
//! slots; whoever asks says which of them it would take.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use hashbrown::HashMap;

use super::backend::{Backend, State};
use super::class::{Turn, Turns, index};
use super::config::Config;
use super::estimate::{Calibration, Mean};
use super::tenants::{Item, Tenants};
use super::{At, Id, Runner};
use crate::domain::generation::Priority;

/// How many requests are looked at, when the first ones cannot go where there is room.
const LOOK_AHEAD: usize = 16;
/// Nobody is passed over for a warm prefix after having waited this long.
const WARM_BOUND: Duration = Duration::from_secs(10);

/// Requests with one prefix: when each is due, whose it is, and how long its prompt.
type Continuing = BTreeMap<(At, Id), (Arc<str>, u64)>;

/// One class of a lane.
#[derive(Debug, Default)]
pub(super) struct Class {
    pub tenants: Tenants,
    by_age: BTreeSet<(At, Id)>,
    /// By prefix: who continues it.
    warm: HashMap<u64, Continuing>,
    /// Expected service time of all that waits, in seconds.
    pub work_s: f64,
    /// Of those that came lately, in seconds.
    pub mean_s: Mean,
    /// What those that came lately are expected to be charged, in tokens.
    pub mean_cost: Mean,
    /// Tokens for each second of service, as the tenants are charged.
    pub pace: Mean,
    /// Of waits that are foretold when a request comes. Others will still come and go before it.
    pub calibration: Calibration,
    /// Of waits that are foretold from the order that stands, when those that were going to come before it mostly have.
    pub standing: Calibration,
}

/// What a lane keeps of a request.
#[derive(Debug, Clone)]
pub(super) struct Place {
    pub class: Priority,
    pub tenant: Arc<str>,
    pub weight: u32,
    pub arrived: At,
    pub item: Item,
    pub warm: Option<u64>,
    pub prompt_tokens: u64,
}

#[derive(Debug)]
pub(super) struct Lane {
    pub runner: Runner,
    pub backends: Vec<Arc<str>>,
    pub classes: [Class; Priority::ALL.len()],
    turns: Turns,
    pub waiting: usize,
    pub used: At,
    /// Requests that each backend works on at a time, where that is set for the model.
    pub slots: Option<u32>,
}

impl Lane {
    pub(super) fn new(runner: Runner, backends: Vec<Arc<str>>) -> Self {
        Self { runner, backends, classes: Default::default(), turns: Turns::default(), waiting: 0, used: At::ZERO, slots: None }
    }

    /// How many of its requests a backend with this runner works on at a time.
    pub(super) fn slots_of(&self, state: &State) -> u32 {
        self.slots.unwrap_or_else(|| state.slots.known())
    }

    /// The same of a backend on which the runner was never seen.
    pub(super) fn slots_on(&self, backend: &Backend) -> u32 {
        self.slots.or(backend.slots).unwrap_or(1).max(1)
    }

    pub(super) fn class(&self, class: Priority) -> &Class {
        &self.classes[index(class)]
    }

    pub(super) fn class_mut(&mut self, class: Priority) -> &mut Class {
        &mut self.classes[index(class)]
    }

    /// `credit`: for how long a tenant that comes back keeps what it left unused of its share.
    pub(super) fn insert(&mut self, place: &Place, credit: Duration) {
        let item = place.item;
        let class = self.class_mut(place.class);
        class.tenants.insert(&place.tenant, place.weight, &item, place.arrived, credit);
        class.by_age.insert((place.arrived, item.id));
        class.work_s += item.service_s;
        if let Some(warm) = place.warm {
            let continues = (place.tenant.clone(), place.prompt_tokens);
            class.warm.entry(warm).or_default().insert((item.due, item.id), continues);
        }
        self.waiting += 1;
        self.used = self.used.max(place.arrived);
    }

    pub(super) fn remove(&mut self, place: &Place) {
        let item = place.item;
        let class = self.class_mut(place.class);
        if !class.by_age.remove(&(place.arrived, item.id)) {
            return;
        }
        class.tenants.remove(&place.tenant, &item);
        class.work_s = if class.by_age.is_empty() { 0.0 } else { (class.work_s - item.service_s).max(0.0) };
        if let Some(warm) = place.warm
            && let Some(same) = class.warm.get_mut(&warm)
        {
            same.remove(&(item.due, item.id));
            if same.is_empty() {
                class.warm.remove(&warm);
            }
        }
        self.waiting -= 1;
    }

    /// Who goes next among those that `takes` accepts, and by what right. `recent`: prefixes that are warm, the freshest first.
    pub(super) fn pick(
        &self,
        now: At,
        config: &Config,
        recent: &[u64],
        margin: Duration,
        takes: impl Fn(Id) -> bool,
    ) -> Option<(Id, Turn)> {
        let turn = self.turns.next(now, &self.oldest(), &config.max_wait, |_| margin)?;
        let of = |class: &Class| class.next(now, recent, &takes);
        if turn.lifted {
            let oldest = self.class(turn.class).by_age.iter().take(LOOK_AHEAD).map(|&(_, id)| id).find(|&id| takes(id));
            if let Some(id) = oldest {
                return Some((id, turn));
            }
        } else if let Some(id) = of(self.class(turn.class)) {
            return Some((id, turn));
        }
        let mut others = Priority::ALL.into_iter().rev().filter(|&class| class != turn.class);
        others.find_map(|class| Some((of(self.class(class))?, Turn { class, lifted: false })))
    }

    /// A request was picked and removed.
    pub(super) fn took(&mut self, turn: Turn, place: &Place, tokens: u64, config: &Config) {
        let waits = |class: &Class| !class.by_age.is_empty();
        let waited = std::array::from_fn(|n| waits(&self.classes[n]));
        self.turns.took(turn, waited, &config.shares);
        self.class_mut(place.class).tenants.served(&place.tenant, tokens);
    }

    /// For each class, when its oldest came.
    pub(super) fn oldest(&self) -> [Option<At>; Priority::ALL.len()] {
        std::array::from_fn(|n| self.classes[n].by_age.first().map(|&(came, _)| came))
    }

    /// The highest class that waits.
    pub(super) fn highest(&self) -> Option<Priority> {
        Priority::ALL.into_iter().rev().find(|&class| !self.class(class).by_age.is_empty())
    }

    /// Expected work before a newcomer, in seconds.
    pub(super) fn ahead_s(&self, class: Priority, tenant: &str, service_s: f64) -> f64 {
        let higher: f64 = Priority::ALL.into_iter().filter(|&c| c > class).map(|c| self.class(c).work_s).sum();
        let own = self.class(class);
        let pace = own.pace.get().unwrap_or(1.0);
        higher + own.work_s.min(own.tenants.ahead_s(tenant, service_s, pace, self.turn_s()))
    }

    /// The mean expected service time of what waits, in seconds.
    pub(super) fn turn_s(&self) -> f64 {
        let work: f64 = self.classes.iter().map(|class| class.work_s).sum();
        work / super::estimate::float(self.waiting.max(1) as u64)
    }
}

impl Class {
    fn next(&self, now: At, recent: &[u64], takes: impl Fn(Id) -> bool) -> Option<Id> {
        let head = self.tenants.in_order().take(LOOK_AHEAD).find(|&id| takes(id))?;
        let oldest = self.by_age.first().map_or(now, |&(came, _)| came);
        if now.saturating_sub(oldest) >= WARM_BOUND || self.warm.is_empty() {
            return Some(head);
        }
        let first = recent.iter().filter_map(|warm| self.warm.get(warm)?.first_key_value());
        // A warm prefix saves at most its prompt: no tenant gets further ahead by it than that.
        let fair = first.filter(|(_, (tenant, prompt_tokens))| self.tenants.lead(tenant) <= *prompt_tokens);
        Some(fair.map(|(&(_, id), _)| id).find(|&id| takes(id)).unwrap_or(head))
    }

    pub(super) fn len(&self) -> usize {
        self.by_age.len()
    }

    pub(super) fn ids(&self) -> impl Iterator<Item = Id> + '_ {
        self.by_age.iter().map(|&(_, id)| id)
    }
}
