//! Who of one class goes next: weighted virtual token counters, and each tenant's own order.
//!
//! After "Fairness in Serving Large Language Models" (Sheng et al., OSDI 2024): every tenant has a counter of what it was served,
//! prompt tokens at once and generated ones as they come, divided by its weight. The one with the smallest counter goes next. A
//! newcomer starts at the smallest counter of those that wait. Two tenants that always have work waiting are therefore never
//! further apart than one request's cost, whatever they ask for.
//!
//! Beyond the paper, a tenant that comes back keeps a credit: what it left unused of its share lately. Without one, whoever asks
//! for nearly its share, but unevenly, would wait for its every burst as if it had the machine's share for itself alone.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use hashbrown::HashMap;

use super::estimate::float;
use super::{At, Id};

/// What a generated token costs, in prompt tokens (the paper's weights).
const GENERATED: u64 = 2;
/// Counters are in millionths of a token, so that weights divide well.
const UNIT: u64 = 1_000_000;
/// Tenants without work whose counters are remembered.
const MOST_IDLE: usize = 4_096;
/// How finely the past of the floor is remembered: so many values for the time that earns credit.
const STEPS: u32 = 16;

/// The cost of a request or a part of it, before the weight.
#[must_use]
pub(super) fn cost(prompt_tokens: u64, generated_tokens: u64) -> u64 {
    prompt_tokens.saturating_add(generated_tokens.saturating_mul(GENERATED))
}

#[derive(Debug, Default)]
pub(super) struct Tenants {
    known: HashMap<Arc<str>, Tenant>,
    /// Those with work waiting, by who goes next.
    active: BTreeSet<(Rank, Arc<str>)>,
    /// The smallest counter of those that wait, as it was when someone last had a turn; never falls.
    floor: u64,
    /// What the floor was lately, the oldest first.
    past: VecDeque<(At, u64)>,
    turns: u64,
}

/// Smallest goes next: the counter, then who has not been served for longest.
type Rank = (u64, u64);

#[derive(Debug, Default)]
struct Tenant {
    rank: Rank,
    weight: u32,
    waiting: BTreeSet<(At, Id)>,
    /// Expected service time of what waits, by size, and of all of it.
    work_s: [f64; SIZES],
    total_s: f64,
}

/// One request, as its tenant's queue sees it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Item {
    pub due: At,
    pub id: Id,
    /// Expected service time, in seconds.
    pub service_s: f64,
}

/// Tenants that are looked at to tell how much goes before a request; more are taken to be like them.
const LOOK_AT: usize = 8;
/// Service times of one power of two are one size, from 10 ms on.
const SIZES: usize = 16;

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "clamped before")]
fn size(service_s: f64) -> usize {
    (service_s / 0.01).max(1.0).log2().clamp(0.0, 15.0) as usize
}

impl Tenants {
    /// A request comes. A tenant that had none keeps what it left unused of its share for as long as `credit`.
    pub(super) fn insert(&mut self, name: &Arc<str>, weight: u32, item: &Item, now: At, credit: Duration) {
        self.pass(now, credit);
        let start = self.counter(name);
        let tenant = self.known.entry(name.clone()).or_default();
        tenant.weight = weight.max(1);
        if tenant.waiting.is_empty() {
            tenant.rank.0 = start;
            self.active.insert((tenant.rank, name.clone()));
        }
        tenant.waiting.insert((item.due, item.id));
        tenant.work_s[size(item.service_s)] += item.service_s;
        tenant.total_s += item.service_s;
    }

    /// Remembers the floor, for as long as it earns credit.
    fn pass(&mut self, now: At, credit: Duration) {
        while self.past.front().is_some_and(|&(at, _)| at.saturating_add(credit) < now) {
            self.past.pop_front();
        }
        if self.past.back().is_none_or(|&(at, _)| now.saturating_sub(at) * STEPS >= credit) {
            self.past.push_back((now, self.floor));
        }
    }

    /// The counter with which this tenant waits, or would if a request of it came now.
    fn counter(&self, name: &str) -> u64 {
        match self.known.get(name) {
            Some(tenant) if !tenant.waiting.is_empty() => tenant.rank.0,
            Some(tenant) => tenant.rank.0.max(self.past.front().map_or(self.floor, |&(_, floor)| floor)),
            None => self.active.first().map_or(self.floor, |(rank, _)| rank.0.max(self.floor)),
        }
    }

    pub(super) fn remove(&mut self, name: &Arc<str>, item: &Item) {
        let Some(tenant) = self.known.get_mut(name) else { return };
        if !tenant.waiting.remove(&(item.due, item.id)) {
            return;
        }
        tenant.work_s[size(item.service_s)] -= item.service_s;
        tenant.total_s -= item.service_s;
        if tenant.waiting.is_empty() {
            (tenant.work_s, tenant.total_s) = ([0.0; SIZES], 0.0);
            self.active.remove(&(tenant.rank, name.clone()));
            self.forget_idle();
        }
    }

