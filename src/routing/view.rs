//! What the router thinks of each backend, for people: data for `/admin/backends`.

use std::time::Instant;

use serde::Serialize;

use super::gate::Standing;
use super::router::{Router, lock};
use super::state::{Pair, State};
use super::{BreakerState, Config};

/// A backend as the router sees it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct BackendView {
    pub backend: String,
    /// `ok`; `ejected` (nobody goes there); `returning` (one at a time tries); `slow_start` (it gets less than its share).
    pub state: &'static str,
    /// Until its ejection is over.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ejected_for_ms: Option<u64>,
    /// The share of its work that it gets now: 1 outside the slow start.
    pub share: f64,
    pub failures_in_a_row: u32,
    /// By name.
    pub models: Vec<ModelView>,
}

/// One model on a backend.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ModelView {
    pub model: String,
    pub breaker: BreakerState,
    /// Until the next one may try.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub open_for_ms: Option<u64>,
    /// Kind of the last failure, while nothing has succeeded since.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub why: Option<&'static str>,
    /// What the next first token is expected to take, failures counted as slow ones. Absent: not known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub first_token_ms: Option<f64>,
    /// What loading it takes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub load_ms: Option<f64>,
    /// What a whole answer takes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub answer_ms: Option<f64>,
}

impl Router {
    /// All backends that were ever asked, by name.
    #[must_use]
    pub fn view(&self) -> Vec<BackendView> {
        let (now, config) = (self.0.clock.now(), self.config());
        self.states().into_iter().map(|(name, state)| backend(&name, &lock(&state), now, &config)).collect()
    }
}

fn backend(name: &str, state: &State, now: Instant, config: &Config) -> BackendView {
    let share = state.outlier.share(now, &config.outlier);
    let standing = state.outlier.standing(now);
    let word = match standing {
        Standing::Open { .. } => "ejected",
        Standing::HalfOpen { .. } => "returning",
        Standing::Closed if share < 1.0 => "slow_start",
        Standing::Closed => "ok",
    };
    let mut models: Vec<ModelView> = state.pairs().map(|(name, pair)| model(name, pair, now, config)).collect();
    models.sort_by(|a, b| a.model.cmp(&b.model));
    BackendView {
        backend: name.to_owned(),
        state: word,
        ejected_for_ms: left_ms(standing, now),
        share,
        failures_in_a_row: state.outlier.failures(),
        models,
    }
}

fn model(name: &str, pair: &Pair, now: Instant, config: &Config) -> ModelView {
    let standing = pair.breaker.standing(now);
    let ms = |seconds: f64| (seconds * 1000.0).round();
    ModelView {
        model: name.to_owned(),
        breaker: standing.into(),
        open_for_ms: left_ms(standing, now),
        why: pair.why,
        first_token_ms: pair.ttft.is_known().then(|| ms(pair.ttft.value(now, config.decay, 0.0))),
        load_ms: pair.load.value().map(ms),
        answer_ms: pair.answer.value().map(ms),
    }
}

fn left_ms(standing: Standing, now: Instant) -> Option<u64> {
    let Standing::Open { until } = standing else { return None };
    u64::try_from(until.saturating_duration_since(now).as_millis()).ok()
}
