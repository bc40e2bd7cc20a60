//! Which models are loaded, as Ollama's scheduler decides it, with its weaknesses.
//!
//! A request for a loaded runner of the right shape is bound to it at once, past any queue. Everything else goes through
//! one lane, first come first served: the head of the lane evicts what is in its way, **waits until that runner is idle**
//! (for ever, if requests for it keep coming), loads, and only then is the next one looked at. Only those who wait for the
//! lane are bounded (`max_queue`). Inside a runner a fair semaphore hands out the slots.

use super::{
    engine::{Engine, Slot},
    options::{Life, Shape},
    record::Ledger,
    script::{Leak, Model, Script},
};
use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};
use tokio::sync::Notify;

/// The text of its 503 (both spaces are Ollama's).
pub(super) const BUSY: &str = "server busy, please try again.  maximum pending requests exceeded";

struct Runner {
    id: u64,
    model: Model,
    shape: Shape,
    engine: Arc<Engine>,
    /// `/api/ps` found that it does not answer: the next request replaces it.
    given_up: bool,
    uses: usize,
    life: Life,
    evicted: bool,
    /// None while in use or when it stays for ever.
    expires: Option<Instant>,
}

/// A loaded model as `/api/ps` tells it.
pub(super) struct Loaded {
    pub model: Model,
    pub num_ctx: u32,
    /// None: never.
    pub expires_in: Option<Duration>,
}

#[derive(Default)]
struct State {
    runners: Vec<Runner>,
    waiting: usize,
    next_id: u64,
    /// The lane waits for an eviction that never comes (#17408).
    deadlocked: bool,
}

pub(super) struct Scheduler {
    state: Mutex<State>,
    lane: tokio::sync::Mutex<()>,
    changed: Notify,
    ledger: Arc<Ledger>,
}

/// The queue of loads is full.
#[derive(Debug)]
pub(super) struct Busy;

/// What a request asks of the scheduler.
pub(super) struct Wanted<'a> {
    pub model: &'a Model,
    pub shape: Shape,
    pub life: Option<Life>,
    pub script: &'a Script,
}

enum Step {
    Bound(Lease),
    Load,
    Wait,
}

impl Scheduler {
    pub fn new(ledger: Arc<Ledger>) -> Self {
        Self { state: Mutex::default(), lane: tokio::sync::Mutex::default(), changed: Notify::new(), ledger }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        self.retain(&mut state, |runner| runner.expires.is_none_or(|at| at > now));
        state
    }

    /// Drops runners and counts them. A runner in use is never dropped here.
    fn retain(&self, state: &mut State, keep: impl Fn(&Runner) -> bool) {
        let before = state.runners.len();
        state.runners.retain(|runner| runner.uses > 0 || keep(runner));
        let gone = before - state.runners.len();
        if gone > 0 {
            self.ledger.note(|seen| seen.unloads += gone as u64);
            self.changed.notify_waiters();
        }
    }

    /// Binds a request to a runner, loading it if need be.
    pub async fn acquire(self: &Arc<Self>, wanted: Wanted<'_>) -> Result<Lease, Busy> {
        if let Some(lease) = self.attach(&mut self.state(), &wanted) {
            return Ok(lease);
        }
        let waiting = Waiting::enter(self, wanted.script.max_queue)?;
        let _lane = self.lane.lock().await;
        drop(waiting);
        loop {
            let changed = self.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            let step = self.step(&wanted);
            match step {
                Step::Bound(lease) => return Ok(lease),
                Step::Load => break,
                // Expiry wakes nobody, so look again now and then.
                Step::Wait => drop(tokio::time::timeout(Duration::from_millis(50), changed).await),
            }
        }
        self.ledger.note(|seen| seen.loads += 1);
        if !wanted.script.load_time.is_zero() {
            tokio::time::sleep(wanted.script.load_time).await;
        }
        Ok(self.install(&wanted))
    }

