//! The handle by which requests find a backend, and by which what became of them is told.
//!
//! Everything is decided by the machines of this folder; here are the locks, the clock and the counting. A lock is held for
//! as long as a decision takes, never over a wait, and never two at once. What is kept is bounded: backends are those of the
//! configuration, models [`Config::max_models`] for each.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;

use super::Config;
use super::attempt::Attempt;
use super::cost::{Look, cost};
use super::dice::Dice;
use super::ewma::Mean;
use super::hedge::Recent;
use super::retry::{Budget, Terms};
use super::state::State;
use crate::domain::clock::Clock;
use crate::telemetry::Metrics;

/// Cheap to clone; clones share what was learnt.
#[derive(Debug, Clone)]
pub struct Router(pub(super) Arc<Inner>);

#[derive(Debug)]
pub(super) struct Inner {
    pub config: ArcSwap<Config>,
    pub metrics: Metrics,
    pub clock: Clock,
    pub dice: Dice,
    backends: RwLock<HashMap<Box<str>, Arc<Mutex<State>>>>,
    models: Mutex<HashMap<Box<str>, Usual>>,
    budgets: Mutex<Budgets>,
}

/// What is usual for a model, wherever it runs.
#[derive(Debug, Clone, Default)]
struct Usual {
    first_token: Mean,
    recent: Recent,
    /// When it was last observed.
    touched: Option<Instant>,
}

#[derive(Debug, Default)]
struct Budgets {
    retry: Budget,
    hedge: Budget,
}

