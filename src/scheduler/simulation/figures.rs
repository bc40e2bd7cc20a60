//! The figures that the queue is to reach, in worlds like those in which they are measured outside.

use std::collections::HashMap;
use std::sync::Arc;

use super::super::entry::Alike;
use super::super::estimate::float;
use super::world::{Job, Record, Server, World};
use super::{Dice, s};
use crate::domain::generation::Priority;
use crate::scheduler::{BackendView, Config};

fn view(slots: u32) -> BackendView {
    BackendView { slots: Some(slots), available: true, ..BackendView::default() }
}

fn on(names: &[&str]) -> Arc<Alike> {
    Arc::new(Alike(names.iter().map(|&n| n.into()).collect()))
}

fn percentile(mut values: Vec<f64>, percent: usize) -> f64 {
    values.sort_by(f64::total_cmp);
    values[(values.len() - 1) * percent / 100]
}

fn of(world: &World, which: impl Fn(&Record) -> bool) -> Vec<&Record> {
    world.records.values().filter(|record| which(record)).collect()
}

/// One asks again as soon as it was answered.
fn closed(world: &mut World) {
    world.again = Some(Box::new(|record| record.done().then(|| (0.001, record.job.clone()))));
}

/// F1: two models that cannot both be loaded, three clients each, forty seconds.
fn two_models(load_s: f64) -> (usize, usize, f64, usize) {
    // 20 tokens in 0.34 s.
    let server = Server { load_s, token_s: 0.015, overhead_s: 0.03, prompt_s: 0.0005, ..Server::default() };
    let mut world = World::new(Config::default(), vec![("x", server, view(1))]);
    world.until = s(40.0);
    closed(&mut world);
    for n in 0..6 {
        let model = if n % 2 == 0 { "a" } else { "b" };
        world.come(s(0.001 * float(n)), Job { model: model.into(), tenant: format!("t{n}").into(), ..Job::new(&on(&["x"])) });
    }
    world.run();
    let count = |model: &str| of(&world, |r| r.done() && &*r.job.model == model).len();
    let to_the_end = |record: &&Record| record.ended.unwrap_or(world.until).saturating_sub(record.came).as_secs_f64();
    let longest = world.records.values().collect::<Vec<_>>().iter().map(to_the_end).fold(0.0, f64::max);
    (count("a"), count("b"), longest, world.servers["x"].loads)
}

#[test]
fn f1_two_models_share_a_backend() {
    for load_s in [0.8, 1.2, 1.5] {
        let (a, b, longest, loads) = two_models(load_s);
        println!("F1 load {load_s}: A {a}, B {b}, longest {longest:.2} s, {loads} loads");
        let (less, more) = (a.min(b), a.max(b));
        assert!(float(less as u64) >= 0.6 * float(more as u64), "A {a}, B {b}");
        // All the time that is not spent on loading is spent on answers, and little is spent on loading.
        assert!(float((a + b) as u64) >= 0.97 * (40.0 - load_s * float(loads as u64)) / 0.34, "{a} + {b} at {load_s}");
        assert!(loads <= 6 && (load_s > 1.0 || a + b >= 100), "{a} + {b}, {loads} loads at {load_s}");
        assert!(longest <= 10.0, "{longest} s at {load_s}");
    }
}

