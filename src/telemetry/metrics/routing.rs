//! Figures of the choice among backends.

use serde::Serialize;

use super::{BACKEND_EJECTED, BACKEND_EJECTIONS, BREAKER_OPENED, BREAKER_STATE, FALLBACKS, HEDGES, Metrics, RETRIES, ROUTING_FORGOTTEN};

/// Where a circuit breaker stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum BreakerState {
    /// Requests pass.
    Closed,
    /// One request at a time tries.
    HalfOpen,
    /// No request passes.
    Open,
}

impl BreakerState {
    fn number(self) -> f64 {
        match self {
            Self::Closed => 0.0,
            Self::HalfOpen => 1.0,
            Self::Open => 2.0,
        }
    }
}

const ALLOWED: &str = "allowed";
const REFUSED: &str = "refused";

fn word(allowed: bool) -> &'static str {
    if allowed { ALLOWED } else { REFUSED }
}

impl Metrics {
    /// Makes the series of budgets, so that the first event is a rise from zero.
    pub(super) fn start_routing_at_zero(&self) {
        for counter in [&RETRIES, &HEDGES] {
            for outcome in [ALLOWED, REFUSED] {
                self.0.registry.counter(counter, &[outcome]).absolute(0);
            }
        }
        self.0.registry.counter(&ROUTING_FORGOTTEN, &[]).absolute(0);
    }

    /// Where the breaker of a model on a backend stands.
    pub fn breaker(&self, backend: &str, model: &str, state: BreakerState) {
        self.0.registry.gauge(&BREAKER_STATE, &[backend, &self.model(model)]).set(state.number());
    }

    pub fn breaker_opened(&self, backend: &str, model: &str) {
        self.0.registry.counter(&BREAKER_OPENED, &[backend, &self.model(model)]).increment(1);
    }

    /// A backend was sent away.
    pub fn ejected(&self, backend: &str) {
        self.0.registry.counter(&BACKEND_EJECTIONS, &[backend]).increment(1);
    }

    /// Whether a backend is sent away; it is until a request has shown that it is back.
    pub fn backend_ejected(&self, backend: &str, ejected: bool) {
        self.0.registry.gauge(&BACKEND_EJECTED, &[backend]).set(if ejected { 1.0 } else { 0.0 });
    }

    /// A retry that was wanted, and whether the budget allowed it.
    pub fn retry(&self, allowed: bool) {
        self.0.registry.counter(&RETRIES, &[word(allowed)]).increment(1);
    }

    /// A hedge that was wanted, and whether the budget allowed it.
    pub fn hedge(&self, allowed: bool) {
        self.0.registry.counter(&HEDGES, &[word(allowed)]).increment(1);
    }

    /// A step of a chain was entered; `reason` is a name from the table of conditions.
    pub fn fallback(&self, reason: &'static str) {
        self.0.registry.counter(&FALLBACKS, &[reason]).increment(1);
    }

    /// What was learnt of a model was given up to make room for another one.
    pub fn routing_forgot(&self) {
        self.0.registry.counter(&ROUTING_FORGOTTEN, &[]).increment(1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_figure_is_written_out() {
        let metrics = Metrics::default();
        metrics.breaker("a", "m", BreakerState::Open);
        metrics.breaker_opened("a", "m");
        metrics.ejected("a");
        metrics.backend_ejected("a", true);
        metrics.retry(true);
        metrics.hedge(false);
        metrics.fallback("errors");
        metrics.routing_forgot();
        let text = metrics.render();
        for line in [
            "arriero_breaker_state{backend=\"a\",gen_ai_request_model=\"m\"} 2",
            "arriero_breaker_opened_total{backend=\"a\",gen_ai_request_model=\"m\"} 1",
            "arriero_backend_ejections_total{backend=\"a\"} 1",
            "arriero_backend_ejected{backend=\"a\"} 1",
            "arriero_retries_total{outcome=\"allowed\"} 1",
            "arriero_retries_total{outcome=\"refused\"} 0",
            "arriero_hedges_total{outcome=\"refused\"} 1",
            "arriero_fallbacks_total{reason=\"errors\"} 1",
            "arriero_routing_forgotten_total 1",
        ] {
            assert!(text.lines().any(|l| l == line), "no line `{line}` in\n{text}");
        }
    }
}
