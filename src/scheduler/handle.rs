//! The queue as everyone shares it: a lock around the pure part, and the news it brings to those who wait.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::{Notify, oneshot};

use super::config::Config;
use super::entry::Entry;
use super::order::seconds;
use super::permit::Permit;
use super::queue::{Effect, Grant, Queue};
use super::refusal::Refusal;
use super::standing::{Stands, shown, standing};
use super::view::{BackendView, QueueView};
use super::{At, Id};
use crate::domain::clock::Clock;
use crate::domain::waiting::{Progress, Waiting};
use crate::telemetry::Metrics;

/// How often time is looked at while something waits for it.
const TICK: Duration = Duration::from_millis(20);
/// Places from which every piece of news is told.
const NEAR: u32 = 64;

/// Hands out slots. Cheap to clone; clones share the queue.
#[derive(Debug, Clone)]
pub struct Scheduler(pub(super) Arc<Shared>);

#[derive(Debug)]
pub(super) struct Shared {
    state: Mutex<State>,
    clock: Clock,
    origin: Instant,
    metrics: Metrics,
    /// Something waits that time alone may change.
    wake: Notify,
}

#[derive(Debug)]
struct State {
    queue: Queue,
    asking: HashMap<Id, Asking>,
    /// Those in flight, to be told when they are displaced.
    displaced: HashMap<Id, Arc<Notify>>,
}

/// One that waits for an answer.
#[derive(Debug)]
struct Asking {
    answer: oneshot::Sender<Result<Permit, Refusal>>,
    progress: Progress,
    /// Place and how many of a higher class, as last told.
    told: Option<(u32, u32)>,
}

/// An answer on its way: given outside the lock, since it may come back at once.
struct Answer(oneshot::Sender<Result<Permit, Refusal>>, Result<Permit, Refusal>);

impl Scheduler {
    #[must_use]
    pub fn new(config: Config, metrics: Metrics, clock: Clock) -> Self {
        let state = State { queue: Queue::new(config), asking: HashMap::new(), displaced: HashMap::new() };
        Self(Arc::new(Shared { state: Mutex::new(state), origin: clock.now(), clock, metrics, wake: Notify::new() }))
    }

    /// Takes over a new configuration; what waits goes on waiting.
    pub fn reconfigure(&self, config: Config) {
        self.0.act(|queue, now| {
            queue.config = config;
            queue.tick(now);
        });
    }

    /// What is known of a backend now. To be called often; saying the same again changes nothing.
    pub fn update(&self, backend: &str, view: &BackendView) {
        self.0.act(|queue, now| queue.update(now, backend, view));
    }

    /// The backend is no longer configured. What is in flight there ends by itself.
    pub fn remove(&self, backend: &str) {
        self.0.act(|queue, now| queue.remove(now, backend));
    }

    /// Waits for a slot. Dropping the future gives up the place at once.
    ///
    /// # Errors
    /// When it cannot be served in time, now or as it turns out later.
    pub async fn acquire(&self, entry: Entry) -> Result<Permit, Refusal> {
        let (id, answer) = self.0.ask(&entry)?;
        let mut place = Place { shared: &self.0, id, answered: false };
        let answer = answer.await;
        place.answered = true;
        // The sender is dropped only with the whole queue.
        answer.unwrap_or(Err(Refusal::NoBackend))
    }

    /// How many wait.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.0.lock().queue.waiters.len()
    }

    /// The queue as it stands. Takes time in proportion to its length.
    #[must_use]
    pub fn view(&self) -> QueueView {
        let now = self.0.now();
        let (mut view, lanes, requests) = {
            let state = self.0.lock();
            (state.queue.view(now), state.queue.lanes_now(now), state.queue.requests(now))
        };
        view.requests = super::view::in_order(lanes.into_iter().flat_map(standing), requests);
        view
    }

    /// Does what time brings: places expire, models have had their time, those who wait are told how they stand. Runs for ever.
    pub async fn run(self) {
        let mut told = self.0.now();
        loop {
            self.0.act(Queue::tick);
            let every = self.0.lock().queue.config.tell_every;
            if self.0.now().saturating_sub(told) >= every {
                told = self.0.now();
                self.0.tell();
            }
            self.0.count();
            if self.0.lock().queue.awaits_time() {
                tokio::time::sleep(TICK).await;
            } else {
                self.0.wake.notified().await;
            }
        }
    }
}

/// A place in the queue; given up when dropped without an answer.
struct Place<'a> {
    shared: &'a Arc<Shared>,
    id: Id,
    answered: bool,
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        if !self.answered {
            self.shared.forget(self.id);
        }
    }
}

