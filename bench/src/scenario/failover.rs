//! Backends that die, that fail, and that fail fast (R8).

use super::{
    Plan, ask,
    ask::{Ask, Heard},
    count, world,
    world::{Setup, World},
};
use crate::{
    fake::{Fault, Model, Plan as Faults, Script, Text},
    measure::{
        figures::{Bound, Report},
        sides::Upstream,
    },
};
use anyhow::Result;
use serde_json::json;
use std::time::Duration;

const SERVERS: usize = 3;
const PER_SECOND: f64 = 30.0;
/// A killed server comes back after this long.
const AWAY: Duration = Duration::from_secs(2);
/// It is there for this long before the next one is killed.
const THERE: Duration = Duration::from_secs(3);
const KILLS: usize = 4;

fn script() -> Script {
    Script {
        models: vec![Model::new("served")],
        text: Text::Words(1_000),
        prefill: Duration::from_millis(20),
        token_gap: Duration::from_millis(2),
        slots: 4,
        ..Script::default()
    }
}

/// Not streamed: an answer that has begun is not begun again.
fn question(number: usize, key: Option<String>) -> Ask {
    Ask::new("served", format!("Question {number}"), 20).whole().key(key).patience(Duration::from_secs(10))
}

/// Kills one server after the other, each for a while.
async fn reap(world: &mut World, script: &Script) -> Result<()> {
    for kill in 0..KILLS {
        tokio::time::sleep(THERE).await;
        let place = kill % SERVERS;
        let address = world.fakes[place].address;
        // Dropping it ends its thread with every connection.
        drop(world.fakes.remove(place));
        tokio::time::sleep(AWAY).await;
        world.fakes.insert(place, Upstream::start_at(address, script.clone())?);
    }
    Ok(())
}

fn inference(seen: &crate::fake::Seen) -> u64 {
    seen.on("/api/generate")
        .filter(|request| request.json()["prompt"].as_str().is_some_and(|prompt| prompt.starts_with("Question")))
        .count() as u64
}

fn attempts(world: &World) -> Vec<u64> {
    world.fakes.iter().map(|fake| fake.seen(inference)).collect()
}

async fn load(world: &World, seconds: u64, seed: u64) -> Result<Vec<Heard>> {
    let key = world.key("clients");
    ask::open(&world.target, PER_SECOND, Duration::from_secs(seconds), seed, |number| question(number, key.clone())).await
}

fn since(before: &[u64], after: &[u64]) -> Vec<u64> {
    after.iter().zip(before).map(|(after, before)| after - before).collect()
}

pub(super) async fn run(plan: &Plan) -> Result<Report> {
    let mut report = Report::new("R8", "loopback", 1);
    let (script, plan) = (script(), Plan { upstream: None, ..plan.clone() });
    let setup = Setup { server: "probe_interval = \"1s\"\n".to_owned(), ..Setup::of(&script) }.tenants(&["clients"]);
    let Some(mut world) = world::gateway_only(&plan, &script, &setup, SERVERS, &mut report).await else { return Ok(report) };

    // One fails fast: it must not attract what it gets rid of so quickly. Before the kills, while all are equal.
    world.fakes[0].adjust(|script| script.faults = Faults::always(Fault::status(500)));
    let early = load(&world, 2, plan.seed).await?;
    let before = attempts(&world);
    let later = load(&world, 5, plan.seed + 1).await?;
    let shares = since(&before, &attempts(&world));
    let share = count(usize::try_from(shares[0]).unwrap_or(0)) / count(later.len().max(1));
    report.figure("failing_fast", json!({"attempts_by_server": shares, "failed": ask::complaints(early.iter().chain(&later), |_| false)}));
    report.verdict("R8", "traffic share of a server that fails fast, after two seconds", Bound::AtMost, 0.01, Some(share));
    world.fakes[0].adjust(|script| script.faults = Faults::none());

    // All fail: retries must not make it worse.
    for fake in &world.fakes {
        fake.adjust(|script| script.faults = Faults::always(Fault::status(500)));
    }
    let before: u64 = attempts(&world).iter().sum();
    let heard = load(&world, 5, plan.seed + 2).await?;
    let tried: u64 = attempts(&world).iter().sum::<u64>() - before;
    let ratio = count(usize::try_from(tried).unwrap_or(0)) / count(heard.len().max(1));
    report.figure("all_fail", json!({"offered": heard.len(), "attempts": tried}));
    report.verdict("R8", "attempts over requests while all fail", Bound::AtMost, 1.1, Some(ratio));
    for fake in &world.fakes {
        fake.adjust(|script| script.faults = Faults::none());
    }
    // Time to be trusted again.
    tokio::time::sleep(Duration::from_secs(4)).await;

    // One killed every five seconds.
    let (target, key) = (world.target.clone(), world.key("clients"));
    let span = (THERE + AWAY) * u32::try_from(KILLS).unwrap_or(1);
    let asked = ask::open(&target, PER_SECOND, span, plan.seed + 3, |number| question(number, key.clone()));
    let (heard, reaped) = tokio::join!(asked, reap(&mut world, &script));
    reaped?;
    let heard = heard?;
    let served = heard.iter().filter(|heard| heard.served()).count();
    let wrong = ask::complaints(&heard, |_| false);
    report.figure("killed", json!({"kills": KILLS, "requests": heard.len(), "served": served, "complaints": wrong}));
    report.verdict("R8", "share served while servers are killed", Bound::AtLeast, 0.9999, Some(count(served) / count(heard.len().max(1))));
    Ok(report)
}
