//! More than can be served: impatient clients (F6), and the goodput from once to ten times the capacity (R3).

use super::{
    Plan, ask,
    ask::{Ask, Heard},
    at, count, largest, world,
    world::{Setup, World},
};
use crate::{
    fake::{Model, Script, Text},
    measure::figures::{Bound, Report},
};
use anyhow::Result;
use serde_json::json;
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(4);
const OFFERED_PER_SECOND: f64 = 8.9;
/// Refused this late is as good as at once, in seconds.
const AT_ONCE: f64 = 0.1;

struct Crowd {
    offered: usize,
    served: usize,
    refused: usize,
    /// Those who were left waiting until they gave up.
    hanging: usize,
    slowest_refusal: Option<f64>,
    without_retry_after: usize,
}

impl Crowd {
    fn of(heard: &[Heard]) -> Self {
        let refusals = || heard.iter().filter(|heard| heard.refused());
        let served = heard.iter().filter(|heard| heard.served()).count();
        let refused = refusals().count();
        Self {
            offered: heard.len(),
            served,
            refused,
            hanging: heard.len() - served - refused,
            slowest_refusal: at(&refusals().map(|heard| heard.total).collect::<Vec<_>>(), 0.99),
            without_retry_after: refusals().filter(|heard| heard.retry_after.is_none()).count(),
        }
    }
}

pub(super) async fn impatient(plan: &Plan) -> Result<Report> {
    let script = world::measured(plan);
    let setup = Setup::of(&script).tenants(&["clients"]);
    let sides = world::compare(plan, &script, &setup, async |world| {
        let key = world.key("clients");
        let ask = |text: String| Ask::new(&plan.models[0], text, 20).key(key.clone());
        ask::once(&world.target, &ask("Good morning".to_owned())).await;
        let heard = ask::open(&world.target, OFFERED_PER_SECOND, Duration::from_secs(30), plan.seed, |number| {
            ask(format!("Impatient question {number}")).patience(PATIENCE).wish("deadline_ms", 4_000)
        })
        .await?;
        Ok(Crowd::of(&heard))
    })
    .await?;
    let mut report = sides.report("F6", |crowd| {
        json!({
            "offered": crowd.offered, "in_time": crowd.served, "refused": crowd.refused, "hanging": crowd.hanging,
            "refusal_p99_s": crowd.slowest_refusal, "refused_without_retry_after": crowd.without_retry_after,
        })
    });
    report.verdict("F6", "served in time", Bound::AtLeast, 75.0, sides.of_behind(|crowd| Some(count(crowd.served))));
    // One in a hundred may be caught by a deadline it could have met.
    let hanging = sides.of_behind(|crowd| Some(count(crowd.hanging) / count(crowd.offered.max(1))));
    report.verdict("F6", "share that waited in vain", Bound::AtMost, 0.01, hanging);
    report.verdict("F6", "refused within, in seconds, p99", Bound::AtMost, AT_ONCE, sides.of_behind(|crowd| crowd.slowest_refusal));
    let untold = sides.of_behind(|crowd| Some(count(crowd.without_retry_after)));
    report.verdict("F6", "refusals without Retry-After", Bound::AtMost, 0.0, untold);
    Ok(report)
}

/// Four slots, each busy for 190 ms with a request.
const CAPACITY: f64 = 4.0 / 0.19;
const TIMES: [f64; 4] = [1.0, 2.0, 4.0, 10.0];
/// What a first token may take, in seconds.
const OBJECTIVE: f64 = 1.0;

struct Step {
    goodput: f64,
    refusal_p99: Option<f64>,
    untold: usize,
    crowd: Crowd,
}

async fn step(world: &World, times: f64, span: Duration, seed: u64) -> Result<Step> {
    let key = world.key("clients");
    let ask = |number| {
        let ask = Ask::new("quick", format!("{times} {number}"), 15).key(key.clone());
        ask.patience(Duration::from_secs(3)).wish("deadline_ms", 1_150)
    };
    let heard = ask::open(&world.target, CAPACITY * times, span, seed, ask).await?;
    let good = heard.iter().filter(|heard| heard.served() && heard.first.is_some_and(|first| first <= OBJECTIVE)).count();
    let crowd = Crowd::of(&heard);
    Ok(Step { goodput: count(good) / span.as_secs_f64(), refusal_p99: crowd.slowest_refusal, untold: crowd.without_retry_after, crowd })
}

/// All steps against one side, the system empty before each.
async fn climb(world: &World, span: Duration, seed: u64) -> Result<Vec<Step>> {
    ask::once(&world.target, &Ask::new("quick", "Good morning", 1).key(world.key("clients"))).await;
    let mut steps = Vec::new();
    for times in TIMES {
        steps.push(step(world, times, span, seed).await?);
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
    Ok(steps)
}

pub(super) async fn steps(plan: &Plan) -> Result<Report> {
    let script = Script {
        models: vec![Model::new("quick")],
        text: Text::Words(1_000),
        prefill: Duration::from_millis(50),
        token_gap: Duration::from_millis(10),
        slots: 4,
        max_loaded: 1,
        ..Script::default()
    };
    let plan = Plan { upstream: None, ..plan.clone() };
    let mut report = Report::new("R3", "loopback", 1);
    let told = |steps: &[Step]| -> Vec<serde_json::Value> {
        let each = TIMES.iter().zip(steps);
        each.map(|(times, step)| {
            json!({
                "times": times, "offered": step.crowd.offered, "goodput_per_s": step.goodput, "refused": step.crowd.refused,
                "hanging": step.crowd.hanging, "refusal_p99_s": step.refusal_p99,
            })
        })
        .collect()
    };
    let alone = climb(&World::alone(&plan, &script)?, Duration::from_millis(2_500), plan.seed).await?;
    report.figure("alone", json!(told(&alone)));
    let setup = Setup::of(&script).tenants(&["clients"]);
    let Some(world) = world::gateway_only(&plan, &script, &setup, 1, &mut report).await else { return Ok(report) };
    let behind = climb(&world, Duration::from_secs(5), plan.seed).await?;
    report.figure("behind", json!(told(&behind)));
    let peak = largest(behind.iter().map(|step| step.goodput)).filter(|peak| *peak > 0.0);
    for (times, step) in TIMES.iter().zip(&behind).skip(1) {
        let least = if *times < 10.0 { 0.9 } else { 0.85 };
        let share = peak.map(|peak| step.goodput / peak);
        report.verdict("R3", &format!("goodput at {times} times the capacity over the peak"), Bound::AtLeast, least, share);
    }
    let refusal = largest(behind.iter().filter_map(|step| step.refusal_p99));
    report.goal("R3", "refused within, in milliseconds, p99", Bound::AtMost, 5.0, refusal.map(|seconds| seconds * 1e3));
    let untold = behind.iter().map(|step| step.untold).sum();
    report.verdict("R3", "refusals without Retry-After", Bound::AtMost, 0.0, Some(count(untold)));
    Ok(report)
}
