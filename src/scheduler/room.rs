//! Who may stay: the bounds, and the requests that make way for urgent ones.

use std::time::Duration;

use super::bounds::{self, Load, Outlook};
use super::class::index;
use super::order::seconds;
use super::queue::{Effect, Flight, Queue};
use super::refusal::Refusal;
use super::{At, Id};
use crate::domain::generation::Priority;
impl Queue {
    /// Whether one that could not be served at once may wait.
    pub(super) fn keep(&mut self, now: At, id: Id, outlook: &Outlook, patience: Duration, deadline: Option<At>) -> Result<(), Refusal> {
        let fits = bounds::in_time(now, outlook, patience, deadline).and_then(|()| self.make_room(id, outlook));
        if let Err(refusal) = fits {
            self.take(id);
            return Err(refusal);
        }
        self.displace_running(id);
        Ok(())
    }

    fn make_room(&mut self, id: Id, outlook: &Outlook) -> Result<(), Refusal> {
        let own = self.waiters.get(&id);
        let own_bytes = own.map_or(0, |waiter| waiter.bytes);
        let urgent = own.is_some_and(|waiter| waiter.place.class == Priority::Urgent);
        let load = |queue: &Self| Load { waiting: queue.waiters.len(), bytes: queue.bytes, own_bytes };
        while let Err(refusal) = bounds::room(&load(self), outlook.service_s, &self.config) {
            let victim = if urgent && self.config.displace_waiting { self.least() } else { None };
            let Some(victim) = victim else { return Err(refusal) };
            self.refuse(victim, Refusal::Displaced { retry_after: seconds(outlook.service_s.unwrap_or(1.0)) });
        }
        Ok(())
    }

    /// Of those below urgent: the last to come of the lowest class.
    fn least(&self) -> Option<Id> {
        let lower = Priority::ALL.into_iter().filter(|&class| class < Priority::Urgent);
        lower.filter_map(|class| self.came[index(class)].last()).map(|&(_, id)| id).next()
    }

    /// An urgent request takes the slot of a lower one that has given nothing yet, if that is wanted.
    fn displace_running(&mut self, id: Id) {
        let Some(waiter) = self.waiters.get(&id).filter(|w| self.config.displace_running && w.place.class == Priority::Urgent) else {
            return;
        };
        let Some(lane) = self.lanes.get(&waiter.lane) else { return };
        let there = |flight: &Flight| flight.runner == lane.runner && lane.backends.contains(&flight.backend);
        let free = |flight: &Flight| flight.class < Priority::Urgent && flight.first_token.is_none() && flight.booked.is_none();
        let candidates = self.flights.iter().filter(|(_, flight)| there(flight) && free(flight) && !flight.displaced);
        let Some(victim) = candidates.max_by_key(|(_, flight)| (std::cmp::Reverse(flight.class), flight.started)).map(|(&id, _)| id) else {
            return;
        };
        if let Some(flight) = self.flights.get_mut(&victim) {
            flight.displaced = true;
            self.happened.push(Effect::Displace(victim));
        }
    }
}