/// F2: one tenant with eight clients of 100 tokens, another that asks 10 tokens a second apart.
#[test]
fn f2_a_light_tenant_is_not_held_up_by_a_heavy_one() {
    let server = Server { load_s: 0.0, token_s: 0.0097, overhead_s: 0.03, prompt_s: 0.0005, ..Server::default() };
    let mut world = World::new(Config::default(), vec![("x", server, view(1))]);
    world.until = s(30.0);
    world.again = Some(Box::new(|record| (&*record.job.tenant == "heavy").then(|| (0.001, record.job.clone()))));
    for _ in 0..8 {
        world.come(s(0.0), Job { tenant: "heavy".into(), tokens: 100, ..Job::new(&on(&["x"])) });
    }
    for n in 0..27 {
        world.come(s(1.0 + 1.03 * float(n)), Job { tenant: "light".into(), tokens: 10, ..Job::new(&on(&["x"])) });
    }
    world.run();
    let light: Vec<f64> = of(&world, |r| &*r.job.tenant == "light" && r.first.is_some()).iter().map(|r| r.ttft_s()).collect();
    let heavy = of(&world, |r| &*r.job.tenant == "heavy" && r.done()).len();
    let (p50, max) = (percentile(light.clone(), 50), percentile(light, 100));
    println!("F2: light p50 {p50:.2} s, max {max:.2} s, heavy {heavy}");
    assert!(p50 <= 0.9 && max <= 1.7 && heavy >= 24, "p50 {p50}, max {max}, heavy {heavy}");
}

/// F3: conversations of five turns, four at a time at random, on servers that keep few of them warm.
fn conversations(many: u64, servers: &[&str]) -> f64 {
    let server = Server { load_s: 0.0, prompt_s: 0.002, token_s: 0.01, warm: 2, ..Server::default() };
    let mut world = World::new(Config::default(), servers.iter().map(|&n| (n, server.clone(), view(1))).collect());
    let servers = on(servers);
    let turn = move |c: u64, n: u64| Job {
        client: usize::try_from(c * 5 + n).expect("small"),
        warm: Some(c),
        prompt: 1_000 + n * 250,
        tokens: 20,
        ..Job::new(&servers)
    };
    let first = turn.clone();
    let mut rest: Vec<u64> = (4..many).collect();
    world.again = Some(Box::new(move |record| {
        let (c, n) = (u64::try_from(record.job.client / 5).ok()?, u64::try_from(record.job.client % 5).ok()?);
        if n < 4 { Some((0.005, turn(c, n + 1))) } else { rest.pop().map(|c| (0.005, turn(c, 0))) }
    }));
    for c in 0..4 {
        world.come(s(0.001 * float(c)), first(c, 0));
    }
    world.run();
    assert_eq!(world.done().len() as u64, many * 5);
    let cold = 0.002 * 1_000.0 * float(many);
    // What the turns add to the first ones has to be computed in any case: a tenth of each prompt here.
    let added: f64 = (1..5).map(|n| 0.1 * 0.002 * (1_000.0 + 250.0 * float(n))).sum::<f64>() * float(many);
    world.servers.values().map(|server| server.prompt_spent_s).sum::<f64>() / (cold + added)
}

#[test]
fn f3_a_conversation_stays_where_it_is_warm() {
    for (many, servers) in [(12, vec!["x"]), (24, vec!["x"]), (24, vec!["x", "y"])] {
        let ratio = conversations(many, &servers);
        println!("F3 {many} conversations on {servers:?}: {ratio:.3} of what must be computed");
        assert!(ratio <= 1.05, "{many} on {servers:?}: {ratio}");
    }
}

/// F6 and R3: requests that come at a multiple of what can be served, and must be done in time.
fn overload(times: f64, slots: u32, within_s: f64, seed: u64) -> (f64, f64, usize) {
    let mut dice = Dice::new(seed);
    let server = Server { slots: slots as usize, load_s: 0.0, overhead_s: 0.02, prompt_s: 0.0, token_s: 0.017, ..Server::default() };
    let mut world = World::new(Config::default(), vec![("x", server, view(slots))]);
    world.strict = false;
    let (mut at, mut offered) = (0.0, 0);
    let capacity = f64::from(slots) / 0.36;
    while at < 60.0 {
        world.come(s(at), Job { deadline_s: Some(within_s), ..Job::new(&on(&["x"])) });
        offered += 1;
        at += dice.exponential(1.0 / (capacity * times));
    }
    world.run();
    let in_time = of(&world, |r| r.done() && r.ended.is_some_and(|end| end.saturating_sub(r.came) <= s(within_s))).len();
    let refused = world.refused_at_once.len();
    (float(in_time as u64) / (capacity * 60.0), float(refused as u64) / float(offered), in_time)
}

