//! What makes an Ollama stand still (R10): changing runner options, a leaked slot, a hung runner, the eviction deadlock.
//! Each wedge has to be told by `/admin/backends` within ten seconds, and nobody may wait for ever.

use super::{
    Plan, ask,
    ask::{Ask, Heard},
    count, largest, world,
    world::{Setup, World},
};
use crate::{
    fake::{FakeOllama, Script, Text},
    measure::figures::{Bound, Report},
};
use anyhow::Result;
use serde_json::{Value, json};
use std::time::{Duration, Instant};

const FIRST: &str = "first";
const SECOND: &str = "second";
/// How long a wedge is watched.
const WATCHED: Duration = Duration::from_secs(20);
/// What the table of goals allows for detection, in seconds.
const DETECTED: f64 = 10.0;

fn script() -> Script {
    Script {
        models: [FIRST, SECOND].iter().map(|name| crate::fake::Model::new(name)).collect(),
        text: Text::Words(1_000),
        prefill: Duration::from_millis(20),
        token_gap: Duration::from_millis(5),
        load_time: Duration::from_millis(300),
        slots: 2,
        max_loaded: 1,
        ..Script::default()
    }
}

/// Clients of one model that each wish for other runner options.
async fn alternating(world: &World) -> (Vec<Heard>, Option<f64>) {
    let key = world.key("clients");
    ask::once(&world.target, &Ask::new(FIRST, "Good morning", 1).option("num_ctx", 4_096).key(key.clone())).await;
    let make = move |client: usize, number: usize| {
        let ask = Ask::new(FIRST, format!("Number {number} of {client}"), 8).key(key.clone());
        match (client + number) % 4 {
            0 => ask.option("num_ctx", 2_048),
            1 => ask.option("num_batch", 128),
            2 => ask.option("num_thread", 1),
            _ => ask.field("shift", false),
        }
    };
    let heard = ask::closed(&world.target, 4, Duration::from_secs(6), Duration::ZERO, make).await;
    (heard, world.seen(|seen| seen.reloads))
}

/// How one wedge went.
struct Wedge {
    detected: Option<f64>,
    told: Option<Value>,
    /// The longest anyone waited for any answer, a refusal included.
    longest: Option<f64>,
    /// When the first one after the wedge was served.
    served_again: Option<f64>,
    heard: usize,
}

impl Wedge {
    fn json(&self) -> Value {
        json!({
            "detected_s": self.detected, "told": self.told, "longest_wait_s": self.longest,
            "served_again_s": self.served_again, "requests": self.heard,
        })
    }
}

/// A non-empty list named `troubles`, anywhere.
fn troubles(view: &Value) -> Option<Value> {
    match view {
        Value::Object(map) => {
            // One that was cured between two looks is told of all the same.
            let listed = |name| map.get(name).filter(|it| it.as_array().is_some_and(|list| !list.is_empty()));
            listed("troubles").or_else(|| listed("past_troubles")).cloned().or_else(|| map.values().find_map(troubles))
        }
        Value::Array(list) => list.iter().find_map(troubles),
        _ => None,
    }
}

