//! What is made of a request that has ended: its tenant's account is put right, and the estimates learn.

use super::estimate::Measured;
use super::queue::{Ending, Flight, Queue};
use super::tenants;
use super::{At, Id};
use crate::domain::generation::Usage;

impl Queue {
    /// Replaces what was charged by what it really was.
    pub(super) fn settle(&mut self, flight: &Flight, ending: &Ending) {
        let Some(lane) = self.lanes.get_mut(&flight.lane) else { return };
        let tenants = &mut lane.class_mut(flight.class).tenants;
        let truth = match (ending.failed, &ending.usage) {
            (true, _) => 0,
            (false, Some(usage)) => {
                let computed = computed(usage, flight.prompt_tokens);
                usage.completion_tokens.map_or(flight.charged, |generated| tenants::cost(computed, generated))
            }
            (false, None) => flight.charged,
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
