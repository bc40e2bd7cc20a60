//! Where requests wait for the engine's thread, and how the two wake each other.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::sequence::Job;
use crate::backends::Error;

/// Shortest and longest time after which a refused client is asked to come again.
const RETRY_SECONDS: std::ops::RangeInclusive<u64> = 1..=60;

/// Requests on their way to one engine thread: a bounded number wait, the others are refused.
#[derive(Debug)]
pub(super) struct Queue {
    state: Mutex<State>,
    changed: Condvar,
    slots: usize,
    /// Most requests that wait while all slots are taken.
    waiting: usize,
}

#[derive(Debug, Default)]
struct State {
    jobs: VecDeque<Job>,
    active: usize,
    phase: Phase,
    /// Counts what the thread should look at, so that none of it is missed between looking and sleeping.
    news: u64,
    /// A moving average of what one request takes.
    usual: Duration,
}

/// How far a shutdown has come.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Phase {
    #[default]
    Open,
    /// What runs is finished, nothing else is taken.
    Closing,
    /// What runs is given up.
    Stopped,
}

/// What the thread finds when it looks.
#[derive(Debug)]
pub(super) struct News {
    pub(super) jobs: Vec<Job>,
    pub(super) phase: Phase,
    pub(super) seen: u64,
}

impl Queue {
    pub(super) fn new(slots: usize, waiting: usize) -> Self {
        Self { state: Mutex::default(), changed: Condvar::new(), slots, waiting }
    }

    pub(super) fn slots(&self) -> usize {
        self.slots
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // The state is sound after each statement: nothing here can leave it half changed.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a request, or refuses it.
    pub(super) fn push(&self, job: Job) -> Result<(), Error> {
        let mut state = self.lock();
        if state.phase != Phase::Open {
            return Err(Error::Closed);
        }
        state.jobs.retain(Job::is_wanted);
        if state.jobs.len() + state.active >= self.slots + self.waiting {
            let message = format!("{} requests run and {} wait, no more are taken", state.active, state.jobs.len());
            return Err(Error::Overloaded { message, retry_after: Some(self.retry_after(&state)) });
        }
        state.jobs.push_back(job);
        self.tell(state);
        Ok(())
    }

    /// When a place should be free.
    fn retry_after(&self, state: &State) -> Duration {
        let rounds = u32::try_from(1 + state.jobs.len() / self.slots.max(1)).unwrap_or(u32::MAX);
        let seconds = state.usual.saturating_mul(rounds).as_secs();
        Duration::from_secs(seconds.clamp(*RETRY_SECONDS.start(), *RETRY_SECONDS.end()))
    }

    fn tell(&self, mut state: MutexGuard<'_, State>) {
        state.news = state.news.wrapping_add(1);
        drop(state);
        self.changed.notify_one();
    }

    /// Makes the thread look again: a reader took something or went away.
    pub(super) fn wake(&self) {
        self.tell(self.lock());
    }

    /// Goes on to a phase, never back.
    pub(super) fn advance(&self, phase: Phase) {
        let mut state = self.lock();
        if state.phase == Phase::Open || phase == Phase::Stopped {
            state.phase = phase;
        }
        self.tell(state);
    }

    pub(super) fn is_open(&self) -> bool {
        self.lock().phase == Phase::Open
    }

    /// Takes requests for the free slots; those nobody waits for any more vanish.
    pub(super) fn take(&self, active: usize) -> News {
        let mut state = self.lock();
        state.jobs.retain(Job::is_wanted);
        let free = if state.phase == Phase::Open { self.slots.saturating_sub(active).min(state.jobs.len()) } else { state.jobs.len() };
        let jobs: Vec<Job> = state.jobs.drain(..free).collect();
        state.active = active + if state.phase == Phase::Open { jobs.len() } else { 0 };
        News { jobs, phase: state.phase, seen: state.news }
    }

    /// Sleeps until there is news beyond `seen`.
    pub(super) fn sleep(&self, seen: u64) {
        let state = self.lock();
        let woken = self.changed.wait_while(state, |state| state.news == seen);
        drop(woken.unwrap_or_else(PoisonError::into_inner));
    }

    /// Learns what a request took.
    pub(super) fn finished(&self, took: Duration) {
        let mut state = self.lock();
        state.usual = if state.usual.is_zero() { took } else { (state.usual * 7 + took) / 8 };
    }
}
