//! A full queue: short requests behind long ones (R6), and whether what the waiting are told comes true (R7).

use super::{
    Plan, ask,
    ask::{Ask, Heard},
    at, count, world,
    world::Setup,
};
use crate::{
    fake::{Model, Script, Text, mix},
    measure::figures::{Bound, Report},
};
use anyhow::Result;
use serde_json::json;
use std::time::Duration;

const SHORT: usize = 8;
const LONG: usize = 120;
const BURSTS: u64 = 3;

fn script() -> Script {
    Script {
        models: vec![Model::new("crowd")],
        text: Text::Words(1_000),
        prefill: Duration::from_millis(10),
        tokens_per_second: 400.0,
        slots: 1,
        max_loaded: 1,
        ..Script::default()
    }
}

/// Takes the only slot before a burst comes, so that its order is the queue's: R6 speaks of a full one.
const BEFORE: usize = 40;

/// Five short requests to two long ones, in any order.
fn mixture(seed: u64, key: Option<&String>) -> Vec<Ask> {
    let mut all: Vec<(u64, usize)> = (0..56).map(|number| (mix(seed ^ mix(number)), if number % 7 < 5 { SHORT } else { LONG })).collect();
    all.sort_unstable();
    all.iter().map(|(dice, tokens)| Ask::new("crowd", format!("Question {dice}"), *tokens).key(key.cloned())).collect()
}

pub(super) async fn short_behind_long(plan: &Plan) -> Result<Report> {
    let (script, plan) = (script(), Plan { upstream: None, ..plan.clone() });
    let setup = Setup::of(&script).tenants(&["clients"]);
    let sides = world::compare(&plan, &script, &setup, async |world| {
        let key = world.key("clients");
        ask::once(&world.target, &Ask::new("crowd", "Good morning", 1).key(key.clone())).await;
        let (mut short, mut long, mut wrong) = (Vec::new(), Vec::new(), Vec::new());
        for round in 0..BURSTS {
            let asks = mixture(plan.seed + round, key.as_ref());
            let lengths: Vec<bool> = asks.iter().map(|ask| ask.options["num_predict"] == SHORT).collect();
            let before = Ask::new("crowd", format!("Good day {round}"), BEFORE).key(key.clone());
            let heard = ask::burst(&world.target, std::iter::once(before).chain(asks).collect()).await;
            wrong.extend(ask::complaints(&heard, |_| false));
            for (heard, is_short) in heard[1..].iter().zip(lengths) {
                if is_short { &mut short } else { &mut long }.push(heard.total);
            }
        }
        Ok((at(&short, 0.5), at(&long, 0.99), wrong))
    })
    .await?;
    let mut report = sides.report("R6", |(short, long, _)| json!({"short_p50_s": short, "long_p99_s": long}));
    report.errors(sides.behind.iter().flat_map(|(_, _, wrong)| wrong.clone()));
    let short = sides.of_behind(|(short, ..)| Some((*short)? / sides.alone.0?));
    let long = sides.of_behind(|(_, long, _)| Some((*long)? / sides.alone.1?));
    report.verdict("R6", "p50 of short requests over first come first served", Bound::AtMost, 0.3, short);
    report.verdict("R6", "p99 of long requests over first come first served", Bound::AtMost, 1.25, long);
    Ok(report)
}

/// Shorter waits are over before they matter, in seconds.
const NEGLIGIBLE: f64 = 0.05;

/// What was told over what happened, for every waiting time told.
fn ratios(heard: &[Heard]) -> Vec<f64> {
    let of = |heard: &Heard| -> Vec<f64> {
        let Some(began) = heard.began.or(heard.first) else { return Vec::new() };
        let told = heard.queued.iter().filter(|told| began - told.at > NEGLIGIBLE);
        told.filter_map(|told| Some(told.eta? / (began - told.at))).collect()
    };
    heard.iter().flat_map(of).collect()
}

/// How often a position rose.
fn risen(heard: &[Heard]) -> usize {
    let rises = |heard: &Heard| {
        let places: Vec<u64> = heard.queued.iter().filter_map(|told| told.position).collect();
        places.windows(2).filter(|pair| pair[1] > pair[0]).count()
    };
    heard.iter().map(rises).sum()
}

pub(super) async fn told(plan: &Plan) -> Result<Report> {
    let mut report = Report::new("R7", "loopback", 1);
    let script = Script { tokens_per_second: 200.0, ..script() };
    let plan = Plan { upstream: None, ..plan.clone() };
    let setup = Setup::of(&script).tenants(&["clients"]);
    let Some(world) = world::gateway_only(&plan, &script, &setup, 1, &mut report).await else { return Ok(report) };
    let asks = |seed: u64, number: u64| -> Vec<Ask> {
        let tokens = |dice: u64| 10 + usize::try_from(mix(seed ^ mix(dice)) % 90).unwrap_or(0);
        (0..number).map(|dice| Ask::new("crowd", format!("Question {seed} {dice}"), tokens(dice)).key(world.key("clients"))).collect()
    };
    // It has to have seen some answers before it can know.
    for ask in asks(plan.seed, 8) {
        ask::once(&world.target, &ask).await;
    }
    let first = ask::burst(&world.target, asks(plan.seed + 1, 30)).await;
    let second = ask::burst(&world.target, asks(plan.seed + 2, 40)).await;
    let heard = [first, second].concat();
    report.errors(ask::complaints(&heard, |_| false));
    let ratios = ratios(&heard);
    let errors: Vec<f64> = ratios.iter().map(|ratio| (ratio - 1.0).abs()).collect();
    let within = ratios.iter().filter(|ratio| (0.5..=2.0).contains(*ratio)).count();
    let within = (!ratios.is_empty()).then(|| count(within) / count(ratios.len()));
    report.figure("told", json!(ratios.len()));
    report.figure("told_over_actual", json!({"p5": at(&ratios, 0.05), "p50": at(&ratios, 0.5), "p95": at(&ratios, 0.95)}));
    report.verdict("R7", "waiting times told", Bound::AtLeast, 30.0, Some(count(ratios.len())));
    report.verdict("R7", "median error of a told waiting time", Bound::AtMost, 0.25, at(&errors, 0.5));
    report.verdict("R7", "share within a factor of two", Bound::AtLeast, 0.9, within);
    report.verdict("R7", "positions that rose", Bound::AtMost, 0.0, Some(count(risen(&heard))));
    Ok(report)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scenario::ask::Told;

    #[test]
    fn told_times_are_held_against_what_happened() {
        let told = |at: f64, position: u64, eta: f64| Told { at, position: Some(position), eta: Some(eta) };
        let heard = Heard { began: Some(2.0), queued: vec![told(0.0, 3, 4.0), told(1.0, 4, 0.5), told(1.99, 1, 9.0)], ..Heard::default() };
        assert_eq!(ratios(std::slice::from_ref(&heard)), [2.0, 0.5]);
        assert_eq!(risen(&[heard]), 1);
    }
}