    fn attach(self: &Arc<Self>, state: &mut State, wanted: &Wanted<'_>) -> Option<Lease> {
        let fits = |r: &&mut Runner| r.model.blob == wanted.model.blob && r.shape == wanted.shape && !r.given_up;
        let runner = state.runners.iter_mut().find(fits)?;
        runner.uses += 1;
        runner.expires = None;
        // The tag that asked last is the one that `/api/ps` names.
        runner.model = wanted.model.clone();
        if let Some(life) = wanted.life {
            runner.life = life;
        }
        let lease = Lease::new(self, runner);
        self.ledger.note(|seen| seen.model(&wanted.model.name).requests += 1);
        Some(lease)
    }

    fn step(self: &Arc<Self>, wanted: &Wanted<'_>) -> Step {
        let mut state = self.state();
        if let Some(lease) = self.attach(&mut state, wanted) {
            return Step::Bound(lease);
        }
        let same = state.runners.iter().position(|r| r.model.blob == wanted.model.blob);
        let victim = match same {
            Some(index) => Some(index),
            None if state.runners.len() < wanted.script.max_loaded.max(1) => None,
            None => victim(&state.runners),
        };
        let Some(victim) = victim else { return Step::Load };
        if state.runners[victim].given_up {
            // A process that does not answer is killed, with whatever hangs on it.
            state.runners.remove(victim).engine.dead.cancel();
            return Step::Load;
        }
        state.runners[victim].evicted = true;
        if state.deadlocked {
            return Step::Wait;
        }
        let (id, name) = (state.runners[victim].id, state.runners[victim].model.name.clone());
        self.retain(&mut state, |runner| runner.id != id);
        if state.runners.iter().any(|runner| runner.id == id) {
            return Step::Wait;
        }
        self.ledger.note(|seen| {
            if same.is_some() {
                seen.reloads += 1;
            } else {
                seen.evictions += 1;
                seen.model(&name).evictions += 1;
            }
        });
        Step::Load
    }

    fn install(self: &Arc<Self>, wanted: &Wanted<'_>) -> Lease {
        let mut state = self.state();
        state.next_id += 1;
        let id = state.next_id;
        let slots = if wanted.model.embedding { 1 } else { wanted.script.slots.max(1) };
        let runner = Runner {
            id,
            model: wanted.model.clone(),
            shape: wanted.shape.clone(),
            engine: Arc::new(Engine::new(slots, wanted.script.saved_tokens, Arc::clone(&self.ledger))),
            given_up: false,
            uses: 1,
            life: wanted.life.unwrap_or(Life::For(wanted.script.keep_alive)),
            evicted: false,
            expires: None,
        };
        let lease = Lease::new(self, &runner);
        self.ledger.note(|seen| {
            let model = seen.model(&wanted.model.name);
            model.loads += 1;
            model.requests += 1;
        });
        state.runners.push(runner);
        lease
    }

    fn release(&self, id: u64) {
        let mut state = self.state();
        let Some(runner) = state.runners.iter_mut().find(|runner| runner.id == id) else { return };
        runner.uses -= 1;
        if runner.uses == 0 {
            runner.expires = match runner.life {
                Life::For(span) => Some(Instant::now() + span),
                Life::Forever => None,
            };
            let leaves = runner.evicted || runner.life == Life::For(Duration::ZERO);
            self.retain(&mut state, |runner| !(runner.id == id && leaves));
        }
        drop(state);
        self.changed.notify_waiters();
    }

    /// The runner goes as soon as nobody uses it.
    pub fn unload(&self, model: &Model) {
        let mut state = self.state();
        // An unload of one that nobody uses is what frees the lane.
        state.deadlocked &= !state.runners.iter().any(|runner| runner.model.blob == model.blob && runner.uses == 0);
        for runner in state.runners.iter_mut().filter(|runner| runner.model.blob == model.blob) {
            runner.life = Life::For(Duration::ZERO);
            runner.expires = (runner.uses == 0).then(Instant::now);
        }
        drop(state);
        drop(self.state());
    }

    /// All runners die, with whatever they are doing.
    pub fn kill_all(&self) {
        let mut state = self.state();
        state.deadlocked = false;
        for runner in state.runners.drain(..) {
            runner.engine.dead.cancel();
        }
        drop(state);
        self.changed.notify_waiters();
    }

