//! Figure R8 in simulation: a router on a clock that is moved, backends that are numbers. Same seed, same run.
//!
//! A request lives until its first token here: what is lost after it cannot be tried again by routing.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Duration;

use super::*;
use crate::domain::blame::{Blame, Retry};
use crate::domain::clock::Clock;
use crate::telemetry::Metrics;

const NAMES: [&str; 3] = ["a", "b", "c"];
const MODEL: &str = "m:latest";
const SLOTS: u32 = 8;
/// Runs of each kind; more of them when the router is changed: they take half a second each.
const SEEDS: u64 = 4;
const SECOND_US: u64 = 1_000_000;

/// How a backend behaves at a time.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Health {
    Fine,
    /// Connections are refused, and what runs is lost.
    Dead,
    /// Answers 500 at once.
    Failing,
}

struct World {
    router: Router,
    clock: Clock,
    dice: Dice,
    now_us: u64,
    /// Health of a backend at a time.
    health: Box<dyn Fn(usize, u64) -> Health>,
    in_flight: [u32; 3],
    /// When, which request, which event.
    events: BinaryHeap<Reverse<(u64, u64, Happens)>>,
    next_id: u64,
    running: std::collections::HashMap<u64, (usize, u64, Attempt)>,
    tally: Tally,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Happens {
    Arrives,
    /// The attempt ends; how was decided when it began.
    Ends {
        fails: bool,
        tries: u32,
        tried: u8,
    },
}

#[derive(Debug, Default, Clone)]
struct Tally {
    offered: u64,
    attempts: u64,
    succeeded: u64,
    failed: u64,
    /// Attempts by backend, by whole second.
    by_second: Vec<[u64; 3]>,
}

impl World {
    fn new(seed: u64, health: impl Fn(usize, u64) -> Health + 'static) -> Self {
        let clock = Clock::fake(0);
        let router = Router::with_dice(Config::default(), Metrics::default(), clock.clone(), Dice::seeded(seed));
        Self {
            router,
            clock,
            dice: Dice::seeded(seed ^ 0xABCD),
            now_us: 0,
            health: Box::new(health),
            in_flight: [0; 3],
            events: BinaryHeap::new(),
            next_id: 0,
            running: std::collections::HashMap::new(),
            tally: Tally::default(),
        }
    }

    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "microseconds of a simulation")]
    fn arrivals(mut self, per_second: f64, seconds: u64) -> Tally {
        let mut at = 0.0;
        loop {
            at += -(1.0 - self.dice.roll()).ln() / per_second * 1e6;
            if at as u64 >= seconds * SECOND_US {
                break;
            }
            self.next_id += 1;
            self.events.push(Reverse((at as u64, self.next_id, Happens::Arrives)));
        }
        while let Some(Reverse((at, id, what))) = self.events.pop() {
            self.clock.advance(Duration::from_micros(at - self.now_us));
            self.now_us = at;
            match what {
                Happens::Arrives => {
                    self.router.offered();
                    self.tally.offered += 1;
                    self.begin(id, 1, 0);
                }
                Happens::Ends { fails, tries, tried } => self.end(id, fails, tries, tried),
            }
        }
        self.tally
    }

    /// Starts an attempt at a backend that this request has not tried yet, if there is one.
    fn begin(&mut self, id: u64, tries: u32, tried: u8) {
        let look = |n: usize| Look { in_flight: self.in_flight[n], slots: SLOTS, ..Look::default() };
        let fresh: Vec<usize> = (0..3).filter(|n| tried & (1 << n) == 0).collect();
        let from = if fresh.is_empty() { vec![0, 1, 2] } else { fresh };
        let candidates: Vec<Candidate<'_>> = from.iter().map(|n| Candidate { backend: NAMES[*n], model: MODEL, look: look(*n) }).collect();
        let (index, attempt) = self.router.choose(&candidates).expect("somebody is always asked");
        let n = from[index];
        self.in_flight[n] += 1;
        self.tally.attempts += 1;
        let second = usize::try_from(self.now_us / SECOND_US).expect("small");
        self.tally.by_second.resize(self.tally.by_second.len().max(second + 1), [0; 3]);
        self.tally.by_second[second][n] += 1;
        let (took_us, fails) = self.fate(n);
        let end = Happens::Ends { fails, tries, tried: tried | (1 << n) };
        self.running.insert(id, (n, self.now_us, attempt));
        self.events.push(Reverse((self.now_us + took_us, id, end)));
    }

    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "microseconds of a simulation")]
    fn fate(&self, n: usize) -> (u64, bool) {
        if (self.health)(n, self.now_us) != Health::Fine {
            return (1_000, true);
        }
        let load = 1.0 + f64::from(self.in_flight[n]) / f64::from(SLOTS);
        let took_us = (50_000.0 * load * (0.5 + self.dice.roll())) as u64;
        // Killed while it worked on it?
        let dies = (0..took_us).step_by(5_000).find(|us| (self.health)(n, self.now_us + us) == Health::Dead);
        dies.map_or((took_us, false), |us| (us, true))
    }

    fn end(&mut self, id: u64, fails: bool, tries: u32, tried: u8) {
        let (n, began_us, mut attempt) = self.running.remove(&id).expect("it runs");
        self.in_flight[n] -= 1;
        if !fails {
            attempt.first_token(Duration::from_micros(self.now_us - began_us));
            attempt.succeeded();
            self.tally.succeeded += 1;
            return;
        }
        let kind = if (self.health)(n, self.now_us) == Health::Failing { "failed" } else { "unreachable" };
        attempt.failed(kind, Retry::Elsewhere, Blame::Upstream);
        if tries < self.router.max_attempts() && self.router.may_retry() {
            self.begin(id, tries + 1, tried);
        } else {
            self.tally.failed += 1;
        }
    }
}

