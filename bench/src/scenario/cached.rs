//! Answers that need not be made again: identical requests at once (F5), and a hit in the exact cache (P5).

use super::{
    Plan, ask,
    ask::{Ask, Heard},
    at, world,
    world::{Setup, World},
};
use crate::{
    fake::{Model, Script, Text},
    http1::client::Client,
    measure::{
        cores::{Cores, View},
        figures::{Bound, Report, Spread, micros},
    },
};
use anyhow::{Context, Result, bail};
use bytes::Bytes;
use http::Method;
use serde_json::json;
use std::time::{Duration, Instant};

const CACHE: &str = "[cache.exact]\nenabled = true";
const IDENTICAL: usize = 16;
const ROUNDS: usize = 9;
const HITS: usize = 200;

fn deterministic(model: &str, prompt: &str, tokens: usize, key: Option<String>) -> Ask {
    Ask::new(model, prompt, tokens).option("temperature", 0).option("seed", 7).key(key)
}

pub(super) async fn identical(plan: &Plan) -> Result<Report> {
    let script = world::measured(plan);
    let setup = Setup::of(&script).tenants(&["clients"]).section(CACHE);
    let sides = world::compare(plan, &script, &setup, async |world| {
        let ask = |prompt: &str| deterministic(&plan.models[0], prompt, 80, world.key("clients"));
        // Loads the model.
        ask::once(&world.target, &deterministic(&plan.models[0], "Good morning", 1, world.key("clients"))).await;
        let one = ask::once(&world.target, &ask("How much salt does one mule carry?")).await;
        let began = Instant::now();
        let all = ask::burst(&world.target, vec![ask("How much salt do sixteen mules carry?"); IDENTICAL]).await;
        Ok((one, all, began.elapsed().as_secs_f64()))
    })
    .await?;
    let mut report = sides.report("F5", |(one, all, seconds)| {
        let same = all.windows(2).all(|pair| pair[0].text == pair[1].text);
        json!({"one_s": one.total, "sixteen_s": seconds, "ratio": seconds / one.total, "same_text": same})
    });
    if let Some((one, all, _)) = &sides.behind {
        report.errors(ask::complaints(all.iter().chain([one]), |_| false));
        let differ = all.iter().filter(|heard| heard.text != all[0].text).count();
        report.errors((differ > 0).then(|| format!("{differ} of {IDENTICAL} identical requests got another text")));
    }
    let ratio = sides.of_behind(|(one, _, seconds)| Some(seconds / one.total));
    report.verdict("F5", "time of sixteen over the time of one", Bound::AtMost, 1.15, ratio);
    Ok(report)
}

/// Times of requests one after the other over one connection, in seconds.
async fn times(client: &mut Client, method: &Method, path: &str, key: Option<&str>, body: &Bytes) -> Result<Vec<f64>> {
    let headers: Vec<(&str, &str)> = key.iter().map(|value| ("authorization", *value)).collect();
    let mut times = Vec::with_capacity(HITS);
    for _ in 0..HITS {
        let since = Instant::now();
        let response = client.send_with(method.clone(), path, &headers, body.clone()).await?;
        let status = response.status();
        let read = http_body_util::BodyExt::collect(response.into_body()).await?.to_bytes();
        times.push(since.elapsed().as_secs_f64());
        if status != 200 {
            bail!("{path} answered {status}: {}", String::from_utf8_lossy(&read));
        }
    }
    Ok(times)
}

/// Rounds in which hits and `/livez` take turns: p50 and p99 of each, in microseconds.
async fn take_turns(world: &World) -> Result<Vec<[f64; 4]>> {
    let bearer = world.key("clients").map(|key| format!("Bearer {key}"));
    let body = json!({"model": "cached", "prompt": "Again", "stream": false, "options": {"temperature": 0, "seed": 7, "num_predict": 8}});
    let body: Bytes = body.to_string().into();
    let mut client = Client::new(world.target.address);
    let mut rounds = Vec::new();
    for round in 0..=ROUNDS {
        let hits = times(&mut client, &Method::POST, "/generate", bearer.as_deref(), &body).await.context("asking again")?;
        let alive = times(&mut client, &Method::GET, "/livez", None, &Bytes::new()).await?;
        // The first round warms.
        if round > 0 {
            let of = |times: &[f64], q| micros(at(times, q).unwrap_or(0.0));
            rounds.push([of(&hits, 0.5), of(&hits, 0.99), of(&alive, 0.5), of(&alive, 0.99)]);
        }
    }
    Ok(rounds)
}

/// Gateway and load have a core each, where there are two: otherwise the figures say where the scheduler put them.
pub(super) async fn hits(plan: &Plan) -> Result<Report> {
    let cores = Cores::find();
    if let Some(cores) = cores {
        cores.move_self(View::Pinned)?;
    }
    let report = hits_on(plan, cores).await;
    if let Some(cores) = cores {
        cores.move_self(View::Shared)?;
    }
    report
}

async fn hits_on(plan: &Plan, cores: Option<Cores>) -> Result<Report> {
    let mut report = Report::new("P5", if cores.is_some() { View::Pinned.name() } else { "loopback" }, ROUNDS);
    let plan = Plan { upstream: None, ..plan.clone() };
    let script = Script { models: vec![Model::new("cached")], text: Text::Words(1_000), ..Script::default() };
    let cores = cores.map(|cores| (cores, View::Pinned));
    let setup = Setup { cores, ..Setup::of(&script) }.tenants(&["clients"]).section(CACHE);
    let Some(world) = world::gateway_only(&plan, &script, &setup, 1, &mut report).await else { return Ok(report) };
    let first: Heard = ask::once(&world.target, &deterministic("cached", "Again", 8, world.key("clients")).whole()).await;
    report.errors(ask::complaints([&first], |_| false));
    // What is kept may be written a moment after the answer.
    tokio::time::sleep(Duration::from_millis(300)).await;
    let asked = world.seen(|seen| seen.on("/api/generate").count() as u64);
    let rounds = take_turns(&world).await?;
    let again = world.seen(|seen| seen.on("/api/generate").count() as u64);
    let spread = |pick: fn(&[f64; 4]) -> f64| Spread::of(&rounds.iter().map(pick).collect::<Vec<_>>());
    let (p50, p99) = (spread(|it| it[0]), spread(|it| it[1]));
    let ratio = spread(|it| it[0] / it[2].max(1.0));
    report.figure("hit_p50_us", json!(p50.map(Spread::json)));
    report.figure("hit_p99_us", json!(p99.map(Spread::json)));
    report.figure("livez_p50_us", json!(spread(|it| it[2]).map(Spread::json)));
    report.figure("livez_p99_us", json!(spread(|it| it[3]).map(Spread::json)));
    report.figure("hit_over_livez", json!(ratio.map(Spread::json)));
    let missed = again.zip(asked).map(|(again, asked)| again - asked);
    report.verdict("P5", "requests that reached the server", Bound::AtMost, 0.0, missed);
    report.goal("P5", "exact hit, p99, in microseconds", Bound::AtMost, 300.0, p99.map(|it| it.median));
    report.goal("P5", "exact hit over /livez, p50", Bound::AtMost, 1.5, ratio.map(|it| it.median));
    Ok(report)
}
