//! Models that cannot be loaded together: one that starves behind another (F1), and how often they are exchanged.

use super::{
    Plan, ask,
    ask::{Ask, Heard},
    count, largest, world,
    world::{Setup, World},
};
use crate::{
    fake::{Model, Script, mix},
    measure::figures::{Bound, Report},
};
use anyhow::Result;
use serde_json::json;
use std::time::{Duration, Instant};
use tokio::task::JoinSet;

const SPAN: Duration = Duration::from_secs(40);
const CLIENTS: usize = 3;
const TOKENS: usize = 20;
/// The one who starves is answered when the others stop.
const PATIENT: Duration = Duration::from_mins(1);

struct Fed {
    /// Answers of each model.
    answers: [usize; 2],
    longest: Option<f64>,
    loads: Option<f64>,
    wrong: Vec<String>,
}

pub(super) async fn starving(plan: &Plan) -> Result<Report> {
    let script = world::measured(plan);
    let setup = Setup::of(&script).tenants(&["clients"]);
    let sides = world::compare(plan, &script, &setup, async |world| {
        let clients = |model: String, later: u64| async move {
            tokio::time::sleep(Duration::from_millis(later)).await;
            let key = world.key("clients");
            let make = move |client: usize, number: usize| {
                Ask::new(&model, format!("What does mule {client} carry on day {number} and why?"), TOKENS)
                    .key(key.clone())
                    .patience(PATIENT)
            };
            ask::closed(&world.target, CLIENTS, SPAN, Duration::ZERO, make).await
        };
        let (first, second) = tokio::join!(clients(plan.models[0].clone(), 0), clients(plan.models[1].clone(), 200));
        let served = |heard: &[Heard]| heard.iter().filter(|heard| heard.served()).count();
        let all = || first.iter().chain(&second);
        Ok(Fed {
            answers: [served(&first), served(&second)],
            longest: largest(all().map(|heard| heard.total)),
            loads: world.seen(|seen| seen.loads),
            wrong: ask::complaints(all(), Heard::refused),
        })
    })
    .await?;
    let mut report = sides.report("F1", |fed| json!({"answers": fed.answers, "longest_wait_s": fed.longest, "loads": fed.loads}));
    report.errors(sides.behind.iter().flat_map(|fed| fed.wrong.clone()));
    let share = sides.of_behind(|fed| Some(count(fed.answers[1]) / count(fed.answers[0].max(1))));
    let total = sides.of_behind(|fed| Some(count(fed.answers[0] + fed.answers[1])));
    report.verdict("F1", "answers of the second model over those of the first", Bound::AtLeast, 0.6, share);
    report.verdict("F1", "answers in all", Bound::AtLeast, 100.0, total);
    report.verdict("F1", "longest wait in seconds", Bound::AtMost, 10.0, sides.of_behind(|fed| fed.longest));
    Ok(report)
}

const MODELS: [&str; 3] = ["first", "second", "third"];
const MIXED: usize = 90;
const PER_SECOND: f64 = 9.0;

fn mixed_script() -> Script {
    Script {
        models: MODELS.iter().map(|name| Model::new(name)).collect(),
        text: crate::fake::Text::Words(1_000),
        token_gap: Duration::from_millis(8),
        prefill: Duration::from_millis(30),
        load_time: Duration::from_millis(300),
        slots: 2,
        max_loaded: 1,
        ..Script::default()
    }
}

fn mixed_ask(number: usize, seed: u64) -> Ask {
    let model = MODELS[usize::try_from(mix(seed ^ mix(number as u64)) % 3).unwrap_or(0)];
    Ask::new(model, format!("Question {number}"), 15)
}

/// What a queue without an opinion does: two at a time, in the order of arrival, another model only once the last is done.
async fn first_come(world: &World, seed: u64) -> Vec<Heard> {
    let (mut set, mut heard, mut before) = (JoinSet::new(), Vec::new(), String::new());
    for number in 0..MIXED {
        let one = mixed_ask(number, seed);
        let most = usize::from(one.model == before);
        while set.len() > most {
            heard.extend(set.join_next().await.and_then(Result::ok));
        }
        before.clone_from(&one.model);
        let target = world.target.clone();
        set.spawn(async move { ask::once(&target, &one).await });
    }
    heard.extend(ask::gather(set).await);
    heard
}

pub(super) async fn mixed(plan: &Plan) -> Result<Report> {
    let plan = Plan { upstream: None, ..plan.clone() };
    let script = mixed_script();
    let setup = Setup::of(&script).tenants(&["clients"]);
    let sides = world::compare(&plan, &script, &setup, async |world| {
        let began = Instant::now();
        let key = world.key("clients");
        let heard = if world.gateway.is_some() {
            let span = Duration::from_secs_f64(count(MIXED) / PER_SECOND);
            ask::open(&world.target, PER_SECOND, span, plan.seed, |number| mixed_ask(number, plan.seed).key(key.clone())).await?
        } else {
            first_come(world, plan.seed).await
        };
        let per_request = world.seen(|seen| seen.loads).map(|loads| loads / count(heard.len().max(1)));
        Ok((heard, per_request, began.elapsed().as_secs_f64()))
    })
    .await?;
    let mut report = sides.report(
        "swaps",
        |(heard, per_request, seconds)| json!({"requests": heard.len(), "loads_per_request": per_request, "seconds": seconds}),
    );
    report.errors(sides.behind.iter().flat_map(|(heard, ..)| ask::complaints(heard, |_| false)));
    let ratio = sides.of_behind(|(_, loads, _)| Some((*loads)? / sides.alone.1?));
    report.verdict("swaps", "loads a request over those of first come first served", Bound::AtMost, 0.5, ratio);
    Ok(report)
}
