//! What is known of one backend: whether it is sent away, and of each model a breaker and how fast it is.
//!
//! Machines side by side that are told the same things in the right order. No clock, no lock in here.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use super::Config;
use super::breaker::Breaker;
use super::cost::Learnt;
use super::ewma::{Mean, PeakEwma};
use super::gate::{Standing, Ticket};
use super::outlier::{Fault, Outlier};
use crate::domain::blame::{Blame, Retry};

/// What is not known, or was not tried for long, is taken to be a little faster than usual: that is how one finds out.
const UNKNOWN_SHARE: f64 = 0.5;
/// A failure counts as this many times as slow as usual, at least.
const FAILURE_TIMES: f64 = 10.0;

#[derive(Debug, Default)]
pub struct State {
    pub outlier: Outlier,
    pairs: HashMap<Box<str>, Pair>,
}

/// One model on the backend.
#[derive(Debug)]
pub struct Pair {
    pub breaker: Breaker,
    pub ttft: PeakEwma,
    pub load: Mean,
    pub answer: Mean,
    /// Kind of the last failure, while there was no success since.
    pub why: Option<&'static str>,
    touched: Instant,
}

/// The right to one attempt, from both doors.
#[derive(Debug, Clone, Copy)]
pub struct Tickets {
    outlier: Ticket,
    breaker: Ticket,
}

/// What an ending changed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Changes {
    pub ejected: bool,
    pub opened: bool,
    /// The backend is back.
    pub returned: bool,
    pub closed: bool,
}

/// How an attempt failed.
#[derive(Debug, Clone, Copy)]
pub struct Failure {
    pub kind: &'static str,
    pub retry: Retry,
    pub blame: Blame,
    /// Of the model anywhere, in seconds.
    pub usual_s: f64,
    /// 0 up to 1.
    pub dice: f64,
}

impl State {
    /// Makes room and a place for a model; `true` when another one was forgotten for it.
    fn ensure(&mut self, model: &str, now: Instant, most: usize) -> bool {
        if self.pairs.contains_key(model) {
            return false;
        }
        let full = self.pairs.len() >= most.max(1);
        if full && let Some(oldest) = self.pairs.iter().min_by_key(|(_, pair)| pair.touched).map(|(name, _)| name.clone()) {
            self.pairs.remove(&oldest);
        }
        let pair = Pair {
            breaker: Breaker::default(),
            ttft: PeakEwma::default(),
            load: Mean::default(),
            answer: Mean::default(),
            why: None,
            touched: now,
        };
        self.pairs.insert(model.into(), pair);
        full
    }

    pub fn admits(&self, model: &str, now: Instant) -> bool {
        self.outlier.admits(now) && self.pairs.get(model).is_none_or(|pair| pair.breaker.admits(now))
    }

    /// When it may be asked again; `now` where that is now or depends on the one that tries.
    pub fn opens_at(&self, model: &str, now: Instant) -> Instant {
        let until = |standing| if let Standing::Open { until } = standing { until } else { now };
        let pair = self.pairs.get(model).map_or(now, |pair| until(pair.breaker.standing(now)));
        until(self.outlier.standing(now)).max(pair)
    }

    /// Begins an attempt. The second value: whether another model was forgotten for it.
    pub fn enter(&mut self, model: &str, now: Instant, config: &Config) -> (Tickets, bool) {
        let forgot = self.ensure(model, now, config.max_models);
        let outlier = self.outlier.enter(now);
        let breaker = self.pairs.get_mut(model).map(|pair| {
            pair.touched = now;
            pair.breaker.enter(now)
        });
        (Tickets { outlier, breaker: breaker.unwrap_or(outlier) }, forgot)
    }

    /// What the cost is worked out from. What failed before it was shut is forgotten when it may be tried again: it would never be.
    pub fn learnt(&self, model: &str, now: Instant, usual_s: f64, config: &Config) -> Learnt {
        let rest = usual_s * UNKNOWN_SHARE;
        let pair = self.pairs.get(model);
        let trying = self.outlier.standing(now) != Standing::Closed || pair.is_some_and(|p| p.breaker.standing(now) != Standing::Closed);
        let ttft = pair.filter(|_| !trying).map(|pair| pair.ttft.value(now, config.decay, rest));
        Learnt {
            ttft_s: ttft.unwrap_or(rest),
            answer_s: pair.and_then(|pair| pair.answer.value()).unwrap_or(usual_s),
            load_s: pair.and_then(|pair| pair.load.value()).unwrap_or(config.load_estimate.as_secs_f64()),
            share: self.outlier.share(now, &config.outlier),
        }
    }

    /// The first token came after `ttft`. `cold`: the model had to be loaded for it.
    pub fn first_token(&mut self, model: &str, tickets: Tickets, ttft: Duration, cold: bool, now: Instant, config: &Config) -> Changes {
        let returned = self.outlier.works(tickets.outlier, now);
        let Some(pair) = self.pairs.get_mut(model) else { return Changes { returned, ..Changes::default() } };
        let closed = pair.breaker.first_token(tickets.breaker, now, &config.breaker);
        let seconds = ttft.as_secs_f64();
        if cold {
            pair.load.observe(seconds);
        } else if closed || returned {
            pair.ttft.restart(seconds, now);
        } else {
            pair.ttft.observe(seconds, now, config.decay);
        }
        Changes { returned, closed, ..Changes::default() }
    }

    pub fn succeeded(&mut self, model: &str, tickets: Tickets, took: Duration, now: Instant, config: &Config) -> Changes {
        let returned = self.outlier.works(tickets.outlier, now);
        let Some(pair) = self.pairs.get_mut(model) else { return Changes { returned, ..Changes::default() } };
        pair.answer.observe(took.as_secs_f64());
        pair.why = None;
        let closed = pair.breaker.succeeded(tickets.breaker, now, &config.breaker);
        Changes { returned, closed, ..Changes::default() }
    }

    pub fn failed(&mut self, model: &str, tickets: Tickets, failure: &Failure, now: Instant, config: &Config) -> Changes {
        // A request that was wrong says nothing against who says so.
        if failure.blame == Blame::Client {
            self.cancelled(model, tickets);
            return Changes::default();
        }
        let fault = Fault::of(failure.kind);
        let ejected = self.outlier.failed(tickets.outlier, fault, now, failure.dice, &config.outlier);
        let Some(pair) = self.pairs.get_mut(model) else { return Changes { ejected, ..Changes::default() } };
        let counts_as = (failure.usual_s * FAILURE_TIMES).max(config.failure_counts_as.as_secs_f64());
        pair.ttft.observe(counts_as, now, config.decay);
        pair.why = Some(failure.kind);
        let retry_after = if let Retry::After(after) = failure.retry { Some(after) } else { None };
        let opened = pair.breaker.failed(tickets.breaker, now, retry_after, failure.dice, &config.breaker);
        Changes { ejected, opened, ..Changes::default() }
    }

    /// The attempt ended without saying anything.
    pub fn cancelled(&mut self, model: &str, tickets: Tickets) {
        self.outlier.leave(tickets.outlier);
        if let Some(pair) = self.pairs.get_mut(model) {
            pair.breaker.leave(tickets.breaker);
        }
    }

    pub fn pairs(&self) -> impl Iterator<Item = (&str, &Pair)> {
        self.pairs.iter().map(|(name, pair)| (name.as_ref(), pair))
    }

    pub fn pair(&self, model: &str) -> Option<&Pair> {
        self.pairs.get(model)
    }
}
