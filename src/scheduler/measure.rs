//! How long the decision about one request takes, measured on the queue itself.

use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::Serialize;

use super::config::Config;
use super::entry::{Alike, Candidates, Entry};
use super::queue::{Ending, Queue};
use super::view::BackendView;
use crate::domain::generation::{Priority, Usage};

/// Rounds that are timed.
const ROUNDS: usize = 20_000;

/// Times of one decision, in nanoseconds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Measurement {
    /// Requests that waited all the time.
    pub waiting: usize,
    pub rounds: usize,
    /// To let a request in.
    pub admit_p50_ns: u64,
    pub admit_p99_ns: u64,
    /// To free a slot and choose who gets it.
    pub next_p50_ns: u64,
    pub next_p99_ns: u64,
    /// To take out one that left.
    pub cancel_p50_ns: u64,
    pub cancel_p99_ns: u64,
}

/// Fills a queue with `waiting` requests of a hundred tenants and all classes, and times what happens to the next ones.
#[must_use]
pub fn measure(waiting: usize) -> Measurement {
    let mut queue = Queue::new(Config { max_waiting: waiting + 1, patience: Duration::MAX, probe_slots: false, ..Config::default() });
    queue.update(Duration::ZERO, "b", &BackendView { slots: Some(4), available: true, ..BackendView::default() });
    let candidates: Arc<dyn Candidates> = Arc::new(Alike(vec!["b".into()]));
    let tenants: Vec<Arc<str>> = (0..100).map(|n| format!("tenant-{n}").into()).collect();
    let entries: Vec<Entry> = (0..1_000).map(|n| entry(n, &tenants, &candidates)).collect();
    let mut now = Duration::ZERO;
    let mut served = std::collections::VecDeque::new();
    for n in 0..waiting + 4 {
        now += Duration::from_micros(10);
        let _ = queue.admit(now, &entries[n % entries.len()], None);
        collect(&mut queue, &mut served);
    }
    let (mut admits, mut nexts, mut cancels) = (Vec::new(), Vec::new(), Vec::new());
    for n in 0..ROUNDS {
        now += Duration::from_micros(10);
        let entry = &entries[n * 7 % entries.len()];
        let admitted = timed(&mut admits, || queue.admit(now, entry, None));
        if n % 2 == 0 {
            if let Ok(id) = admitted {
                timed(&mut cancels, || queue.cancel(now, id));
            }
        } else if let Some(id) = served.pop_front() {
            let usage = Usage { prompt_tokens: Some(100), completion_tokens: Some(50), ..Usage::default() };
            let ending = Ending { usage: Some(usage), ..Ending::default() };
            timed(&mut nexts, || queue.end(now, id, &ending));
        }
        collect(&mut queue, &mut served);
    }
    let at = |times: &mut Vec<u64>, percent: usize| {
        times.sort_unstable();
        times.get(times.len().saturating_sub(1) * percent / 100).copied().unwrap_or_default()
    };
    Measurement {
        waiting: queue.waiters.len(),
        rounds: ROUNDS,
        admit_p50_ns: at(&mut admits, 50),
        admit_p99_ns: at(&mut admits, 99),
        next_p50_ns: at(&mut nexts, 50),
        next_p99_ns: at(&mut nexts, 99),
        cancel_p50_ns: at(&mut cancels, 50),
        cancel_p99_ns: at(&mut cancels, 99),
    }
}

fn timed<R>(times: &mut Vec<u64>, what: impl FnOnce() -> R) -> R {
    let started = Instant::now();
    let result = what();
    times.push(u64::try_from(started.elapsed().as_nanos()).unwrap_or(u64::MAX));
    result
}

fn collect(queue: &mut Queue, served: &mut std::collections::VecDeque<u64>) {
    for effect in queue.effects() {
        if let super::queue::Effect::Granted(grant) = effect {
            served.push_back(grant.id);
        }
    }
}

fn entry(n: usize, tenants: &[Arc<str>], candidates: &Arc<dyn Candidates>) -> Entry {
    let tenant = &tenants[n % tenants.len()];
    Entry {
        candidates: candidates.clone(),
        class: Priority::ALL[n % Priority::ALL.len()],
        key: Some(tenant.clone()),
        prompt_tokens: 100,
        warm: Some((n % 50) as u64),
        num_predict: Some(if n.is_multiple_of(3) { 400 } else { 40 }),
        bytes: 1_000,
        ..Entry::small(tenant, &[])
    }
}