/// Every five seconds the next one is dead for four.
fn one_killed_every_five_seconds(n: usize, at_us: u64) -> Health {
    let (round, within) = (at_us / (5 * SECOND_US), at_us % (5 * SECOND_US));
    let killed = round > 0 && usize::try_from(round % 3).expect("small") == n && within < 4 * SECOND_US;
    if killed { Health::Dead } else { Health::Fine }
}

#[test]
fn with_one_of_three_killed_every_five_seconds_nearly_all_succeed() {
    let (mut offered, mut failed, mut late) = (0, 0, [0; 3]);
    for seed in 0..SEEDS {
        // What one backend can do alone is 160 a second: beyond it what piles up there is more than the budget of retries.
        for per_second in [20.0, 100.0, 140.0] {
            let tally = World::new(seed, one_killed_every_five_seconds).arrivals(per_second, 60);
            assert_eq!(tally.offered, tally.succeeded + tally.failed, "none is lost");
            for row in &tally.by_second[30..] {
                (0..3).for_each(|n| late[n] += row[n]);
            }
            offered += tally.offered;
            failed += tally.failed;
        }
    }
    assert!(failed * 10_000 <= offered, "{failed} of {offered} failed");
    // Killed backends come back: on the whole each has its part of the second half. One that keeps dying may rest for long.
    assert!(late.iter().all(|n| n * 10 > late.iter().sum::<u64>()), "{late:?}");
}

#[test]
fn when_all_fail_attempts_are_at_most_a_tenth_more_than_requests() {
    for health in [Health::Dead, Health::Failing] {
        for seed in 0..SEEDS {
            for per_second in [5.0, 50.0, 500.0] {
                let tally = World::new(seed, move |_, _| health).arrivals(per_second, 30);
                assert_eq!(tally.succeeded, 0);
                assert!(tally.attempts * 10 <= tally.offered * 11, "{health:?}, seed {seed}: {} of {}", tally.attempts, tally.offered);
                assert!(tally.attempts >= tally.offered, "each is tried once, however bad things are");
            }
        }
    }
}

#[test]
fn a_backend_that_fails_fast_gets_next_to_nothing_after_two_seconds() {
    for health in [Health::Dead, Health::Failing] {
        for seed in 0..SEEDS {
            for per_second in [50.0, 200.0, 400.0] {
                // It is fine for ten seconds first, so that it has a good name to lose.
                let bad = move |n: usize, at: u64| if n == 0 && at >= 10 * SECOND_US { health } else { Health::Fine };
                let tally = World::new(seed, bad).arrivals(per_second, 72);
                let after = &tally.by_second[12..];
                let (bad, all) = after.iter().fold((0, 0), |(bad, all), row| (bad + row[0], all + row.iter().sum::<u64>()));
                assert!(bad * 100 <= all, "{health:?}, seed {seed}, {per_second}/s: {bad} of {all}");
                assert_eq!(tally.failed, 0, "{health:?}, seed {seed}: the others serve");
            }
        }
    }
}

#[test]
fn when_all_come_back_work_goes_on() {
    for seed in 0..SEEDS {
        let bad = |_: usize, at: u64| if (5..10).contains(&(at / SECOND_US)) { Health::Dead } else { Health::Fine };
        let tally = World::new(seed, bad).arrivals(50.0, 30);
        let while_dead = 5 * 50 * 2;
        assert!(tally.failed < while_dead, "seed {seed}: {} failed", tally.failed);
        // The least bad one is asked all the time: so the first success comes with the first request after the end.
        assert!(tally.succeeded + while_dead > tally.offered, "seed {seed}");
    }
}

#[test]
fn the_same_seed_is_the_same_run() {
    let run = || World::new(3, one_killed_every_five_seconds).arrivals(100.0, 20);
    let (one, two) = (run(), run());
    assert_eq!((one.attempts, one.failed, one.by_second), (two.attempts, two.failed, two.by_second));
}
