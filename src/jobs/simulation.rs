//! Workers that die, stall and come back at random moments, on the real state machine: no acknowledged job is lost, and no two workers'
//! writes both count.

use std::collections::HashMap;
use std::time::Duration;

use serde_json::json;

use super::machine::{self, Wrong};
use crate::storage::jobs::{Fault, Standing, State};

const LEASE: Duration = Duration::from_millis(100);
const PAUSE: Duration = Duration::from_millis(10);
const JOBS: usize = 20;
const WORKERS: usize = 6;

/// Numbers that are the same in each run (xorshift64*).
struct Dice(u64);

impl Dice {
    fn throw(&mut self, sides: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33) % sides
    }
}

/// What a worker believes to have.
#[derive(Clone, Copy)]
struct Held {
    job: usize,
    epoch: i64,
    work_left: u64,
}

#[derive(Default)]
struct Worker {
    held: Option<Held>,
    /// It does nothing until then: stopped, swapped out, or without the database.
    stalled_until_ms: i64,
}

struct World {
    jobs: Vec<Standing>,
    workers: Vec<Worker>,
    dice: Dice,
    now_ms: i64,
    /// By job and epoch, whose writes counted.
    wrote: HashMap<(usize, i64), usize>,
    refused: usize,
    attempts: usize,
}

impl World {
    fn new(seed: u64) -> Self {
        let jobs = (0..JOBS).map(|_| machine::submitted(1_000, 0)).collect();
        let workers = (0..WORKERS).map(|_| Worker::default()).collect();
        Self { jobs, workers, dice: Dice(seed | 1), now_ms: 0, wrote: HashMap::new(), refused: 0, attempts: 0 }
    }

    fn done(&self) -> bool {
        self.jobs.iter().all(|job| job.state.is_end())
    }

    fn step(&mut self) {
        self.now_ms += 1;
        for job in &mut self.jobs {
            if let Ok(next) = machine::expire(job, PAUSE, self.now_ms) {
                *job = next;
            }
        }
        if self.dice.throw(400) == 0 {
            let job = usize::try_from(self.dice.throw(JOBS as u64)).expect("small");
            if let Ok(next) = machine::cancel(&self.jobs[job], self.now_ms) {
                self.jobs[job] = next;
            }
        }
        for worker in 0..WORKERS {
            self.work(worker);
        }
    }

    fn work(&mut self, worker: usize) {
        if self.workers[worker].stalled_until_ms > self.now_ms {
            return;
        }
        match self.dice.throw(200) {
            // Killed: what it held is forgotten, in the middle of anything.
            0 => self.workers[worker] = Worker::default(),
            1 => self.workers[worker].stalled_until_ms = self.now_ms + i64::try_from(self.dice.throw(300)).expect("small"),
            _ => match self.workers[worker].held {
                Some(held) => self.go_on(worker, held),
                None => self.take(worker),
            },
        }
    }

    fn take(&mut self, worker: usize) {
        let free = |job: &Standing| job.state == State::Queued && job.not_before_ms <= self.now_ms;
        let Some(job) = self.jobs.iter().position(free) else { return };
        let leased = machine::lease(&self.jobs[job], &worker.to_string(), self.now_ms, LEASE).expect("free");
        let leased = machine::begin(&leased, leased.epoch).expect("just taken");
        self.attempts += 1;
        self.workers[worker].held = Some(Held { job, epoch: leased.epoch, work_left: 1 + self.dice.throw(80) });
        self.jobs[job] = leased;
    }

    fn go_on(&mut self, worker: usize, held: Held) {
        let job = &self.jobs[held.job];
        let next = if job.cancel_requested && job.epoch == held.epoch {
            machine::release(job, held.epoch, self.now_ms)
        } else if held.work_left == 0 {
            match self.dice.throw(10) {
                0 => machine::fail(job, held.epoch, Fault { kind: "x".into(), message: "x".into() }, Some(PAUSE), self.now_ms),
                1 => machine::release(job, held.epoch, self.now_ms),
                _ => machine::succeed(job, held.epoch, json!(worker), self.now_ms),
            }
        } else {
            machine::renew(job, held.epoch, self.now_ms, LEASE)
        };
        let left = held.work_left.saturating_sub(1);
        self.workers[worker].held = match next {
            Ok(next) => {
                let first = *self.wrote.entry((held.job, held.epoch)).or_insert(worker);
                assert_eq!(first, worker, "two workers wrote in one epoch of one job");
                assert_eq!(self.jobs[held.job].owner, Some(worker.to_string()), "a write of somebody else counted");
                self.jobs[held.job] = next;
                self.jobs[held.job].state.is_active().then_some(Held { work_left: left, ..held })
            }
            Err(Wrong::Lost) => {
                self.refused += 1;
                None
            }
            Err(other) => panic!("{other}"),
        };
    }
}

#[test]
fn no_job_is_lost_and_none_is_two_workers() {
    let (mut refused, mut attempts) = (0, 0);
    for seed in 1..=200 {
        let mut world = World::new(seed * 0x9E37_79B9);
        while !world.done() {
            world.step();
            assert!(world.now_ms < 200_000, "a job of seed {seed} is never done");
        }
        assert!(world.jobs.iter().all(|job| matches!(job.state, State::Succeeded | State::Cancelled)));
        refused += world.refused;
        attempts += world.attempts;
    }
    // Were there no zombies, nothing would be shown.
    assert!(refused > 500 && attempts > 200 * JOBS, "{refused} writes of zombies were refused in {attempts} attempts");
}
