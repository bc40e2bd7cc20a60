//! Clients, servers and the queue between them.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use super::super::entry::Alike;
use super::super::queue::{Effect, Ending, Queue};
use super::super::{At, Config, Entry, Id, Refusal, Runner};
use super::s;
use crate::domain::generation::{Priority, Usage};
use crate::domain::id::RequestId;
use crate::domain::waiting::Progress;
use crate::scheduler::BackendView;

/// What one request asks and what it will really cost.
#[derive(Debug, Clone)]
pub(crate) struct Job {
    pub client: usize,
    pub class: Priority,
    pub tenant: Arc<str>,
    pub weight: u32,
    pub model: Arc<str>,
    pub shape: Arc<str>,
    pub prompt: u64,
    pub tokens: u64,
    pub bounded: bool,
    pub warm: Option<u64>,
    pub deadline_s: Option<f64>,
    pub patience_s: Option<f64>,
    /// The client leaves after this long, without having said so.
    pub leaves_s: Option<f64>,
    pub on: Arc<Alike>,
}

impl Job {
    pub(crate) fn new(on: &Arc<Alike>) -> Self {
        Self {
            client: 0,
            class: Priority::Normal,
            tenant: "t".into(),
            weight: 1,
            model: "a".into(),
            shape: "".into(),
            prompt: 20,
            tokens: 20,
            bounded: true,
            warm: None,
            deadline_s: None,
            patience_s: None,
            leaves_s: None,
            on: on.clone(),
        }
    }
}

/// How a server really is.
#[derive(Debug, Clone)]
pub(crate) struct Server {
    pub slots: usize,
    pub max_loaded: usize,
    pub load_s: f64,
    pub prompt_s: f64,
    pub token_s: f64,
    pub overhead_s: f64,
    /// Prefixes that stay warm on a model.
    pub warm: usize,
    pub loaded: Vec<Runner>,
    /// On each runner: being served, and in the server's own queue.
    pub at_work: HashMap<Runner, (Vec<Id>, VecDeque<Id>)>,
    pub prefixes: VecDeque<u64>,
    pub loads: usize,
    pub prompt_spent_s: f64,
}

impl Default for Server {
    fn default() -> Self {
        Self {
            slots: 1,
            max_loaded: 1,
            load_s: 1.5,
            prompt_s: 0.001,
            token_s: 0.015,
            overhead_s: 0.02,
            warm: 6,
            loaded: Vec::new(),
            at_work: HashMap::new(),
            prefixes: VecDeque::new(),
            loads: 0,
            prompt_spent_s: 0.0,
        }
    }
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Outcome {
    Waiting,
    Running,
    Done,
    Refused(Refusal),
    Left,
}

#[derive(Debug, Clone)]
pub(crate) struct Record {
    pub job: Job,
    pub came: At,
    pub granted: Option<At>,
    pub first: Option<At>,
    pub ended: Option<At>,
    pub outcome: Outcome,
    /// Wait expected when it came, in seconds.
    pub eta_s: Option<f64>,
    server: Arc<str>,
}

impl Record {
    pub(crate) fn wait_s(&self) -> f64 {
        self.granted.map_or(f64::NAN, |at| at.saturating_sub(self.came).as_secs_f64())
    }

    pub(crate) fn ttft_s(&self) -> f64 {
        self.first.map_or(f64::NAN, |at| at.saturating_sub(self.came).as_secs_f64())
    }

    pub(crate) fn done(&self) -> bool {
        self.outcome == Outcome::Done
    }
}

#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    Come(usize),
    First(Id),
    Token(Id),
    End(Id),
    Leave(Id),
    Tick,
}

pub(crate) struct World {
    pub queue: Queue,
    pub now: At,
    pub servers: BTreeMap<Arc<str>, Server>,
    pub records: HashMap<Id, Record>,
    events: BinaryHeap<Reverse<(At, u64, Event)>>,
    jobs: Vec<Job>,
    serial: u64,
    pub refused_at_once: Vec<(Job, At, Refusal)>,
    /// What a client does when its request has ended.
    pub again: Option<Again>,
    pub until: At,
    /// Whether the world looks after the rules at every step.
    pub strict: bool,
    pub lifts: usize,
    /// How often the queue looks at the time.
    pub tick: Duration,
}

/// After how many seconds the client of a request that has ended asks what next.
pub(crate) type Again = Box<dyn FnMut(&Record) -> Option<(f64, Job)>>;

impl World {
    pub(crate) fn new(config: Config, servers: Vec<(&str, Server, BackendView)>) -> Self {
        let mut queue = Queue::new(config);
        let mut all = BTreeMap::new();
        for (name, server, view) in servers {
            queue.update(At::ZERO, name, &view);
            all.insert(Arc::from(name), server);
        }
        Self {
            queue,
            now: At::ZERO,
            servers: all,
            records: HashMap::new(),
            events: BinaryHeap::new(),
            jobs: Vec::new(),
            serial: 0,
            refused_at_once: Vec::new(),
            again: None,
            until: Duration::from_hours(24),
            strict: true,
            lifts: 0,
            tick: Duration::from_millis(20),
        }
    }

