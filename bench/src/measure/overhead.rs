//! What a gateway adds: CPU and throughput of small requests, time to the first token, delay of each chunk.

use super::{
    Plan,
    cores::{self, Cores, View},
    figures::{Bound, Report, Spread, micros, quantile},
    load::{self, Ask, Run},
    sides::{Setting, Side, Upstream, script},
};
use crate::fake::Text;
use anyhow::Result;
use serde_json::{Map, Value, json};
use std::time::Duration;

/// Requests a second at which nothing waits for anything.
const LIGHT_PER_SECOND: f64 = 100.0;
/// Streams × tokens a second make 2,000 chunks a second.
const STREAMS: usize = 20;
const TOKEN_GAP: Duration = Duration::from_millis(10);
/// A delayed acknowledgement costs 40 ms; nothing else here comes near.
const STALL: f64 = 0.035;

/// All rounds of one scenario, by side.
type Rounds = Vec<(&'static str, Vec<Run>)>;

/// Runs the scenarios asked for and hands each report on as it is ready.
pub async fn run(plan: &Plan, mut told: impl FnMut(Report) -> Result<()>) -> Result<()> {
    let folder = tempfile::tempdir()?;
    let upstream = Upstream::start(script())?;
    let cores = Cores::find();
    for view in [View::Pinned, View::Shared] {
        if view == View::Pinned && cores.is_none() {
            continue;
        }
        let setting = Setting { upstream: upstream.address, folder: folder.path(), arriero: plan.arriero.as_deref(), cores, view };
        let names: &[&str] = if view == View::Pinned { &["small-stream", "small-whole", "light", "chunks"] } else { &["small-stream"] };
        let wanted: Vec<&str> = names.iter().copied().filter(|name| plan.wants(&format!("{name}-{}", view.name()))).collect();
        if wanted.is_empty() {
            continue;
        }
        let sides = setting.start().await?;
        for name in wanted {
            told(scenario(plan, name, view, &upstream, &sides).await)?;
        }
    }
    Ok(())
}

async fn scenario(plan: &Plan, name: &str, view: View, upstream: &Upstream, sides: &[Side]) -> Report {
    let tokens = if name == "chunks" { chunk_tokens(plan) } else { plan.tokens };
    upstream.adjust(|script| {
        script.text = if name == "chunks" { Text::Stamped(tokens) } else { Text::Numbered(tokens) };
        script.token_gap = if name == "chunks" { TOKEN_GAP } else { Duration::ZERO };
    });
    let ask = Ask { prompt: "Why do mules carry salt?".into(), stream: name != "small-whole", tokens };
    let others = cores::busy(Duration::from_millis(500)).await;
    let rounds = take_turns(plan, name, sides, &ask).await;
    let mut report = Report::new(name, view.name(), plan.rounds);
    report.figure("machine_busy_before", json!(others));
    if !sides.iter().any(|side| side.name == "nginx") {
        report.figure("nginx", Value::Null);
    }
    report.errors(
        rounds.iter().flat_map(|(side, runs)| runs.iter().flat_map(move |run| run.errors.iter().map(move |e| format!("{side}: {e}")))),
    );
    match name {
        "light" => light(&mut report, &rounds),
        "chunks" => chunks(&mut report, &rounds),
        _ => small(&mut report, &rounds, view),
    }
    report
}

fn chunk_tokens(plan: &Plan) -> usize {
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a few hundred")]
    let tokens = (plan.seconds / TOKEN_GAP.as_secs_f64()) as usize;
    tokens.clamp(50, 5_000)
}

/// Every side once a round, the first of them another one each round; a short turn before that counts for nothing.
async fn take_turns(plan: &Plan, name: &str, sides: &[Side], ask: &Ask) -> Rounds {
    let mut rounds: Rounds = sides.iter().map(|side| (side.name, Vec::new())).collect();
    for side in sides {
        load::closed(side, ask, 2, Duration::from_millis(200)).await;
    }
    for round in 0..plan.rounds {
        for turn in 0..sides.len() {
            let place = (round + turn) % sides.len();
            let side = &sides[place];
            let span = Duration::from_secs_f64(plan.seconds);
            let run = match name {
                "light" => load::open(side, ask, LIGHT_PER_SECOND, span, round as u64).await,
                "chunks" => load::streams(side, ask, STREAMS, TOKEN_GAP).await,
                _ => load::closed(side, ask, plan.connections, span).await,
            };
            rounds[place].1.push(run);
        }
    }
    rounds
}

fn runs<'a>(rounds: &'a Rounds, side: &str) -> Option<&'a [Run]> {
    rounds.iter().find(|(name, _)| *name == side).map(|(_, runs)| runs.as_slice())
}

/// One figure of each side's rounds.
fn each(rounds: &Rounds, figure: impl Fn(&Run) -> f64) -> Value {
    let spread = |runs: &Vec<Run>| Spread::of(&runs.iter().map(&figure).collect::<Vec<_>>()).map(Spread::json);
    Value::Object(rounds.iter().map(|(side, runs)| ((*side).to_owned(), json!(spread(runs)))).collect::<Map<_, _>>())
}

