//! The gateway itself: killed in the middle (its keys and budgets must be as before), and told to read a configuration
//! that is invalid (it must refuse it whole and drop nothing).

use super::{
    Plan, ask,
    ask::{Ask, Heard},
    count, largest, world,
    world::{Gateway, Setup, World},
};
use crate::{
    fake::{Model, Script, Text},
    measure::figures::{Bound, Report},
};
use anyhow::{Context, Result};
use serde_json::{Value, json};
use std::time::Duration;

/// What settled budgets may lag behind.
const SETTLED: Duration = Duration::from_millis(1_300);

fn script() -> Script {
    Script {
        models: vec![Model::new("kept")],
        text: Text::Words(1_000),
        prefill: Duration::from_millis(20),
        token_gap: Duration::from_millis(3),
        slots: 4,
        ..Script::default()
    }
}

fn question(number: usize, key: Option<String>) -> Ask {
    Ask::new("kept", format!("Question {number}"), 20).key(key).patience(Duration::from_secs(10))
}

/// What `/admin/limits` says was used: every number named `tokens_today`, or under a name that begins with `used`.
fn used(view: &Value) -> f64 {
    match view {
        Value::Object(map) => {
            let own = |key: &str, value: &Value| if key == "tokens_today" || key.starts_with("used") { all(value) } else { used(value) };
            map.iter().map(|(key, value)| own(key, value)).sum()
        }
        Value::Array(list) => list.iter().map(used).sum(),
        _ => 0.0,
    }
}

fn all(value: &Value) -> f64 {
    match value {
        Value::Object(map) => map.values().map(all).sum(),
        Value::Array(list) => list.iter().map(all).sum(),
        other => other.as_f64().unwrap_or(0.0),
    }
}

#[derive(Default)]
struct Rounds {
    ready_ms: Vec<f64>,
    keys_lost: usize,
    budgets: Vec<[f64; 2]>,
    /// Rounds after which less was used than before.
    forgotten: usize,
    unanswered: usize,
}

async fn round(world: &mut World, number: usize, rounds: &mut Rounds) -> Result<()> {
    let target = world.target.clone();
    let key = world.key("clients");
    let served = ask::burst(&target, (0..8).map(|question_number| question(question_number, key.clone())).collect()).await;
    rounds.unanswered += served.iter().filter(|heard| !heard.served()).count();
    tokio::time::sleep(SETTLED).await;
    let Some(gateway) = &mut world.gateway else { return Ok(()) };
    let before = gateway.admin("/admin/limits").await.map(|view| used(&view));
    // Under load, and right behind an acknowledged key.
    let loaded = {
        let (target, key) = (target.clone(), key.clone());
        crate::task::spawn(async move { ask::burst(&target, (0..16).map(|number| question(number, key.clone())).collect()).await })
    };
    tokio::time::sleep(Duration::from_millis(40)).await;
    let fresh = gateway.make_key_by_api(&format!("fresh-{number}"), "clients").await.context("making a key")?;
    gateway.kill();
    drop(loaded.await);
    rounds.ready_ms.push(gateway.restart().await?.as_secs_f64() * 1e3);
    let heard = ask::once(&target, &question(0, Some(fresh))).await;
    let old = ask::once(&target, &question(1, key)).await;
    rounds.keys_lost += [&heard, &old].iter().filter(|heard| matches!(heard.status, 401 | 403)).count();
    rounds.unanswered += [heard, old].iter().filter(|heard| !heard.served()).count();
    let after = gateway.admin("/admin/limits").await.map(|view| used(&view));
    if let (Some(before), Some(after)) = (before, after) {
        rounds.forgotten += usize::from(after < before);
        rounds.budgets.push([before, after]);
    }
    Ok(())
}