    fn at(&mut self, at: At, event: Event) {
        self.serial += 1;
        self.events.push(Reverse((at, self.serial, event)));
    }

    pub(crate) fn come(&mut self, at: At, job: Job) {
        self.jobs.push(job);
        self.at(at, Event::Come(self.jobs.len() - 1));
    }

    pub(crate) fn run(&mut self) {
        self.at(self.now + self.tick, Event::Tick);
        while let Some(Reverse((at, _, event))) = self.events.pop() {
            if at > self.until {
                break;
            }
            self.now = at;
            let looks = self.strict && event != Event::Tick;
            match event {
                Event::Come(n) => self.arrive(n),
                Event::First(id) => self.first(id),
                Event::Token(id) => self.queue.tokens(id, 16),
                Event::End(id) => self.end(id),
                Event::Leave(id) => self.leave(id),
                Event::Tick => self.tick(),
            }
            self.effects();
            if looks {
                self.check();
            }
        }
    }

    fn tick(&mut self) {
        self.queue.tick(self.now);
        if !self.events.is_empty() || self.queue.awaits_time() {
            self.at(self.now + self.tick, Event::Tick);
        }
    }

    fn arrive(&mut self, n: usize) {
        let job = self.jobs[n].clone();
        let entry = Entry {
            request: RequestId::from_client("x").expect("a request id"),
            runner: Runner { model: job.model.clone(), shape: job.shape.clone() },
            candidates: job.on.clone(),
            class: job.class,
            tenant: job.tenant.clone(),
            weight: job.weight,
            key: Some(job.tenant.clone()),
            deadline: None,
            patience: job.patience_s.map(s),
            prompt_tokens: job.prompt,
            warm: job.warm,
            num_predict: job.bounded.then_some(job.tokens),
            slots: None,
            bytes: 100,
            progress: Progress::new().0,
        };
        let deadline = job.deadline_s.map(|left| self.now + s(left));
        match self.queue.admit(self.now, &entry, deadline) {
            Ok(id) => {
                let eta_s = self.queue.stands_first(id).and_then(|stands| stands.eta_s);
                let leaves = job.leaves_s;
                let record = Record {
                    job,
                    came: self.now,
                    granted: None,
                    first: None,
                    ended: None,
                    outcome: Outcome::Waiting,
                    eta_s,
                    server: "".into(),
                };
                assert!(self.records.insert(id, record).is_none(), "an id was given twice");
                if let Some(after) = leaves {
                    self.at(self.now + s(after), Event::Leave(id));
                }
            }
            Err(refusal) => {
                self.refused_at_once.push((job, self.now, refusal));
            }
        }
    }

    fn effects(&mut self) {
        for effect in self.queue.effects() {
            match effect {
                Effect::Granted(grant) => {
                    let record = self.records.get_mut(&grant.id).expect("one that came");
                    assert_eq!(record.outcome, Outcome::Waiting, "served twice, or after its end");
                    record.outcome = Outcome::Running;
                    record.granted = Some(self.now);
                    record.server = grant.backend.clone();
                    self.lifts += usize::from(grant.lifted);
                    self.ask(&grant.backend, grant.id);
                }
                Effect::Refused { id, refusal, .. } => {
                    let record = self.records.get_mut(&id).expect("one that came");
                    assert_eq!(record.outcome, Outcome::Waiting, "refused after its end");
                    record.outcome = Outcome::Refused(refusal);
                    record.ended = Some(self.now);
                    self.next_of(id);
                }
                Effect::Displace(_) => {}
            }
        }
    }

    /// The server is asked.
    fn ask(&mut self, name: &Arc<str>, id: Id) {
        let job = self.records[&id].job.clone();
        let runner = Runner { model: job.model.clone(), shape: job.shape.clone() };
        let server = self.servers.get_mut(name).expect("a server");
        let mut begin = self.now;
        if !server.loaded.contains(&runner) {
            server.loads += 1;
            begin += s(server.load_s);
            let idle =
                |r: &Runner, at: &HashMap<Runner, (Vec<Id>, VecDeque<Id>)>| at.get(r).is_none_or(|(a, w)| a.is_empty() && w.is_empty());
            if let Some(other) = server.loaded.iter().position(|r| r.model == runner.model) {
                assert!(idle(&server.loaded[other], &server.at_work), "another shape was asked for while one was in use");
                server.loaded.remove(other);
            }
            while server.loaded.len() >= server.max_loaded {
                let gone = server.loaded.iter().position(|r| idle(r, &server.at_work));
                let gone = gone.expect("a model was asked for while those in its way were in use");
                server.loaded.remove(gone);
            }
            server.prefixes.clear();
            server.loaded.push(runner.clone());
        }
        let slots = server.slots;
        let (working, waiting) = server.at_work.entry(runner).or_default();
        if working.len() < slots {
            working.push(id);
            self.serve(name, id, begin);
        } else {
            waiting.push_back(id);
            assert!(waiting.len() <= 1, "more than one probe beyond the slots");
            assert!(self.queue.backends[name].slots.is_none(), "more in flight than configured slots");
        }
    }

