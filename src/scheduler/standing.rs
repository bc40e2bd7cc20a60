//! Where everyone who waits stands: the order in which they are expected to go, and when.
//!
//! The queue is copied while it is locked and put in order after: [`Queue::lanes_now`] copies, [`standing`] orders.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, VecDeque};
use std::sync::Arc;

use super::queue::Queue;
use super::tenants::{cost, share, whole};
use super::{At, Id};
use crate::domain::generation::Priority;
use crate::domain::waiting::Reason;

/// One lane, copied.
#[derive(Debug, Default)]
pub(super) struct LaneNow {
    /// From the first class to the last.
    classes: Vec<ClassNow>,
    /// When each slot falls free, in seconds. Empty: nobody knows.
    slots_s: Vec<f64>,
    loading: bool,
}

#[derive(Debug, Default)]
struct ClassNow {
    tenants: Vec<TenantNow>,
    factor: f64,
}

#[derive(Debug)]
struct TenantNow {
    counter: u64,
    weight: u32,
    items: VecDeque<ItemNow>,
}

#[derive(Debug, Clone, Copy)]
struct ItemNow {
    due: At,
    id: Id,
    cost: u64,
    service_s: Option<f64>,
}

/// Where one stands.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Stands {
    pub id: Id,
    pub ahead: u32,
    /// Of those, how many are of a higher class.
    pub higher: u32,
    pub reason: Reason,
    pub eta_s: Option<f64>,
    /// The same before correction, from the order that stands; `None` where that was not looked at.
    pub left_s: Option<f64>,
}

impl Queue {
    /// Where one that has just come stands, in short: those of higher classes and its part of its own class go before it.
    pub(super) fn stands_first(&self, id: Id) -> Option<Stands> {
        let waiter = self.waiters.get(&id)?;
        let lane = self.lanes.get(&waiter.lane)?;
        let class = lane.class(waiter.place.class);
        let higher: usize = Priority::ALL.into_iter().filter(|&c| c > waiter.place.class).map(|c| lane.class(c).len()).sum();
        let own = (class.len() - 1).min(class.tenants.waiting_of(&waiter.place.tenant).saturating_mul(class.tenants.len()));
        let count = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
        let eta_s = waiter.expected_s.map(|expected| expected * class.calibration.factor());
        let reason = if self.is_loaded(waiter.lane) { Reason::Busy } else { Reason::Loading };
        Some(Stands { id, ahead: count(higher + own), higher: count(higher), reason, eta_s, left_s: None })
    }

    /// Remembers what was foretold, to see how it comes out.
    pub(super) fn foretold(&mut self, now: At, stands: &Stands) {
        if let (Some(waiter), Some(left_s)) = (self.waiters.get_mut(&stands.id), stands.left_s) {
            waiter.foretold.get_or_insert((now, left_s));
        }
    }

    fn is_loaded(&self, lane: super::LaneId) -> bool {
        let Some(lane) = self.lanes.get(&lane) else { return false };
        let mut there = lane.backends.iter().filter_map(|name| self.backends.get(name)?.runners.get(&lane.runner));
        there.any(|state| state.resident && state.since.is_some())
    }

    /// The lanes that have something waiting.
    pub(super) fn lanes_now(&self, now: At) -> Vec<LaneNow> {
        let waiting = self.lanes.iter().filter(|(_, lane)| lane.waiting > 0);
        waiting
            .map(|(&id, lane)| {
                let loading = !self.is_loaded(id);
                let classes = Priority::ALL.into_iter().rev().map(|class| {
                    let class = lane.class(class);
                    let mut tenants: BTreeMap<&Arc<str>, TenantNow> = class
                        .tenants
                        .counters()
                        .map(|(name, counter, weight)| (name, TenantNow { counter, weight, items: VecDeque::new() }))
                        .collect();
                    for waiter in class.ids().filter_map(|id| self.waiters.get(&id)) {
                        if let Some(tenant) = tenants.get_mut(&waiter.place.tenant) {
                            let generated = self.lengths.predict(&lane.runner.model, waiter.key.as_ref(), waiter.num_predict);
                            let cost = cost(waiter.place.prompt_tokens, whole(generated.unwrap_or_default()));
                            let (due, id) = (waiter.place.item.due, waiter.place.item.id);
                            tenant.items.push_back(ItemNow { due, id, cost, service_s: waiter.service_s });
                        }
                    }
                    ClassNow { tenants: tenants.into_values().collect(), factor: class.standing.factor() }
                });
                LaneNow { classes: classes.collect(), slots_s: self.busy_slots(now, lane), loading }
            })
            .collect()
    }
}

/// Everyone of a lane, in the order in which they are expected to go.
pub(super) fn standing(lane: LaneNow) -> Vec<Stands> {
    let reason = if lane.loading { Reason::Loading } else { Reason::Busy };
    let mut free: BinaryHeap<Reverse<Seconds>> = lane.slots_s.into_iter().map(|s| Reverse(Seconds(s))).collect();
    let (mut stands, mut higher) = (Vec::new(), 0);
    for class in lane.classes {
        let factor = class.factor;
        for item in in_turn(class.tenants) {
            let at = free.pop().map(|Reverse(Seconds(at))| at);
            let left_s = at.filter(|_| item.service_s.is_some());
            let eta_s = left_s.map(|left| left * factor);
            if let Some(at) = at {
                free.push(Reverse(Seconds(at + item.service_s.unwrap_or_default())));
            }
            let ahead = u32::try_from(stands.len()).unwrap_or(u32::MAX);
            stands.push(Stands { id: item.id, ahead, higher, reason, eta_s, left_s });
        }
        higher = u32::try_from(stands.len()).unwrap_or(u32::MAX);
    }
    stands
}

/// The requests of one class as the tenants' counters let them go.
fn in_turn(mut tenants: Vec<TenantNow>) -> Vec<ItemNow> {
    for tenant in &mut tenants {
        tenant.items.make_contiguous().sort_by_key(|item| (item.due, item.id));
    }
    let mut next: BinaryHeap<Reverse<(u64, usize)>> = tenants.iter().enumerate().map(|(n, t)| Reverse((t.counter, n))).collect();
    let mut order = Vec::new();
    while let Some(Reverse((counter, n))) = next.pop() {
        if let Some(item) = tenants[n].items.pop_front() {
            next.push(Reverse((counter.saturating_add(share(item.cost.max(1), tenants[n].weight)), n)));
            order.push(item);
        }
    }
    order
}

/// Seconds that can be compared.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Seconds(f64);

impl Eq for Seconds {}

impl PartialOrd for Seconds {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Seconds {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.0.total_cmp(&other.0)
    }
}

/// What is shown of a place: it gets no worse but for those of a higher class that came meanwhile.
#[must_use]
pub(super) fn shown(told: Option<(u32, u32)>, stands: &Stands) -> u32 {
    match told {
        Some((ahead, higher)) => stands.ahead.min(ahead.saturating_add(stands.higher.saturating_sub(higher))),
        None => stands.ahead,
    }
}

#[cfg(test)]
#[path = "standing_tests.rs"]
mod tests;