    /// The next load that needs room waits for ever.
    pub fn deadlock(&self) {
        self.state().deadlocked = true;
    }

    /// Runners of a model, or all.
    fn engines(&self, model: Option<&str>) -> Vec<Arc<Engine>> {
        let state = self.state();
        let wanted = state.runners.iter().filter(|runner| model.is_none_or(|name| runner.model.name == name));
        wanted.map(|runner| Arc::clone(&runner.engine)).collect()
    }

    pub fn hang(&self, model: Option<&str>) {
        self.engines(model).iter().for_each(|engine| engine.hang());
    }

    pub fn lose_slot(&self, model: Option<&str>) {
        self.engines(model).iter().for_each(|engine| engine.lose_slot());
    }

    /// Whether a runner does not answer, whatever it is asked.
    pub fn has_hung(&self) -> bool {
        self.state().runners.iter().any(|runner| runner.engine.is_hung())
    }

    /// Runners that did not answer in time are no longer told, and replaced by the next request.
    pub fn give_up_hung(&self) {
        for runner in self.state().runners.iter_mut().filter(|runner| runner.engine.is_hung()) {
            runner.given_up = true;
        }
    }

    /// Longest expiry first.
    pub fn loaded(&self) -> Vec<Loaded> {
        let state = self.state();
        let now = Instant::now();
        let mut loaded: Vec<Loaded> = state
            .runners
            .iter()
            .filter(|runner| !runner.given_up)
            .map(|runner| Loaded {
                model: runner.model.clone(),
                num_ctx: runner.shape.num_ctx,
                expires_in: match (runner.life, runner.expires) {
                    (Life::Forever, _) => None,
                    (_, Some(at)) => Some(at.saturating_duration_since(now)),
                    (Life::For(span), None) => Some(span),
                },
            })
            .collect();
        loaded.sort_by_key(|entry| std::cmp::Reverse(entry.expires_in.unwrap_or(Duration::MAX)));
        loaded
    }
}

/// An idle runner with the shortest life, else any.
fn victim(runners: &[Runner]) -> Option<usize> {
    let idle = runners.iter().enumerate().filter(|(_, runner)| runner.uses == 0).min_by_key(|(_, runner)| runner.life);
    idle.or_else(|| runners.iter().enumerate().min_by_key(|(_, runner)| runner.life)).map(|(index, _)| index)
}

/// A place in the queue of loads.
struct Waiting<'a>(&'a Scheduler);

impl<'a> Waiting<'a> {
    fn enter(scheduler: &'a Scheduler, bound: usize) -> Result<Self, Busy> {
        let mut state = scheduler.state();
        // The one at the head has left Ollama's channel, so it takes no place.
        if state.waiting >= bound && scheduler.lane.try_lock().is_err() {
            return Err(Busy);
        }
        state.waiting += 1;
        Ok(Self(scheduler))
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.state().waiting -= 1;
    }
}

/// The right to use a runner; dropping it lets the runner go.
pub(super) struct Lease {
    scheduler: Arc<Scheduler>,
    id: u64,
    /// The model as it was asked for.
    pub model: String,
    pub engine: Arc<Engine>,
}

impl Lease {
    fn new(scheduler: &Arc<Scheduler>, runner: &Runner) -> Self {
        Self { scheduler: Arc::clone(scheduler), id: runner.id, model: runner.model.name.clone(), engine: Arc::clone(&runner.engine) }
    }

    /// Waits for a slot, in the order of arrival. None when the runner died meanwhile.
    pub async fn slot(&self, prompt: &[u64], leak: Leak) -> Option<Slot> {
        self.engine.slot(prompt, leak).await
    }

    /// The runner process dies.
    pub fn kill_runner(&self) {
        let mut state = self.scheduler.state();
        state.runners.retain(|runner| runner.id != self.id);
        self.engine.dead.cancel();
        drop(state);
        self.scheduler.changed.notify_waiters();
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.scheduler.release(self.id);
    }
}
