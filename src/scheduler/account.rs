//! What is made of a request that has ended: its tenant's account is put right, and the estimates learn.

use super::estimate::Measured;
use super::queue::{Ending, Flight, Queue};
use super::tenants;
use super::{At, Id};
use crate::domain::generation::Usage;

impl Queue {
    /// Replaces what was charged by what it really was. A client that left is charged for the time that it had the slot: otherwise
    /// whoever leaves early would be served ahead of those who stay.
    pub(super) fn settle(&mut self, now: At, flight: &Flight, ending: &Ending) {
        let Some(lane) = self.lanes.get_mut(&flight.lane) else { return };
        let class = lane.class_mut(flight.class);
        let held_s = now.saturating_sub(flight.started).as_secs_f64();
        let occupied = tenants::whole(class.pace.get().unwrap_or_default() * held_s);
        let tenants = &mut class.tenants;
        let truth = match (ending.failed, &ending.usage) {
            (true, _) => 0,
            (false, Some(usage)) => {
                let computed = computed(usage, flight.prompt_tokens);
                usage.completion_tokens.map_or(flight.charged, |generated| tenants::cost(computed, generated))
            }
            (false, None) => flight.charged.max(occupied),
        };
        if truth > flight.charged {
            tenants.charge(&flight.tenant, truth - flight.charged);
        } else {
            tenants.refund(&flight.tenant, flight.charged - truth);
        }
    }

    pub(super) fn learn(&mut self, now: At, id: Id, flight: &Flight, ending: &Ending) {
        let Some(backend) = self.backends.get_mut(&flight.backend) else { return };
        let Some(state) = backend.runners.get_mut(&flight.runner) else { return };
        state.in_flight.retain(|&other| other != id);
        state.slots.ended(now, id, self.config.reprobe_after);
        if state.in_flight.is_empty() && state.since.is_none() {
            // The load failed, or nobody waited for it: there or not, only the backend knows.
            state.resident = !ending.failed;
            state.since = state.resident.then_some(now);
        }
        let (Some(usage), false) = (&ending.usage, ending.failed) else { return };
        let generated = usage.completion_tokens;
        state.speed.finished(&Measured {
            first_token_s: flight.first_token.map(|at| at.saturating_sub(flight.started).as_secs_f64()),
            total_s: now.saturating_sub(flight.started).as_secs_f64(),
            prompt_tokens: Some(computed(usage, flight.prompt_tokens)),
            generated,
            loaded: flight.loads,
        });
        if let Some(generated) = generated {
            self.lengths.finished(&flight.runner.model, flight.key.as_ref(), flight.num_predict, generated);
        }
    }
}

/// Prompt tokens that were computed, not found in a cache.
fn computed(usage: &Usage, expected: u64) -> u64 {
    usage.prompt_tokens.unwrap_or(expected).saturating_sub(usage.cached_tokens.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::config::Config;
    use super::super::entry::Entry;
    use super::super::queue::Effect;
    use super::super::view::BackendView;
    use super::*;

    /// Who has a slot now, after all that happened.
    fn granted(queue: &mut Queue) -> Vec<Id> {
        let grants =
            queue.effects().into_iter().filter_map(|effect| if let Effect::Granted(grant) = effect { Some(grant.id) } else { None });
        grants.collect()
    }

    #[test]
    fn leaving_early_gets_nobody_more_of_the_backend() {
        let mut queue = Queue::new(Config { probe_slots: false, ..Config::default() });
        queue.update(Duration::ZERO, "b", &BackendView { slots: Some(1), available: true, ..BackendView::default() });
        let mut now = Duration::ZERO;
        let mut tenants = std::collections::HashMap::new();
        let mut held = std::collections::HashMap::from([("stays", Duration::ZERO), ("leaves", Duration::ZERO)]);
        for _ in 0..4 {
            for tenant in ["stays", "leaves"] {
                tenants.insert(queue.admit(now, &Entry::small(tenant, &["b"]), None).expect("let in"), tenant);
            }
        }
        let mut running = granted(&mut queue);
        for _ in 0..400 {
            let id = running.pop().expect("the slot is always in use");
            let tenant = tenants[&id];
            queue.first_token(now, id, 0.0);
            // Each has the slot for a second, told or not how much came of it.
            now += Duration::from_secs(1);
            let whole = Usage { prompt_tokens: Some(10), completion_tokens: Some(45), ..Usage::default() };
            let usage = (tenant == "stays").then_some(whole);
            queue.end(now, id, &Ending { usage, ..Ending::default() });
            *held.get_mut(tenant).expect("known") += Duration::from_secs(1);
            tenants.insert(queue.admit(now, &Entry::small(tenant, &["b"]), None).expect("let in"), tenant);
            running.extend(granted(&mut queue));
        }
        let share = held["leaves"].as_secs_f64() / 400.0;
        assert!((0.4..0.6).contains(&share), "{share}");
    }
}