#[test]
fn f6_and_r3_overload_costs_no_goodput() {
    for (times, least) in [(2.0, 0.9), (3.0, 0.9), (4.0, 0.9), (10.0, 0.85)] {
        let (good, refused, _) = overload(times, 1, 4.0, 1);
        let (good4, _, _) = overload(times, 4, 1.4, 2);
        println!("F6/R3 {times}×: goodput {good:.3} of capacity on one slot, {good4:.3} on four; {refused:.2} refused at once");
        assert!(good >= least && good4 >= least, "{times}×: {good}, {good4}");
        assert!(refused >= (1.0 - 1.0 / times) * 0.8, "the rest is refused at once, not later: {refused}");
    }
}

#[test]
fn r4_backlogged_tenants_get_the_same_tokens() {
    let server = Server { slots: 2, load_s: 0.0, ..Server::default() };
    let mut world = World::new(Config::default(), vec![("x", server, view(2))]);
    world.strict = false;
    world.until = s(600.0);
    let mut dice = Dice::new(4);
    let mut lengths = dice.clone();
    world.again =
        Some(Box::new(move |record| Some((0.0, Job { tokens: 1 + lengths.below(2 * record.job.tokens.max(4)), ..record.job.clone() }))));
    for n in 0..5_u64 {
        // Very different lengths, and one with ten times as many clients.
        for _ in 0..if n == 0 { 40 } else { 4 } {
            world.come(
                s(0.001 * float(dice.below(100))),
                Job { tenant: format!("t{n}").into(), tokens: 10 << n, prompt: 10, ..Job::new(&on(&["x"])) },
            );
        }
    }
    world.run();
    let mut served: HashMap<Arc<str>, f64> = HashMap::new();
    for record in world.done() {
        *served.entry(record.job.tenant.clone()).or_default() += float(record.job.prompt + 2 * record.job.tokens);
    }
    let (sum, squares) = served.values().fold((0.0, 0.0), |(sum, squares), x| (sum + x, squares + x * x));
    let jain = sum * sum / (float(served.len() as u64) * squares);
    println!("R4 Jain {jain:.4}");
    assert!(served.len() == 5 && jain >= 0.99, "{jain}: {served:?}");
}

/// R6: short requests behind long ones.
fn mixed(learning: bool) -> (f64, f64) {
    let mut dice = Dice::new(6);
    let server = Server { slots: 2, load_s: 0.0, prompt_s: 0.0, ..Server::default() };
    let mut world = World::new(Config::default(), vec![("x", server, view(2))]);
    world.strict = false;
    if !learning {
        world.queue.config.patience = s(3_600.0);
    }
    let mut at = 0.0;
    for n in 0..600_u64 {
        let long = n % 5 == 0;
        let tokens = if long { 300 + dice.below(200) } else { 10 + dice.below(20) };
        // Without learning all look alike: nothing bounds them and their key changes.
        let tenant: Arc<str> = "t".into();
        let shape = if learning { (tokens, true) } else { (tokens, false) };
        world.come(s(at), Job { tokens: shape.0, bounded: shape.1, tenant, ..Job::new(&on(&["x"])) });
        at += dice.exponential(if n < 150 { 0.35 } else { 0.86 });
    }
    world.run();
    let waits = |long: bool| of(&world, |r| r.done() && (r.job.tokens >= 300) == long).iter().map(|r| r.wait_s()).collect::<Vec<_>>();
    (percentile(waits(false), 50), percentile(waits(true), 99))
}

#[test]
fn r6_short_requests_overtake_long_ones_that_do_not_starve() {
    let ((short, long), (short_fifo, long_fifo)) = (mixed(true), mixed(false));
    println!("R6 short p50 {short:.2} s (FIFO {short_fifo:.2}), long p99 {long:.2} s (FIFO {long_fifo:.2})");
    assert!(short <= 0.3 * short_fifo, "{short} against {short_fifo}");
    assert!(long <= 1.25 * long_fifo, "{long} against {long_fifo}");
}