    fn serve(&mut self, name: &Arc<str>, id: Id, begin: At) {
        let job = self.records[&id].job.clone();
        let server = self.servers.get_mut(name).expect("a server");
        let cached = job.warm.filter(|w| server.prefixes.contains(w)).map_or(0, |_| job.prompt * 9 / 10);
        if let Some(warm) = job.warm {
            server.prefixes.retain(|&w| w != warm);
            server.prefixes.push_front(warm);
            server.prefixes.truncate(server.warm);
        }
        let float = super::super::estimate::float;
        let prompt_s = float(job.prompt - cached) * server.prompt_s;
        server.prompt_spent_s += prompt_s;
        let first = begin + s(server.overhead_s + prompt_s);
        let token_s = server.token_s;
        let record = self.records.get_mut(&id).expect("there");
        record.job.prompt = job.prompt - cached;
        self.at(first, Event::First(id));
        for n in 1..=job.tokens / 16 {
            self.at(first + s(float(n * 16) * token_s), Event::Token(id));
        }
        self.at(first + s(float(job.tokens) * token_s), Event::End(id));
    }

    fn first(&mut self, id: Id) {
        let record = self.records.get_mut(&id).expect("there");
        if record.outcome == Outcome::Running {
            record.first = Some(self.now);
            let after = self.now.saturating_sub(record.granted.expect("granted")).as_secs_f64();
            self.queue.first_token(self.now, id, after);
        }
    }

    fn end(&mut self, id: Id) {
        let record = self.records.get_mut(&id).expect("there");
        if record.outcome != Outcome::Running {
            return;
        }
        record.outcome = Outcome::Done;
        record.ended = Some(self.now);
        let usage = Usage { prompt_tokens: Some(record.job.prompt), cached_tokens: Some(0), completion_tokens: Some(record.job.tokens) };
        self.release(id);
        self.queue.end(self.now, id, &Ending { usage: Some(usage), ..Ending::default() });
        self.effects();
        self.next_of(id);
    }

    fn leave(&mut self, id: Id) {
        let record = self.records.get_mut(&id).expect("there");
        let was = std::mem::replace(&mut record.outcome, Outcome::Left);
        match was {
            Outcome::Waiting => {
                assert!(self.queue.cancel(self.now, id), "one that waited is lost");
            }
            Outcome::Running => {
                self.release(id);
                self.queue.end(self.now, id, &Ending::default());
            }
            other => {
                record.outcome = other;
                return;
            }
        }
        self.records.get_mut(&id).expect("there").ended = Some(self.now);
        self.effects();
        self.next_of(id);
    }

    /// The server has a place again.
    fn release(&mut self, id: Id) {
        let (name, job) = (self.records[&id].server.clone(), self.records[&id].job.clone());
        let runner = Runner { model: job.model, shape: job.shape };
        let server = self.servers.get_mut(&name).expect("a server");
        let Some((working, waiting)) = server.at_work.get_mut(&runner) else { return };
        working.retain(|&other| other != id);
        waiting.retain(|&other| other != id);
        if working.len() < server.slots
            && let Some(next) = waiting.pop_front()
        {
            working.push(next);
            self.serve(&name, next, self.now);
        }
    }

    fn next_of(&mut self, id: Id) {
        let Some(mut again) = self.again.take() else { return };
        if let Some((after, job)) = again(&self.records[&id]) {
            self.come(self.now + s(after), job);
        }
        self.again = Some(again);
    }

    fn check(&self) {
        let waiting = self.records.values().filter(|r| r.outcome == Outcome::Waiting).count();
        assert_eq!(waiting, self.queue.waiters.len(), "lost, or served without a word");
        let running = self.records.values().filter(|r| r.outcome == Outcome::Running).count();
        assert_eq!(running, self.queue.flights.len());
        assert_eq!(self.queue.bytes, waiting * 100);
        for backend in self.queue.backends.values() {
            for state in backend.runners.values() {
                let most = state.slots.known() + u32::from(state.slots.is_learnt());
                assert!(state.busy() <= most, "{} in flight on {most} slots", state.busy());
            }
        }
    }

    pub(crate) fn done(&self) -> Vec<&Record> {
        self.records.values().filter(|record| record.done()).collect()
    }
}
