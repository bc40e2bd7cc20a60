//! Tenants beside one another: a light one beside a heavy one (F2), equal ones, and a noisy one (R4).

use super::{
    Plan, ask,
    ask::{Ask, Heard},
    at, count, largest, world,
    world::{Setup, World},
};
use crate::{
    fake::{Script, Text},
    measure::figures::{Bound, Report},
};
use anyhow::Result;
use serde_json::json;
use std::time::Duration;

const HEAVY_CLIENTS: usize = 8;
const HEAVY_TOKENS: usize = 100;

fn firsts(heard: &[Heard]) -> Vec<f64> {
    // Whoever never saw a token waited as long as they were there.
    heard.iter().filter(|heard| !heard.refused()).map(|heard| heard.first.unwrap_or(heard.total)).collect()
}

fn served(heard: &[Heard]) -> usize {
    heard.iter().filter(|heard| heard.served()).count()
}

pub(super) async fn light_tenant(plan: &Plan) -> Result<Report> {
    let script = world::measured(plan);
    let setup = Setup::of(&script).tenants(&["heavy", "light"]);
    let sides = world::compare(plan, &script, &setup, async |world| {
        let clients = |tenant: &'static str, clients: usize, tokens: usize, pause: u64| {
            let (model, key) = (plan.models[0].clone(), world.key(tenant));
            let make = move |client: usize, number: usize| {
                Ask::new(&model, format!("{tenant} {client} asks for the {number}th time why"), tokens).key(key.clone())
            };
            ask::closed(&world.target, clients, Duration::from_secs(30), Duration::from_secs(pause), make)
        };
        let late = async {
            tokio::time::sleep(Duration::from_millis(500)).await;
            clients("light", 1, 10, 1).await
        };
        Ok(tokio::join!(clients("heavy", HEAVY_CLIENTS, HEAVY_TOKENS, 0), late))
    })
    .await?;
    let mut report = sides.report("F2", |(heavy, light)| {
        let ttft = firsts(light);
        json!({
            "heavy": served(heavy), "light": served(light), "light_ttft_p50_s": at(&ttft, 0.5), "light_ttft_max_s": largest(ttft),
        })
    });
    report.errors(sides.behind.iter().flat_map(|(heavy, light)| ask::complaints(heavy.iter().chain(light), |_| false)));
    let light = |q| sides.of_behind(|(_, light)| at(&firsts(light), q));
    report.verdict("F2", "light tenant's TTFT, p50, in seconds", Bound::AtMost, 0.9, light(0.5));
    report.verdict("F2", "light tenant's TTFT, longest, in seconds", Bound::AtMost, 1.7, light(1.0));
    report.verdict("F2", "heavy tenant's answers", Bound::AtLeast, 25.0, sides.of_behind(|(heavy, _)| Some(count(served(heavy)))));
    Ok(report)
}

const TENANTS: [&str; 4] = ["north", "east", "south", "west"];
const LIGHT: f64 = 4.5;
/// As many prompts, and tokens to answer, whoever asks.
const TOKENS: usize = 15;

/// Four slots of 190 ms: 21 requests a second.
fn quick() -> Script {
    Script {
        models: vec![crate::fake::Model::new("quick")],
        text: Text::Words(1_000),
        prefill: Duration::from_millis(50),
        token_gap: Duration::from_millis(10),
        slots: 4,
        max_loaded: 1,
        ..Script::default()
    }
}

fn quick_ask(tenant: &str, number: usize, tokens: usize, key: Option<String>) -> Ask {
    Ask::new("quick", format!("{tenant} {number}"), tokens).key(key)
}

/// Tokens that equally busy tenants got; they ask for answers of different lengths.
async fn backlogged(world: &World) -> Vec<f64> {
    let one = |place: usize| {
        let (tenant, key) = (TENANTS[place], world.key(TENANTS[place]));
        let make = move |client: usize, number: usize| quick_ask(tenant, client * 1_000 + number, 12 * (place + 1), key.clone());
        ask::closed(&world.target, 8, Duration::from_secs(10), Duration::ZERO, make)
    };
    let (a, b, c, d) = tokio::join!(one(0), one(1), one(2), one(3));
    // Prompt and answer: what a tenant is charged.
    let tokens = |heard: &Heard| {
        let of = |name: &str| heard.done.as_ref().and_then(|done| done[name].as_f64()).unwrap_or(0.0);
        of("prompt_eval_count") + of("eval_count")
    };
    [a, b, c, d].iter().map(|heard| heard.iter().map(tokens).sum()).collect()
}

/// Jain's index: 1 when all are equal.
fn jain(shares: &[f64]) -> f64 {
    let (sum, squares) = (shares.iter().sum::<f64>(), shares.iter().map(|share| share * share).sum::<f64>());
    if squares > 0.0 { sum * sum / (count(shares.len()) * squares) } else { 0.0 }
}

/// The 99th percentile of three tenants' first tokens beside a fourth that asks `times` as often.
async fn beside(world: &World, times: f64, seed: u64) -> Result<(Option<f64>, Vec<Heard>)> {
    let span = Duration::from_secs(8);
    let quiet = |tenant: &'static str, seed: u64| {
        let key = world.key(tenant);
        async move { ask::open(&world.target, LIGHT, span, seed, |number| quick_ask(tenant, number, TOKENS, key.clone())).await }
    };
    let noisy = ask::open(&world.target, LIGHT * times, span, seed, |number| {
        quick_ask(TENANTS[3], number, TOKENS, world.key(TENANTS[3])).patience(Duration::from_secs(2))
    });
    let (a, b, c, _) = tokio::join!(quiet(TENANTS[0], seed + 1), quiet(TENANTS[1], seed + 2), quiet(TENANTS[2], seed + 3), noisy);
    let quiet: Vec<Heard> = [a?, b?, c?].concat();
    Ok((at(&firsts(&quiet), 0.99), quiet))
}

pub(super) async fn noisy(plan: &Plan) -> Result<Report> {
    let mut report = Report::new("R4", "loopback", 1);
    let (script, plan) = (quick(), Plan { upstream: None, ..plan.clone() });
    let setup = Setup::of(&script).tenants(&TENANTS);
    let Some(world) = world::gateway_only(&plan, &script, &setup, 1, &mut report).await else { return Ok(report) };
    let shares = backlogged(&world).await;
    let (calm, before) = beside(&world, 1.0, plan.seed).await?;
    let (loud, during) = beside(&world, 100.0, plan.seed).await?;
    report.figure("tokens_of_equal_tenants", json!(shares));
    report.figure("others_ttft_p99_s", json!({"beside_an_equal": calm, "beside_100_times": loud}));
    report.figure(
        "others_served",
        json!({"beside_an_equal": [served(&before), before.len()], "beside_100_times": [served(&during), during.len()]}),
    );
    report.errors(ask::complaints(&during, |_| false));
    report.verdict("R4", "Jain index of tokens", Bound::AtLeast, 0.99, Some(jain(&shares)));
    let ratio = loud.zip(calm).map(|(loud, calm)| loud / calm);
    report.goal("R4", "p99 TTFT of the others beside 100 times the load, over an equal load", Bound::AtMost, 1.3, ratio);
    Ok(report)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn jain_is_one_for_equals_and_one_of_n_for_a_single_winner() {
        assert!((jain(&[3.0, 3.0, 3.0]) - 1.0).abs() < 1e-12);
        assert!((jain(&[9.0, 0.0, 0.0]) - 1.0 / 3.0).abs() < 1e-12);
    }
}