pub(super) async fn killed(plan: &Plan) -> Result<Report> {
    let mut report = Report::new("kill", "loopback", plan.kills);
    let (script, plan) = (script(), Plan { upstream: None, ..plan.clone() });
    let budget = "[limits.tenants.clients]\ntokens_per_day = 1000000000";
    let setup = Setup::of(&script).tenants(&["clients"]).section(budget);
    let Some(mut world) = world::gateway_only(&plan, &script, &setup, 1, &mut report).await else { return Ok(report) };
    if world.gateway.as_ref().is_some_and(|gateway| !gateway.has_keys()) {
        report.errors(["without keys there is nothing to keep".to_owned()]);
        return Ok(report);
    }
    let mut rounds = Rounds::default();
    for number in 0..plan.kills {
        round(&mut world, number, &mut rounds).await?;
    }
    report.figure("ready_ms", json!(rounds.ready_ms));
    report.figure("used_before_and_after", json!(rounds.budgets));
    report.figure("unanswered", json!(rounds.unanswered));
    report.goal("R11", "ready again within, in milliseconds", Bound::AtMost, 500.0, largest(rounds.ready_ms.iter().copied()));
    report.verdict("R11", "acknowledged keys lost", Bound::AtMost, 0.0, Some(count(rounds.keys_lost)));
    let forgotten = (!rounds.budgets.is_empty()).then(|| count(rounds.forgotten));
    report.verdict("R11", "rounds after which less was used than before", Bound::AtMost, 0.0, forgotten);
    report.verdict("R11", "requests not answered although nobody was killed", Bound::AtMost, 0.0, Some(count(rounds.unanswered)));
    Ok(report)
}

const INVALID: [&str; 3] = ["\n[queue]\nno_such_key = 1\n", "\n[server]\nheader_timeout = \"soon\"\n", "\nthis is not = = TOML\n"];

/// Writes configurations one after the other, the valid one last, and asks for each to be read. Whether the gateway takes
/// the signal for that; one that watches its file needs none.
async fn tell(gateway: &Gateway) -> Result<bool> {
    let valid = std::fs::read_to_string(gateway.config_file())?;
    let mut asked = true;
    for text in INVALID.into_iter().chain([""]) {
        tokio::time::sleep(Duration::from_millis(1_500)).await;
        std::fs::write(gateway.config_file(), format!("{valid}{text}"))?;
        asked &= gateway.hang_up();
    }
    Ok(asked)
}

pub(super) async fn invalid(plan: &Plan) -> Result<Report> {
    let mut report = Report::new("reload", "loopback", 1);
    let (script, plan) = (script(), Plan { upstream: None, ..plan.clone() });
    let setup = Setup::of(&script).tenants(&["clients"]);
    let Some(mut world) = world::gateway_only(&plan, &script, &setup, 1, &mut report).await else { return Ok(report) };
    let (target, key) = (world.target.clone(), world.key("clients"));
    let asked = ask::open(&target, 20.0, Duration::from_secs(8), plan.seed, |number| question(number, key.clone()));
    let Some(gateway) = &mut world.gateway else { return Ok(report) };
    let (heard, asked): (Result<Vec<Heard>>, Result<bool>) = tokio::join!(asked, tell(gateway));
    let (heard, asked, alive) = (heard?, asked?, gateway.lives());
    let complaints = ask::complaints(&heard, |_| false);
    let said: Vec<String> = gateway.log().lines().rev().take(6).map(str::to_owned).collect();
    report.figure("requests", json!(heard.len()));
    report.figure("last_lines_of_the_log", json!(said));
    report.figure("complaints", json!(complaints));
    let lost = heard.iter().filter(|heard| !heard.served()).count();
    // Whoever is never told refuses nothing: that decides nothing.
    report.verdict("reload", "takes SIGHUP as the wish to read its configuration", Bound::AtLeast, 1.0, asked.then_some(1.0));
    report.verdict("reload", "outlives invalid configurations", Bound::AtLeast, 1.0, Some(f64::from(u8::from(alive))));
    report.verdict("reload", "requests lost meanwhile", Bound::AtMost, 0.0, Some(count(lost)));
    Ok(report)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_used_is_added_up_wherever_it_stands() {
        let view = json!({"tenants": [{"name": "a", "day": {"used": 5, "limit": 9}}, {"used": {"prompt": 1, "generated": 2}}], "n": 7});
        assert!((used(&view) - 8.0).abs() < 1e-9);
    }
}
