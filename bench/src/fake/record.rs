//! What a fake server saw: every request, how far it came, and the counts tests ask for.
//!
//! A request is a [`Ticket`] while it runs; dropping the ticket unfinished means that the client left, and the phase it
//! had reached is remembered. Bounded by `Script::remember`; the counts go on.

use super::{fault::Fault, wire::Request};
use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};
use tokio::sync::Notify;

/// How far a request has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// Read, nothing done yet. A request that hangs stays here.
    Received,
    /// Waiting for a model to load or for a slot.
    Queued,
    /// Holding a slot, before the first token.
    Prefill,
    /// Between the first token and the last.
    Streaming,
}

/// How a request ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    Running(Phase),
    /// The answer went out whole, errors included.
    Answered(u16),
    /// The client left in this phase.
    Aborted(Phase),
    /// A fault of the script ended it.
    Broken,
}

/// A request as it was received.
#[derive(Debug, Clone)]
pub struct Recorded {
    /// Its place in the order of arrival, from 0.
    pub number: u64,
    pub method: String,
    pub path: String,
    pub headers: Vec<(String, String)>,
    pub body: Arc<[u8]>,
    pub received: Instant,
    /// None while it runs.
    pub ended: Option<Instant>,
    pub outcome: Outcome,
    /// Tokens sent (with streaming) or made (without).
    pub tokens: usize,
    pub fault: Option<Fault>,
}

impl Recorded {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }

    /// The body as JSON; null when it is none.
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_default()
    }

    pub fn aborted(&self) -> Option<Phase> {
        match self.outcome {
            Outcome::Aborted(phase) => Some(phase),
            _ => None,
        }
    }
}

/// What became of one model.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct ModelSeen {
    /// Requests that got as far as its runner.
    pub requests: u64,
    /// Those that hold a slot of it, now and at most.
    pub generating: usize,
    pub max_generating: usize,
    pub loads: u64,
    /// Times it was thrown out for another model.
    pub evictions: u64,
}

/// Everything seen so far.
#[derive(Debug, Default)]
pub struct Seen {
    /// The last requests, oldest first.
    pub requests: VecDeque<Recorded>,
    pub connections: u64,
    pub received: u64,
    /// Inference requests between arrival and end, now and at most.
    pub in_flight: usize,
    pub max_in_flight: usize,
    /// Requests that hold a slot, now and at most.
    pub generating: usize,
    pub max_generating: usize,
    pub loads: u64,
    pub unloads: u64,
    /// Loads of weights that were loaded with other runner options.
    pub reloads: u64,
    /// Unloads that made room for another model.
    pub evictions: u64,
    /// Streams whose client left, and the slots lost that way or on demand.
    pub abandoned_streams: u64,
    pub leaked: u64,
    pub answered: u64,
    pub aborted: u64,
    pub broken: u64,
    /// Tokens of all requests.
    pub tokens: u64,
    /// Tokens of all prompts, those of them that needed no work, and the time the rest took.
    pub prompt_tokens: u64,
    pub cached_tokens: u64,
    pub prefill: Duration,
    /// By name.
    pub models: BTreeMap<String, ModelSeen>,
}

impl Seen {
    /// The remembered requests to one path.
    pub fn on<'a>(&'a self, path: &'a str) -> impl Iterator<Item = &'a Recorded> {
        self.requests.iter().filter(move |request| request.path == path)
    }

    /// Remembered requests whose client left in this phase.
    pub fn aborted_in(&self, phase: Phase) -> usize {
        self.requests.iter().filter(|request| request.aborted() == Some(phase)).count()
    }

    pub(super) fn model(&mut self, name: &str) -> &mut ModelSeen {
        self.models.entry(name.to_owned()).or_default()
    }

    fn find(&mut self, number: u64) -> Option<&mut Recorded> {
        let first = self.requests.front()?.number;
        self.requests.get_mut(usize::try_from(number.checked_sub(first)?).ok()?)
    }
}

/// What was waited for did not come.
#[derive(Debug, thiserror::Error)]
#[error("not seen within {waited:?}; {summary}")]
pub struct NotSeen {
    waited: Duration,
    summary: String,
}

#[derive(Debug, Default)]
pub(super) struct Ledger {
    seen: Mutex<Seen>,
    changed: Notify,
}

impl Ledger {
    pub fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes what is seen and wakes those who wait for it.
    pub fn note<T>(&self, change: impl FnOnce(&mut Seen) -> T) -> T {
        let made = change(&mut self.seen());
        self.changed.notify_waiters();
        made
    }

