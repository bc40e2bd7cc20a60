//! What must hold in every small world, whatever comes.

use std::sync::Arc;

use super::super::entry::Alike;
use super::super::estimate::float;
use super::world::{Job, Outcome, Server, World};
use super::{Dice, s};
use crate::domain::generation::Priority;
use crate::scheduler::{BackendView, Config, MaxWait, Refusal};

/// Worlds that are tried. The full number is meant for the optimised test profile; `ARRIERO_SEEDS` at build time changes it.
fn seeds() -> u64 {
    option_env!("ARRIERO_SEEDS").and_then(|n| n.parse().ok()).unwrap_or(100_000)
}

fn world(dice: &mut Dice) -> World {
    let config = Config {
        max_waiting: 2 + usize::try_from(dice.below(10)).expect("small"),
        displace_running: dice.chance(0.3),
        patience: s(2.0 + dice.exponential(3.0)),
        ..Config::default()
    };
    let names = ["x", "y"];
    let servers = (0..=usize::from(dice.chance(0.4))).map(|n| {
        let (slots, max_loaded) = (1 + dice.below(3), 1 + dice.below(2));
        let server = Server {
            slots: usize::try_from(slots).expect("small"),
            max_loaded: usize::try_from(max_loaded).expect("small"),
            load_s: dice.exponential(1.0),
            ..Server::default()
        };
        let view = BackendView {
            slots: dice.chance(0.7).then_some(u32::try_from(slots).expect("small")),
            max_loaded: dice.chance(0.5).then_some(u32::try_from(max_loaded).expect("small")),
            available: true,
            ..BackendView::default()
        };
        (names[n], server, view)
    });
    World::new(config, servers.collect())
}

fn job(dice: &mut Dice, names: &[Arc<str>]) -> Job {
    let both = dice.chance(0.7);
    let on = Alike(if both { names.to_vec() } else { vec![dice.pick(names).clone()] });
    let one_of = |dice: &mut Dice, of: &[&str]| -> Arc<str> { (*dice.pick(of)).into() };
    Job {
        class: *dice.pick(&Priority::ALL),
        tenant: one_of(dice, &["t1", "t2", "t3"]),
        weight: 1 + u32::try_from(dice.below(3)).expect("small"),
        model: one_of(dice, &["a", "a", "b", "c"]),
        shape: one_of(dice, &["", "", "", "2048"]),
        prompt: dice.below(300),
        tokens: dice.below(60),
        bounded: dice.chance(0.5),
        warm: dice.chance(0.3).then(|| dice.below(4)),
        deadline_s: dice.chance(0.2).then(|| dice.exponential(8.0)),
        leaves_s: dice.chance(0.2).then(|| dice.exponential(2.0)),
        ..Job::new(&Arc::new(on))
    }
}

fn one(seed: u64) {
    let mut dice = Dice::new(seed);
    let mut world = world(&mut dice);
    world.tick = s(0.2);
    let names: Vec<Arc<str>> = world.servers.keys().cloned().collect();
    let mut at = 0.0;
    for _ in 0..4 + dice.below(11) {
        at += dice.exponential(0.15);
        let job = job(&mut dice, &names);
        world.come(s(at), job);
    }
    world.run();
    let patience = world.queue.config.patience.as_secs_f64();
    for record in world.records.values() {
        assert!(!matches!(record.outcome, Outcome::Waiting | Outcome::Running), "seed {seed}: {record:?} never ended");
        let waited = record.granted.or(record.ended).map_or(0.0, |at| at.saturating_sub(record.came).as_secs_f64());
        assert!(waited <= patience + 0.21, "seed {seed}: waited {waited} s of {patience} s");
    }
    assert!(world.queue.waiters.is_empty() && world.queue.flights.is_empty(), "seed {seed}: something is left");
    assert_eq!(world.queue.bytes, 0, "seed {seed}");
}

#[test]
fn in_a_hundred_thousand_worlds_nothing_is_lost_doubled_or_sent_too_early() {
    for seed in 0..seeds() {
        one(seed);
    }
}

/// The lowest class beside a full load of the highest: no request of it waits longer than its class's longest wait and what the
/// request in the slot then still needs.
fn starving(seed: u64) -> usize {
    let mut dice = Dice::new(seed);
    let slots = 1 + dice.below(3);
    let longest = 0.3 + dice.exponential(0.4);
    let mut config = Config { max_wait: MaxWait { batch: s(longest), ..MaxWait::default() }, ..Config::default() };
    // In half of the worlds the promise must hold by the lifts alone.
    config.shares.batch = u8::from(dice.chance(0.5)) * 2;
    let view = BackendView { slots: u32::try_from(slots).ok(), available: true, ..BackendView::default() };
    let server = Server { slots: usize::try_from(slots).expect("small"), load_s: 0.0, ..Server::default() };
    let mut world = World::new(config, vec![("x", server, view)]);
    (world.strict, world.tick, world.until) = (false, s(0.2), s(4.0));
    let on = Arc::new(Alike(vec!["x".into()]));
    let (least, spread) = (5 + dice.below(8), 1 + dice.below(8));
    let mut lengths = dice.clone();
    let urgent = Job { class: Priority::Urgent, tenant: "top".into(), tokens: least, bounded: dice.chance(0.5), ..Job::new(&on) };
    for n in 0..slots * 3 {
        world.come(s(0.01 * float(n)), urgent.clone());
    }
    world.again = Some(Box::new(move |record| {
        (record.job.class == Priority::Urgent).then(|| (0.0, Job { tokens: least + lengths.below(spread), ..record.job.clone() }))
    }));
    let service = 0.04 + 0.015 * float(least + spread);
    // No more of it than every second turn can serve.
    let mut at = dice.exponential(0.5);
    while at < 3.5 {
        world.come(s(at), Job { class: Priority::Batch, tenant: "low".into(), tokens: 10, ..Job::new(&on) });
        at += longest + 2.0 * service + dice.exponential(0.5);
    }
    world.run();
    let batch = world.records.values().filter(|record| record.job.class == Priority::Batch);
    for record in batch {
        let waited = record.granted.unwrap_or(world.until).saturating_sub(record.came).as_secs_f64();
        assert!(waited <= longest + service, "seed {seed}: batch waited {waited:.2} s of {longest:.2} s + {service:.2} s");
    }
    world.lifts
}

#[test]
fn the_lowest_class_never_waits_longer_than_its_stated_maximum() {
    let lifts: usize = (0..seeds()).map(starving).sum();
    assert!(lifts as u64 > seeds() / 10, "the promise was hardly put to the test: {lifts} lifts");
}

#[test]
fn what_leaves_is_gone_at_once_and_what_expires_is_told() {
    let on = Arc::new(Alike(vec!["x".into()]));
    let view = BackendView { slots: Some(1), available: true, ..BackendView::default() };
    let mut world = World::new(Config::default(), vec![("x", Server::default(), view)]);
    world.come(s(0.0), Job { tokens: 400, ..Job::new(&on) });
    world.come(s(0.1), Job { leaves_s: Some(1.0), ..Job::new(&on) });
    world.come(s(0.2), Job { patience_s: Some(2.0), ..Job::new(&on) });
    world.run();
    let mut by_time: Vec<_> = world.records.values().collect();
    by_time.sort_by_key(|record| record.came);
    assert_eq!(by_time[1].outcome, Outcome::Left);
    assert_eq!(by_time[1].ended, Some(s(0.1) + s(1.0)));
    assert!(matches!(by_time[2].outcome, Outcome::Refused(Refusal::Expired { .. })));
    assert!(by_time[2].ended.expect("ended") <= s(2.23));
}