#[test]
fn r7_the_expected_wait_comes_out() {
    let mut dice = Dice::new(7);
    let server = Server { slots: 2, load_s: 0.0, ..Server::default() };
    let mut world = World::new(Config::default(), vec![("x", server, view(2))]);
    world.strict = false;
    let mut at = 0.0;
    for n in 0..2_000_u64 {
        // Bursts: the queue grows and empties again. Lengths are not bounded and vary.
        let tokens = 20 + dice.below(80);
        let tenant = format!("t{}", dice.below(4)).into();
        world.come(s(at), Job { tokens, bounded: false, tenant, ..Job::new(&on(&["x"])) });
        at += dice.exponential(if n / 100 % 2 == 0 { 0.25 } else { 0.7 });
    }
    world.run();
    let judged = of(&world, |r| r.done() && r.wait_s() >= 0.5 && r.eta_s.is_some());
    let ratio: Vec<f64> = judged.iter().map(|r| r.eta_s.unwrap_or_default().max(0.01) / r.wait_s()).collect();
    let error = percentile(ratio.iter().map(|ratio| (ratio - 1.0).abs()).collect(), 50);
    let within = float(ratio.iter().filter(|&&r| (0.5..=2.0).contains(&r)).count() as u64) / float(ratio.len() as u64);
    println!("R7 {} waits: median error {error:.3}, within twofold {within:.3}", ratio.len());
    assert!(ratio.len() > 500 && error <= 0.25 && within >= 0.9, "{error}, {within} of {}", ratio.len());
}

/// Mixed models: how often the model is changed, against asking in the order in which the requests came.
#[test]
fn mixed_models_are_swapped_less_than_half_as_often_as_in_order() {
    for slots in [1, 2] {
        let mut dice = Dice::new(8);
        let server = Server { slots, load_s: 1.0, ..Server::default() };
        let mut world = World::new(Config::default(), vec![("x", server, view(u32::try_from(slots).expect("small")))]);
        let (mut at, mut in_order, mut last) = (0.0, 0, "");
        for _ in 0..200 {
            let model = *dice.pick(&["a", "b", "c"]);
            in_order += usize::from(model != last);
            last = model;
            world.come(s(at), Job { model: model.into(), ..Job::new(&on(&["x"])) });
            at += dice.exponential(0.5 / float(slots as u64));
        }
        world.run();
        let loads = world.servers["x"].loads;
        println!("mixed models on {slots} slots: {loads} loads, in order {in_order}");
        assert_eq!(world.done().len(), 200);
        assert!(2 * loads <= in_order, "{loads} against {in_order}");
    }
}

#[test]
fn slots_are_found_out() {
    for slots in [1, 2, 4] {
        let server = Server { slots, load_s: 0.5, ..Server::default() };
        let unknown = BackendView { available: true, ..BackendView::default() };
        let mut world = World::new(Config::default(), vec![("x", server, unknown)]);
        world.until = s(120.0);
        closed(&mut world);
        for n in 0..8 {
            world.come(s(0.01 * float(n)), Job { tokens: 60, ..Job::new(&on(&["x"])) });
        }
        world.run();
        let known = world.queue.backends["x"].runners.values().map(|state| state.slots.known()).max();
        assert_eq!(known, u32::try_from(slots).ok());
    }
}

#[test]
fn an_urgent_request_goes_next() {
    let mut world = World::new(Config::default(), vec![("x", Server { load_s: 0.0, ..Server::default() }, view(1))]);
    for n in 0..50 {
        world.come(s(0.001 * float(n)), Job { class: Priority::ALL[usize::try_from(n % 4).expect("small")], ..Job::new(&on(&["x"])) });
    }
    world.come(s(3.0), Job { class: Priority::Urgent, ..Job::new(&on(&["x"])) });
    world.run();
    let urgent = of(&world, |r| r.job.class == Priority::Urgent);
    assert!(urgent[0].wait_s() <= 0.36, "{}", urgent[0].wait_s());
}