    pub fn open(self: &Arc<Self>, request: &Request, fault: Option<Fault>, remember: usize) -> Ticket {
        let inference = super::fault::is_inference(&request.path);
        let number = self.note(|seen| {
            let number = seen.received;
            seen.received += 1;
            if inference {
                seen.in_flight += 1;
                seen.max_in_flight = seen.max_in_flight.max(seen.in_flight);
            }
            while seen.requests.len() >= remember.max(1) {
                seen.requests.pop_front();
            }
            seen.requests.push_back(Recorded {
                number,
                method: request.method.clone(),
                path: request.path.clone(),
                headers: request.headers.clone(),
                body: kept(request).into(),
                received: Instant::now(),
                ended: None,
                outcome: Outcome::Running(Phase::Received),
                tokens: 0,
                fault,
            });
            number
        });
        Ticket { ledger: Arc::clone(self), number, inference, phase: Mutex::new(Some(Phase::Received)) }
    }

    pub async fn wait_for(&self, bound: Duration, wanted: impl Fn(&Seen) -> bool) -> Result<(), NotSeen> {
        let deadline = tokio::time::Instant::now() + bound;
        loop {
            let changed = self.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            if wanted(&self.seen()) {
                return Ok(());
            }
            if tokio::time::timeout_at(deadline, changed).await.is_err() {
                return Err(NotSeen { waited: bound, summary: summary(&self.seen()) });
            }
        }
    }
}

/// Of a file only the beginning is remembered.
fn kept(request: &Request) -> &[u8] {
    let bytes = if request.path.starts_with(super::shelf::BLOBS) { 4096 } else { usize::MAX };
    &request.body[..request.body.len().min(bytes)]
}

fn summary(seen: &Seen) -> String {
    let last: Vec<String> = seen.requests.iter().rev().take(5).map(|r| format!("{} {} {:?}", r.method, r.path, r.outcome)).collect();
    format!(
        "received {}, in flight {}, generating {}, answered {}, aborted {}, broken {}, loads {}, last {last:?}",
        seen.received, seen.in_flight, seen.generating, seen.answered, seen.aborted, seen.broken, seen.loads
    )
}

/// A running request.
pub(super) struct Ticket {
    ledger: Arc<Ledger>,
    number: u64,
    inference: bool,
    /// None once it ended.
    phase: Mutex<Option<Phase>>,
}

impl Ticket {
    fn current(&self) -> MutexGuard<'_, Option<Phase>> {
        self.phase.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn phase(&self, phase: Phase) {
        *self.current() = Some(phase);
        self.set(|request| request.outcome = Outcome::Running(phase));
    }

    pub fn token(&self) {
        self.ledger.note(|seen| {
            seen.tokens += 1;
            if let Some(request) = seen.find(self.number) {
                request.tokens += 1;
            }
        });
    }

    pub fn answered(&self, status: u16) {
        self.end(Outcome::Answered(status));
    }

    pub fn broken(&self) {
        self.end(Outcome::Broken);
    }

    /// Counts a held slot until the returned value is dropped.
    pub fn hold_slot(&self, model: &str) -> Held {
        self.ledger.note(|seen| {
            seen.generating += 1;
            seen.max_generating = seen.max_generating.max(seen.generating);
            let model = seen.model(model);
            model.generating += 1;
            model.max_generating = model.max_generating.max(model.generating);
        });
        Held(Arc::clone(&self.ledger), model.to_owned())
    }

    /// Counts the work on a prompt.
    pub fn prefilled(&self, tokens: usize, cached: usize, took: Duration) {
        self.ledger.note(|seen| {
            seen.prompt_tokens += tokens as u64;
            seen.cached_tokens += cached as u64;
            seen.prefill += took;
        });
    }

    fn set(&self, change: impl FnOnce(&mut Recorded)) {
        self.ledger.note(|seen| {
            if let Some(request) = seen.find(self.number) {
                change(request);
            }
        });
    }

    fn end(&self, outcome: Outcome) {
        if self.current().take().is_none() {
            return;
        }
        self.ledger.note(|seen| {
            seen.in_flight -= usize::from(self.inference);
            match outcome {
                Outcome::Aborted(_) => seen.aborted += 1,
                Outcome::Broken => seen.broken += 1,
                _ => seen.answered += 1,
            }
            if let Some(request) = seen.find(self.number) {
                request.outcome = outcome;
                request.ended = Some(Instant::now());
            }
        });
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        let phase = *self.current();
        if let Some(phase) = phase {
            self.end(Outcome::Aborted(phase));
        }
    }
}

/// A slot in use.
pub(super) struct Held(Arc<Ledger>, String);

impl Drop for Held {
    fn drop(&mut self) {
        self.0.note(|seen| {
            seen.generating -= 1;
            seen.model(&self.1).generating -= 1;
        });
    }
}
