//! What is asked of the queue.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::Serialize;

use crate::domain::generation::Priority;
use crate::domain::id::RequestId;
use crate::domain::waiting::Progress;

/// What a backend loads: a model, with the options that cannot be changed without loading it again.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
pub struct Runner {
    /// Its canonical name.
    pub model: Arc<str>,
    /// The runner options, in any form that is equal when they are.
    pub shape: Arc<str>,
}

/// A request for a slot.
#[derive(Debug, Clone)]
pub struct Entry {
    pub request: RequestId,
    pub runner: Runner,
    pub candidates: Arc<dyn Candidates>,
    pub class: Priority,
    /// Tenants of a class have turns by what they were served, in proportion to their weights.
    pub tenant: Arc<str>,
    pub weight: u32,
    /// Who asks, for the prediction of lengths.
    pub key: Option<Arc<str>>,
    /// When the whole generation must be over.
    pub deadline: Option<Instant>,
    /// Longest wait. `None`: the configured one.
    pub patience: Option<Duration>,
    /// As far as is known before a backend counts them.
    pub prompt_tokens: u64,
    /// Names the conversation or prefix, so that it can follow itself on a slot.
    pub warm: Option<u64>,
    pub num_predict: Option<u64>,
    /// Requests for its model that each backend works on at a time. `None`: as many as the backend can.
    pub slots: Option<u32>,
    /// Memory the request holds while it waits.
    pub bytes: usize,
    /// Where news of its place go.
    pub progress: Progress,
}

/// Which backends may serve a request, and how dear each is now. Asked while the queue is locked: must be quick, and must not call
/// the queue.
pub trait Candidates: Send + Sync {
    fn backends(&self) -> &[Arc<str>];

    /// Only differences matter; the cheapest is taken. `None`: not now.
    fn cost(&self, backend: &str) -> Option<f64>;
}

impl fmt::Debug for dyn Candidates {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.backends()).finish()
    }
}

/// Backends among which nothing decides, for measurements and tests.
#[derive(Debug)]
pub(super) struct Alike(pub Vec<Arc<str>>);

impl Candidates for Alike {
    fn backends(&self) -> &[Arc<str>] {
        &self.0
    }

    fn cost(&self, _: &str) -> Option<f64> {
        Some(0.0)
    }
}

impl Entry {
    /// A small request of a tenant for any of these, for measurements and tests.
    pub(super) fn small(tenant: &str, on: &[&str]) -> Self {
        Self {
            request: RequestId::generate(),
            runner: Runner { model: "m:latest".into(), shape: "".into() },
            candidates: Arc::new(Alike(on.iter().map(|&name| name.into()).collect())),
            class: Priority::Normal,
            tenant: tenant.into(),
            weight: 1,
            key: None,
            deadline: None,
            patience: None,
            prompt_tokens: 10,
            warm: None,
            num_predict: None,
            slots: None,
            bytes: 100,
            progress: Progress::new().0,
        }
    }
}