impl Shared {
    pub(super) fn now(&self) -> At {
        self.clock.now().saturating_duration_since(self.origin)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Does something to the queue and answers those whose turn it brings.
    pub(super) fn act<R>(self: &Arc<Self>, what: impl FnOnce(&mut Queue, At) -> R) -> R {
        let (result, answers, wake) = {
            let mut state = self.lock();
            let result = what(&mut state.queue, self.now());
            let answers = self.answers(&mut state);
            (result, answers, state.queue.awaits_time())
        };
        self.give(answers, wake);
        result
    }

    fn ask(self: &Arc<Self>, entry: &Entry) -> Result<(Id, oneshot::Receiver<Result<Permit, Refusal>>), Refusal> {
        let (sender, receiver) = oneshot::channel();
        let deadline = entry.deadline.map(|at| at.saturating_duration_since(self.origin));
        let (result, answers) = {
            let mut state = self.lock();
            let result = state.queue.admit(self.now(), entry, deadline);
            if let Ok(id) = result {
                let told = Self::tell_first(&state.queue, id, &entry.progress);
                state.asking.insert(id, Asking { answer: sender, progress: entry.progress.clone(), told });
            }
            (result, self.answers(&mut state))
        };
        if let Err(refusal) = &result {
            self.metrics.queue_refused(entry.class, refusal.kind());
        }
        self.give(answers, result.is_ok());
        Ok((result?, receiver))
    }

    fn tell_first(queue: &Queue, id: Id, progress: &Progress) -> Option<(u32, u32)> {
        let stands = progress.is_heard().then(|| queue.stands_first(id)).flatten()?;
        progress.tell(waiting(&stands, stands.ahead));
        Some((stands.ahead, stands.higher))
    }

    /// The one that asked has gone.
    fn forget(self: &Arc<Self>, id: Id) {
        let asking = self.lock().asking.remove(&id);
        // Out of the lock: a permit may lie in it.
        drop(asking);
        self.act(|queue, now| queue.cancel(now, id));
    }

    fn answers(self: &Arc<Self>, state: &mut State) -> Vec<Answer> {
        let mut answers = Vec::new();
        for effect in state.queue.effects() {
            let (id, answer) = match effect {
                Effect::Granted(grant) => {
                    let displaced = Arc::new(Notify::new());
                    state.displaced.insert(grant.id, displaced.clone());
                    self.count_grant(&grant);
                    (grant.id, Ok(Permit::new(self.clone(), grant, displaced)))
                }
                Effect::Refused { id, class, refusal } => {
                    self.metrics.queue_refused(class, refusal.kind());
                    (id, Err(refusal))
                }
                Effect::Displace(id) => {
                    if let Some(displaced) = state.displaced.get(&id) {
                        displaced.notify_one();
                    }
                    self.metrics.queue_displaced();
                    continue;
                }
            };
            let sender = state.asking.remove(&id).map_or_else(|| oneshot::channel().0, |asking| asking.answer);
            answers.push(Answer(sender, answer));
        }
        answers
    }

    /// Gives answers. One that nobody takes any more is dropped here, and a permit in it gives its slot back.
    fn give(&self, answers: Vec<Answer>, wake: bool) {
        for Answer(sender, answer) in answers {
            let _ = sender.send(answer);
        }
        if wake {
            self.wake.notify_one();
        }
    }

    pub(super) fn landed(self: &Arc<Self>, id: Id) {
        self.lock().displaced.remove(&id);
    }

    fn tell(&self) {
        let now = self.now();
        let lanes = {
            let state = self.lock();
            if !state.asking.values().any(|asking| asking.progress.is_heard()) {
                return;
            }
            state.queue.lanes_now(now)
        };
        let stands: Vec<Stands> = lanes.into_iter().flat_map(standing).collect();
        let mut state = self.lock();
        for stands in stands {
            if let Some(asking) = state.asking.get_mut(&stands.id).filter(|asking| is_news(asking.told, stands.ahead)) {
                let ahead = shown(asking.told, &stands);
                asking.told = Some((ahead, stands.higher));
                asking.progress.tell(waiting(&stands, ahead));
                state.queue.foretold(now, &stands);
            }
        }
    }

    fn count_grant(&self, grant: &Grant) {
        self.metrics.queue_dispatched(grant.class);
        if grant.lifted {
            self.metrics.queue_lifted(grant.class);
        }
        if grant.loads {
            self.metrics.queue_load(&grant.backend);
        }
    }

    fn count(&self) {
        let (waiting, slots) = {
            let state = self.lock();
            (state.queue.waiting_by_class(), state.queue.slots())
        };
        self.metrics.queue_waiting(&waiting);
        for (backend, slots, in_flight) in slots {
            self.metrics.queue_slots(&backend, slots, in_flight);
        }
    }
}

/// Whether a place is worth telling: far back in a long queue, only when it has moved up by a quarter. Thousands who wait would
/// otherwise cost more to be told than to be served.
fn is_news(told: Option<(u32, u32)>, ahead: u32) -> bool {
    ahead <= NEAR || told.is_none_or(|(told, _)| u64::from(ahead) * 4 <= u64::from(told) * 3)
}

fn waiting(stands: &Stands, ahead: u32) -> Waiting {
    Waiting { ahead, reason: stands.reason, eta: stands.eta_s.map(seconds) }
}

#[cfg(test)]
#[path = "handle_tests.rs"]
mod tests;