/// One of the backends a request could go to.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Candidate<'a> {
    pub backend: &'a str,
    /// The model's one spelling (`ModelName::canonical`).
    pub model: &'a str,
    pub look: Look,
}

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Router {
    #[must_use]
    pub fn new(config: Config, metrics: Metrics, clock: Clock) -> Self {
        Self::with_dice(config, metrics, clock, Dice::random())
    }

    /// The same dice, the same decisions.
    #[must_use]
    pub fn with_dice(config: Config, metrics: Metrics, clock: Clock, dice: Dice) -> Self {
        Self(Arc::new(Inner {
            config: ArcSwap::from_pointee(config),
            metrics,
            clock,
            dice,
            backends: RwLock::default(),
            models: Mutex::default(),
            budgets: Mutex::default(),
        }))
    }

    /// Takes new settings; what was learnt stays.
    pub fn reconfigure(&self, config: Config) {
        self.0.config.store(Arc::new(config));
    }

    #[must_use]
    pub fn config(&self) -> Arc<Config> {
        self.0.config.load_full()
    }

    /// What it costs to ask a backend now, in seconds. `None`: not now, because it is sent away, its breaker for the model is
    /// open, or the one that tries is on its way.
    #[must_use]
    pub fn cost(&self, backend: &str, model: &str, look: &Look) -> Option<f64> {
        let (now, config) = (self.0.clock.now(), self.0.config.load());
        let usual_s = self.0.usual_s(model);
        let Some(state) = self.0.known(backend) else {
            return Some(cost(look, &State::default().learnt(model, now, usual_s, &config)));
        };
        let state = lock(&state);
        state.admits(model, now).then(|| cost(look, &state.learnt(model, now, usual_s, &config)))
    }

    /// The candidates that can be asked now, as indices, the cheapest first; equals in the order they came. When none can, the
    /// least bad one alone: never nothing, unless there is nothing to choose from.
    #[must_use]
    pub fn order(&self, candidates: &[Candidate<'_>]) -> Vec<usize> {
        let costs = candidates.iter().map(|one| self.cost(one.backend, one.model, &one.look));
        let mut open: Vec<(usize, f64)> = costs.enumerate().filter_map(|(n, cost)| Some((n, cost?))).collect();
        open.sort_by(|a, b| a.1.total_cmp(&b.1));
        if open.is_empty() { self.least_bad(candidates).into_iter().collect() } else { open.into_iter().map(|(n, _)| n).collect() }
    }

    /// One that is up, then the one that opens first.
    fn least_bad(&self, candidates: &[Candidate<'_>]) -> Option<usize> {
        let rank = |one: &Candidate<'_>| (!one.look.up, self.opens_in(one.backend, one.model), one.look.in_flight);
        candidates.iter().enumerate().min_by_key(|(_, one)| rank(one)).map(|(n, _)| n)
    }

    /// How long until a backend may be asked for a model again; zero: now, as far as is known.
    #[must_use]
    pub fn opens_in(&self, backend: &str, model: &str) -> Duration {
        let now = self.0.clock.now();
        self.0.known(backend).map_or(Duration::ZERO, |state| lock(&state).opens_at(model, now).saturating_duration_since(now))
    }

    /// Picks the cheapest candidate and begins an attempt there. `None` only when there are none.
    #[must_use]
    pub fn choose(&self, candidates: &[Candidate<'_>]) -> Option<(usize, Attempt)> {
        let order = self.order(candidates);
        let begin = |n: &usize| Some((*n, self.try_attempt(candidates[*n].backend, candidates[*n].model)?));
        order.iter().find_map(begin).or_else(|| {
            let first = *order.first()?;
            Some((first, self.attempt(candidates[first].backend, candidates[first].model)))
        })
    }

    /// Begins an attempt if the backend can be asked now. Between [`Router::cost`] and this another request may have become the
    /// one that tries.
    #[must_use]
    pub fn try_attempt(&self, backend: &str, model: &str) -> Option<Attempt> {
        let (slot, now) = (self.0.slot(backend), self.0.clock.now());
        // Asked and entered under one lock, so that there is one probe at a time.
        let mut state = lock(&slot);
        if !state.admits(model, now) {
            return None;
        }
        let entered = state.enter(model, now, &self.0.config.load());
        drop(state);
        Some(Attempt::new(self.clone(), backend, model, slot, entered, now))
    }

    /// Begins an attempt, be it allowed or not: for the least bad one when all are bad.
    pub fn attempt(&self, backend: &str, model: &str) -> Attempt {
        let (slot, now) = (self.0.slot(backend), self.0.clock.now());
        let entered = lock(&slot).enter(model, now, &self.0.config.load());
        Attempt::new(self.clone(), backend, model, slot, entered, now)
    }

    /// A request came: retries and hedges are counted against these.
    pub fn offered(&self) {
        let (now, config) = (self.0.clock.now(), self.0.config.load());
        let mut budgets = lock(&self.0.budgets);
        let retry = &config.retry;
        let terms = Terms { share: retry.budget, most: f64::from(retry.burst), floor_per_second: retry.floor_per_second };
        budgets.retry.offered(now, &terms);
        let hedge = &config.hedge;
        budgets.hedge.offered(now, &Terms { share: hedge.budget, most: f64::from(hedge.burst), floor_per_second: 0.0 });
    }

    /// Whether one more attempt may be made for a request that has not given its first byte; takes it from the budget.
    #[must_use]
    pub fn may_retry(&self) -> bool {
        let allowed = lock(&self.0.budgets).retry.take();
        self.0.metrics.retry(allowed);
        allowed
    }

    /// Most attempts of one request on one model.
    #[must_use]
    pub fn max_attempts(&self) -> u32 {
        self.0.config.load().retry.max_attempts.max(1)
    }

    /// The pause before retry number `attempt` (0 is the first) when it goes to the same backend.
    #[must_use]
    pub fn backoff(&self, attempt: u32) -> Duration {
        self.0.config.load().retry.pause(attempt, self.0.dice.roll())
    }

    /// After how long without a first token a second backend is asked. `None`: not at all.
    #[must_use]
    pub fn hedge_after(&self, model: &str) -> Option<Duration> {
        let config = self.0.config.load();
        let hedge = &config.hedge;
        if !hedge.enabled {
            return None;
        }
        let seconds = lock(&self.0.models).get(model)?.recent.quantile(hedge.quantile, hedge.least_observations)?;
        Some(Duration::try_from_secs_f64(seconds).ok()?.max(hedge.least_delay))
    }

    /// Whether a hedge may be made now; takes it from the budget.
    #[must_use]
    pub fn hedge_token(&self) -> bool {
        let allowed = self.0.config.load().hedge.enabled && lock(&self.0.budgets).hedge.take();
        self.0.metrics.hedge(allowed);
        allowed
    }

    /// Forgets a backend that is no longer configured. Attempts that are under way end without effect.
    pub fn forget(&self, backend: &str) {
        let gone = self.0.backends.write().unwrap_or_else(PoisonError::into_inner).remove(backend);
        if let Some(state) = gone {
            let models: Vec<String> = lock(&state).pairs().map(|(model, _)| model.to_owned()).collect();
            for model in models {
                self.0.metrics.breaker(backend, &model, super::BreakerState::Closed);
            }
            self.0.metrics.backend_ejected(backend, false);
        }
    }

    pub(super) fn states(&self) -> Vec<(Box<str>, Arc<Mutex<State>>)> {
        let backends = self.0.backends.read().unwrap_or_else(PoisonError::into_inner);
        let mut all: Vec<_> = backends.iter().map(|(name, state)| (name.clone(), Arc::clone(state))).collect();
        all.sort_by(|a, b| a.0.cmp(&b.0));
        all
    }
}

impl Inner {
    fn known(&self, backend: &str) -> Option<Arc<Mutex<State>>> {
        self.backends.read().unwrap_or_else(PoisonError::into_inner).get(backend).map(Arc::clone)
    }

    fn slot(&self, backend: &str) -> Arc<Mutex<State>> {
        self.known(backend).unwrap_or_else(|| {
            let mut backends = self.backends.write().unwrap_or_else(PoisonError::into_inner);
            Arc::clone(backends.entry(backend.into()).or_default())
        })
    }

    /// The usual time to the first token of a model, in seconds.
    pub(super) fn usual_s(&self, model: &str) -> f64 {
        let known = lock(&self.models).get(model).and_then(|usual| usual.first_token.value());
        known.unwrap_or_else(|| self.config.load().usual_ttft.as_secs_f64())
    }

    /// The first token of a model that was loaded came after this long.
    pub(super) fn observe(&self, model: &str, ttft: Duration) {
        let most = self.config.load().max_models.max(1);
        let mut models = lock(&self.models);
        if !models.contains_key(model) && models.len() >= most {
            let least = models.iter().min_by_key(|(_, usual)| usual.touched).map(|(name, _)| name.clone());
            least.and_then(|name| models.remove(&name));
            self.metrics.routing_forgot();
        }
        let usual = models.entry(model.into()).or_default();
        usual.touched = Some(self.clock.now());
        usual.first_token.observe(ttft.as_secs_f64());
        usual.recent.observe(ttft.as_secs_f64());
    }
}

#[cfg(test)]
#[path = "router_tests.rs"]
mod tests;