    /// It is this tenant's turn: what it costs now, in tokens.
    pub(super) fn served(&mut self, name: &Arc<str>, tokens: u64) {
        if let Some((lowest, _)) = self.active.first() {
            self.floor = self.floor.max(lowest.0);
        }
        self.turns += 1;
        let turn = self.turns;
        self.change(name, |rank, weight| (rank.0.saturating_add(share(tokens, weight)), turn));
    }

    /// More tokens for a request that was served.
    pub(super) fn charge(&mut self, name: &Arc<str>, tokens: u64) {
        self.change(name, |rank, weight| (rank.0.saturating_add(share(tokens, weight)), rank.1));
    }

    /// A request cost less than it was charged.
    pub(super) fn refund(&mut self, name: &Arc<str>, tokens: u64) {
        self.change(name, |rank, weight| (rank.0.saturating_sub(share(tokens, weight)), rank.1));
    }

    fn change(&mut self, name: &Arc<str>, to: impl FnOnce(Rank, u32) -> Rank) {
        let floor = self.floor;
        let tenant = self.known.entry(name.clone()).or_insert_with(|| Tenant { rank: (floor, 0), weight: 1, ..Tenant::default() });
        let (before, after) = (tenant.rank, to(tenant.rank, tenant.weight));
        tenant.rank = after;
        if !tenant.waiting.is_empty() && before != after {
            self.active.remove(&(before, name.clone()));
            self.active.insert((after, name.clone()));
        }
    }

    /// All that wait, in the order of the tenants now and within each in its own.
    pub(super) fn in_order(&self) -> impl Iterator<Item = Id> + '_ {
        let waiting = self.active.iter().filter_map(|(_, name)| self.known.get(name));
        waiting.flat_map(|tenant| tenant.waiting.iter().map(|&(_, id)| id))
    }

    /// How far this tenant's counter is above the smallest, in tokens before the weight.
    pub(super) fn lead(&self, name: &str) -> u64 {
        let (Some(tenant), Some((lowest, _))) = (self.known.get(name), self.active.first()) else { return 0 };
        tenant.rank.0.saturating_sub(lowest.0) / UNIT * u64::from(tenant.weight)
    }

    /// Counter and weight of each that waits.
    pub(super) fn counters(&self) -> impl Iterator<Item = (&Arc<str>, u64, u32)> {
        self.active.iter().filter_map(|(rank, name)| Some((name, rank.0, self.known.get(name)?.weight)))
    }

    pub(super) fn len(&self) -> usize {
        self.active.len()
    }

    /// Work that a new request of this tenant and length has before it, in seconds: its tenant's own that is not longer, and what the
    /// others are served until its tenant's counter has come that far. `pace`: tokens a second of service; `turn_s`: a usual turn.
    pub(super) fn ahead_s(&self, name: &str, service_s: f64, pace: f64, turn_s: f64) -> f64 {
        let known = self.known.get(name);
        let own_s = known.map_or(0.0, |tenant| tenant.work_s[..=size(service_s)].iter().sum::<f64>().max(0.0));
        let weight = known.map_or(1, |tenant| tenant.weight.max(1));
        let until = float(self.counter(name)) + own_s * pace * float(UNIT) / f64::from(weight);
        let other_s = |(rank, other): &(Rank, Arc<str>)| {
            let tenant = self.known.get(other).filter(|_| **other != *name && float(rank.0) <= until)?;
            let gap_s = (until - float(rank.0)) / float(UNIT) * f64::from(tenant.weight) / pace.max(1.0);
            Some((gap_s + turn_s / 2.0).min(tenant.total_s))
        };
        let others_s: f64 = self.active.iter().take(LOOK_AT).filter_map(other_s).sum();
        own_s + others_s * (float(self.active.len() as u64) / float(LOOK_AT as u64)).max(1.0)
    }

    pub(super) fn waiting_of(&self, name: &str) -> usize {
        self.known.get(name).map_or(0, |tenant| tenant.waiting.len())
    }

    /// A counter at the floor says no more than none, and who has credit can do without.
    fn forget_idle(&mut self) {
        if self.known.len() > 2 * self.active.len() + MOST_IDLE {
            let floor = self.floor;
            self.known.retain(|_, tenant| !tenant.waiting.is_empty() || tenant.rank.0 > floor);
            if self.known.len() > 2 * self.active.len() + MOST_IDLE {
                self.known.retain(|_, tenant| !tenant.waiting.is_empty());
            }
        }
    }
}

/// What tokens add to a counter.
#[must_use]
pub(super) fn share(tokens: u64, weight: u32) -> u64 {
    tokens.saturating_mul(UNIT) / u64::from(weight.max(1))
}

/// Expected tokens as a number of them.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "tokens; a cast from f64 stops at the ends")]
pub(super) fn whole(value: f64) -> u64 {
    value as u64
}

#[cfg(test)]
#[path = "tenants_tests.rs"]
mod tests;