async fn detected(world: &World, since: Instant) -> (Option<f64>, Option<Value>) {
    while since.elapsed() < WATCHED {
        let view = match &world.gateway {
            Some(gateway) => gateway.admin("/admin/backends").await,
            None => return (None, None),
        };
        if let Some(told) = view.as_ref().and_then(troubles) {
            return (Some(since.elapsed().as_secs_f64()), Some(told));
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    (None, None)
}

/// Warms a server, wedges it, and asks on for `wanted`.
async fn wedge(plan: &Plan, script: &Script, wanted: &'static str, how: impl Fn(&FakeOllama)) -> Result<Option<Wedge>> {
    let setup = Setup::of(script).tenants(&["clients"]);
    let Some(world) = World::behind(plan, script, &setup, 1).await? else { return Ok(None) };
    let key = world.key("clients");
    for number in 0..4 {
        ask::once(&world.target, &Ask::new(FIRST, format!("Warm {number}"), 8).key(key.clone())).await;
    }
    how(world.fakes[0].fake());
    let since = Instant::now();
    let make =
        move |client: usize, number: usize| Ask::new(wanted, format!("Number {number} of {client}"), 8).key(key.clone()).patience(WATCHED);
    // As many clients as there are slots, and one that waits.
    let clients = async {
        let target = world.target.clone();
        let served = std::sync::Arc::new(std::sync::Mutex::new(None));
        let mut set = tokio::task::JoinSet::new();
        for client in 0..=script.slots {
            let (mut caller, make, served) = (ask::Caller::new(&target), make.clone(), std::sync::Arc::clone(&served));
            set.spawn(async move {
                let mut heard = Vec::new();
                while since.elapsed() < WATCHED {
                    let answer = caller.ask(&make(client, heard.len()), Instant::now()).await;
                    if answer.served() {
                        served.lock().unwrap_or_else(std::sync::PoisonError::into_inner).get_or_insert(since.elapsed().as_secs_f64());
                    }
                    heard.push(answer);
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
                heard
            });
        }
        let heard: Vec<Heard> = ask::gather(set).await.into_iter().flatten().collect();
        let first = *served.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        (heard, first)
    };
    let ((heard, served_again), (detected, told)) = tokio::join!(clients, detected(&world, since));
    Ok(Some(Wedge { detected, told, longest: largest(heard.iter().map(|heard| heard.total)), served_again, heard: heard.len() }))
}

pub(super) async fn run(plan: &Plan) -> Result<Report> {
    let mut report = Report::new("R10", "loopback", 1);
    let plan = Plan { upstream: None, ..plan.clone() };
    let (script, one) = (script(), Script { slots: 1, ..script() });
    if let Some(world) = world::gateway_only(&plan, &script, &Setup::of(&script).tenants(&["clients"]), 1, &mut report).await {
        let (heard, reloads) = alternating(&world).await;
        let served = count(heard.iter().filter(|heard| heard.served()).count());
        report.figure("alternating", json!({"requests": heard.len(), "served": served, "reloads": reloads}));
        report.errors(ask::complaints(&heard, |_| false));
        report.verdict("R10", "reloads by clients that change runner options", Bound::AtMost, 0.0, reloads);
    }
    if plan.arriero.is_none() {
        return Ok(report);
    }
    let (leak, hang, deadlock) = tokio::join!(
        wedge(&plan, &one, FIRST, |fake| fake.leak_slot(None)),
        wedge(&plan, &script, FIRST, |fake| fake.hang_runner(None)),
        wedge(&plan, &script, SECOND, FakeOllama::deadlock),
    );
    for (name, wedge) in [("leaked slot", leak), ("hung runner", hang), ("eviction deadlock", deadlock)] {
        match wedge {
            Err(error) => report.errors([format!("{name}: {error:#}")]),
            Ok(None) => {}
            Ok(Some(wedge)) => {
                report.figure(name, wedge.json());
                // A wedge that is never told counts as told when watching ended.
                let detected = wedge.detected.unwrap_or(WATCHED.as_secs_f64());
                report.verdict("R10", &format!("{name}: told within, in seconds"), Bound::AtMost, DETECTED, Some(detected));
                report.verdict("R10", &format!("{name}: longest wait for any answer, in seconds"), Bound::AtMost, 15.0, wedge.longest);
                let again = wedge.served_again.unwrap_or(f64::from(u16::MAX));
                report.verdict("R10", &format!("{name}: served again after, in seconds"), Bound::AtMost, 18.0, Some(again));
            }
        }
    }
    Ok(report)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn troubles_are_found_wherever_they_stand() {
        let view = json!({"backends": [{"name": "a", "troubles": []}, {"guard": {"troubles": [{"kind": "leaked_slot"}]}}]});
        assert_eq!(troubles(&view), Some(json!([{"kind": "leaked_slot"}])));
        assert_eq!(troubles(&json!({"backends": [{"troubles": []}]})), None);
    }
}
