//! Clients that leave in every phase (R9): how soon the server hears of it, and what is left behind.

use super::{
    Plan, ask,
    ask::{Ask, Caller},
    at, count, largest, world,
    world::{Setup, World},
};
use crate::{
    fake::{Model, Outcome, Phase, Script, Text, mix},
    measure::figures::{Bound, Report},
};
use anyhow::Result;
use serde_json::{Value, json};
use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};
use tokio::task::JoinSet;

const SLOTS: usize = 4;
const LEAVERS: usize = 600;
/// As many are there at a time: three times the slots, so that most wait.
const AT_A_TIME: usize = 12;

fn script() -> Script {
    Script {
        models: vec![Model::new("left")],
        text: Text::Words(100_000),
        prefill: Duration::from_millis(150),
        token_gap: Duration::from_millis(10),
        slots: SLOTS,
        max_loaded: 1,
        ..Script::default()
    }
}

/// Some ask, each leaves after up to 600 ms; gives when each left, by the prompt.
async fn leave(world: &World, seed: u64) -> BTreeMap<String, Instant> {
    let mut set = JoinSet::new();
    let mut left = BTreeMap::new();
    for number in 0..LEAVERS {
        while set.len() >= AT_A_TIME {
            left.extend(set.join_next().await.and_then(Result::ok));
        }
        let (mut caller, key) = (Caller::new(&world.target), world.key("clients"));
        let patience = Duration::from_millis(mix(seed ^ mix(number as u64)) % 600);
        set.spawn(async move {
            let prompt = format!("Leaver {number}");
            let ask = Ask::new("left", prompt.clone(), 10_000).key(key).patience(patience);
            caller.ask(&ask, Instant::now()).await;
            (prompt, Instant::now())
        });
    }
    left.extend(ask::gather(set).await);
    left
}

/// By phase, how long after its client left each request was stopped, in milliseconds. Requests that never reached the
/// server left nothing to be stopped.
fn stopped(world: &World, left: &BTreeMap<String, Instant>) -> BTreeMap<&'static str, Vec<f64>> {
    let mut all: BTreeMap<&'static str, Vec<f64>> = BTreeMap::new();
    for fake in &world.fakes {
        fake.seen(|seen| {
            for request in seen.on("/api/generate") {
                let prompt = request.json();
                let (Some(left), Some(ended)) = (prompt["prompt"].as_str().and_then(|prompt| left.get(prompt)), request.ended) else {
                    continue;
                };
                let phase = match request.outcome {
                    Outcome::Aborted(Phase::Received | Phase::Queued) => "queued",
                    Outcome::Aborted(Phase::Prefill) => "prefill",
                    Outcome::Aborted(Phase::Streaming) => "streaming",
                    _ => continue,
                };
                all.entry(phase).or_default().push(ended.saturating_duration_since(*left).as_secs_f64() * 1e3);
            }
        });
    }
    all
}

/// Slots that still serve: as many as work at once when all are asked for.
async fn usable(world: &World) -> usize {
    let Some(fake) = world.fakes.first() else { return 0 };
    let asks = (0..SLOTS).map(|number| Ask::new("left", format!("Stayer {number}"), 30).key(world.key("clients"))).collect();
    let (_, most) = tokio::join!(ask::burst(&world.target, asks), async {
        let mut most = 0;
        for _ in 0..60 {
            most = most.max(fake.seen(|seen| seen.generating));
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        most
    });
    most
}

pub(super) async fn run(plan: &Plan) -> Result<Report> {
    let mut report = Report::new("R9", "loopback", 1);
    let (script, plan) = (script(), Plan { upstream: None, ..plan.clone() });
    let setup = Setup::of(&script).tenants(&["clients"]);
    let Some(world) = world::gateway_only(&plan, &script, &setup, 1, &mut report).await else { return Ok(report) };
    ask::once(&world.target, &Ask::new("left", "Good morning", 1).key(world.key("clients"))).await;
    let left = leave(&world, plan.seed).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    let running = world.seen(|seen| seen.in_flight as u64);
    let times = stopped(&world, &left);
    let all: Vec<f64> = times.values().flatten().copied().collect();
    let told: BTreeMap<&str, Value> =
        times.iter().map(|(phase, times)| (*phase, json!({"count": times.len(), "p50": at(times, 0.5), "p99": at(times, 0.99)}))).collect();
    report.figure("left", json!(left.len()));
    report.figure("stopped_after_ms", json!(told));
    report.figure("most_in_flight", json!(world.seen(|seen| seen.max_in_flight as u64)));
    let usable = usable(&world).await;
    let waiting = match &world.gateway {
        Some(gateway) => gateway.admin("/admin/queue").await.map(|view| waiting(&view)),
        None => None,
    };
    report.figure("waiting_afterwards", json!(waiting));
    report.goal("R9", "upstream stopped within, in milliseconds, p99", Bound::AtMost, 50.0, at(&all, 0.99));
    report.verdict("R9", "upstream stopped within, in milliseconds, longest", Bound::AtMost, 1_000.0, largest(all));
    report.verdict("R9", "requests still running afterwards", Bound::AtMost, 0.0, running);
    report.verdict("R9", "slots that still serve", Bound::AtLeast, count(SLOTS), Some(count(usable)));
    report.verdict(
        "R9",
        "requests in flight beyond the slots",
        Bound::AtMost,
        0.0,
        world.seen(|seen| seen.max_in_flight.saturating_sub(SLOTS + 1) as u64),
    );
    Ok(report)
}

/// The requests a view of the queue shows: the longest array named `waiting` or `requests` anywhere in it.
fn waiting(view: &Value) -> usize {
    match view {
        Value::Object(map) => {
            let own = |key: &str, value: &Value| match value {
                Value::Array(list) if key == "waiting" || key == "requests" => list.len(),
                other => waiting(other),
            };
            map.iter().map(|(key, value)| own(key, value)).max().unwrap_or(0)
        }
        Value::Array(list) => list.iter().map(waiting).max().unwrap_or(0),
        _ => 0,
    }
}
