//! The figures of the queue.

use super::{
    BACKEND_IN_FLIGHT, BACKEND_SLOTS, Metrics, QUEUE_DISPATCHED, QUEUE_DISPLACED, QUEUE_LIFTED, QUEUE_LOADS, QUEUE_REFUSED, QUEUE_WAITING,
    number,
};
use crate::domain::generation::Priority;

impl Metrics {
    /// How many wait, by class, from the last to the first.
    pub fn queue_waiting(&self, waiting: &[usize; Priority::ALL.len()]) {
        for (class, waiting) in Priority::ALL.into_iter().zip(waiting) {
            self.0.registry.gauge(&QUEUE_WAITING, &[class.as_str()]).set(number(*waiting as u64));
        }
    }

    /// A request was given a slot.
    pub fn queue_dispatched(&self, class: Priority) {
        self.0.registry.counter(&QUEUE_DISPATCHED, &[class.as_str()]).increment(1);
    }

    /// A request was given none; `reason` is a word from a closed set, such as `scheduler::Refusal::kind` gives.
    pub fn queue_refused(&self, class: Priority, reason: &'static str) {
        self.0.registry.counter(&QUEUE_REFUSED, &[class.as_str(), reason]).increment(1);
    }

    /// A request went before those of a higher class because it had waited long.
    pub fn queue_lifted(&self, class: Priority) {
        self.0.registry.counter(&QUEUE_LIFTED, &[class.as_str()]).increment(1);
    }

    /// A running request was told to give up its slot.
    pub fn queue_displaced(&self) {
        self.0.registry.counter(&QUEUE_DISPLACED, &[]).increment(1);
    }

    /// A request was sent that makes the backend load a model.
    pub fn queue_load(&self, backend: &str) {
        self.0.registry.counter(&QUEUE_LOADS, &[backend]).increment(1);
    }

    /// Slots of the models that a backend has loaded, and how many are in use.
    pub fn queue_slots(&self, backend: &str, slots: u32, in_flight: usize) {
        self.0.registry.gauge(&BACKEND_SLOTS, &[backend]).set(f64::from(slots));
        self.0.registry.gauge(&BACKEND_IN_FLIGHT, &[backend]).set(number(in_flight as u64));
    }

    pub(super) fn queue_at_zero(&self) {
        self.queue_waiting(&[0; Priority::ALL.len()]);
        for class in Priority::ALL {
            for counter in [&QUEUE_DISPATCHED, &QUEUE_LIFTED] {
                self.0.registry.counter(counter, &[class.as_str()]).absolute(0);
            }
        }
        self.0.registry.counter(&QUEUE_DISPLACED, &[]).absolute(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_queue_is_counted_by_class_and_backend() {
        let metrics = Metrics::default();
        metrics.queue_waiting(&[0, 0, 3, 0, 1]);
        metrics.queue_dispatched(Priority::Normal);
        metrics.queue_refused(Priority::Low, "queue_full");
        metrics.queue_lifted(Priority::Batch);
        metrics.queue_displaced();
        metrics.queue_load("box");
        metrics.queue_slots("box", 4, 2);
        let text = metrics.render();
        for line in [
            "arriero_queue_waiting{class=\"normal\"} 3",
            "arriero_queue_waiting{class=\"batch\"} 0",
            "arriero_queue_dispatched_total{class=\"normal\"} 1",
            "arriero_queue_refused_total{class=\"low\",reason=\"queue_full\"} 1",
            "arriero_queue_lifted_total{class=\"batch\"} 1",
            "arriero_queue_displaced_total 1",
            "arriero_queue_loads_total{backend=\"box\"} 1",
            "arriero_backend_slots{backend=\"box\"} 4",
            "arriero_backend_in_flight{backend=\"box\"} 2",
        ] {
            assert!(text.lines().any(|l| l == line), "no line `{line}` in\n{text}");
        }
    }
}