/// One side's figure against another's in the same round.
fn against(rounds: &Rounds, side: &str, other: &str, compare: impl Fn(&Run, &Run) -> f64) -> Option<Spread> {
    let pairs = runs(rounds, side)?.iter().zip(runs(rounds, other)?);
    Spread::of(&pairs.map(|(a, b)| compare(a, b)).collect::<Vec<_>>())
}

fn put(report: &mut Report, name: &str, spread: Option<Spread>) -> Option<f64> {
    report.figure(name, json!(spread.map(Spread::json)));
    spread.map(|spread| spread.median)
}

fn small(report: &mut Report, rounds: &Rounds, view: View) {
    report.figure("requests_per_second", each(rounds, Run::rate));
    report.figure("cpu_us_per_request", each(rounds, |run| micros(run.cpu_per_request())));
    let over = |a: &Run, b: &Run| a.cpu_per_request() / b.cpu_per_request();
    let rate = |a: &Run, b: &Run| a.rate() / b.rate();
    let cpu = put(report, "arriero_cpu_over_nginx", against(rounds, "arriero", "nginx", over));
    put(report, "nginx_rate_over_direct", against(rounds, "nginx", "direct", rate));
    let fraction = put(report, "arriero_rate_over_direct", against(rounds, "arriero", "direct", rate));
    let governed = put(report, "governed_cpu_over_nginx", against(rounds, "governed", "nginx", over));
    put(report, "governed_cpu_over_plain", against(rounds, "governed", "arriero", over));
    let governed_fraction = put(report, "governed_rate_over_direct", against(rounds, "governed", "direct", rate));
    if view == View::Pinned {
        report.goal("P1", "CPU per small POST over nginx", Bound::AtMost, 2.5, cpu);
        report.goal("P1", "the same, governed", Bound::AtMost, 2.5, governed);
    } else {
        report.goal("P2", "fraction of the direct rate", Bound::AtLeast, 0.33, fraction);
        report.goal("P2", "the same, governed", Bound::AtLeast, 0.33, governed_fraction);
    }
}

fn sorted(values: &[f64]) -> Vec<f64> {
    let mut values = values.to_vec();
    values.sort_by(f64::total_cmp);
    values
}

/// Quantiles in microseconds of what a run measured, and what one side adds to another, round by round.
fn added(report: &mut Report, rounds: &Rounds, name: &str, pick: fn(&Run) -> &Vec<f64>, goals: (&str, f64, f64)) {
    let (id, p50_limit, p99_limit) = goals;
    for (word, q, limit) in [("p50", 0.5, p50_limit), ("p99", 0.99, p99_limit)] {
        let at = |run: &Run| micros(quantile(&sorted(pick(run)), q));
        report.figure(&format!("{name}_{word}_us"), each(rounds, at));
        put(report, &format!("nginx_added_{word}_us"), against(rounds, "nginx", "direct", |a, b| at(a) - at(b)));
        let value = put(report, &format!("arriero_added_{word}_us"), against(rounds, "arriero", "direct", |a, b| at(a) - at(b)));
        // How much the upstream alone differs from round to round.
        let alone = runs(rounds, "direct").and_then(|runs| Spread::of(&runs.iter().map(at).collect::<Vec<_>>()));
        let noise = alone.map(|spread| spread.max - spread.min);
        report.goal_in_noise(id, &format!("added {name}, {word}, in microseconds"), Bound::AtMost, limit, value, noise);
    }
}

fn light(report: &mut Report, rounds: &Rounds) {
    added(report, rounds, "ttft", |run| &run.first, ("P3", 150.0, 1_000.0));
    let stalls = |side: &str| {
        let all = runs(rounds, side)?.iter().flat_map(|run| &run.first);
        let (count, slow) = all.fold((0.0, 0.0), |(count, slow), &t| (count + 1.0, slow + f64::from(u8::from(t > STALL))));
        (count > 0.0).then(|| slow / count)
    };
    let (direct, arriero) = (stalls("direct").unwrap_or(0.0), stalls("arriero"));
    report.figure("stalled_share", json!({"direct": direct, "nginx": stalls("nginx"), "arriero": arriero}));
    report.goal("P3", "share of first tokens later than 35 ms, beyond direct", Bound::AtMost, 0.005, arriero.map(|share| share - direct));
}

fn chunks(report: &mut Report, rounds: &Rounds) {
    added(report, rounds, "chunk_delay", |run| &run.delays, ("P4", 80.0, 500.0));
    report.figure("chunks", each(rounds, |run| f64::from(u32::try_from(run.chunks).unwrap_or(u32::MAX))));
    report.figure("cpu_us_per_chunk", each(rounds, |run| micros(run.cpu_per_chunk())));
    let cpu =
        put(report, "arriero_cpu_per_chunk_over_nginx", against(rounds, "arriero", "nginx", |a, b| a.cpu_per_chunk() / b.cpu_per_chunk()));
    report.goal("P4", "CPU per chunk over nginx", Bound::AtMost, 1.5, cpu);
}
