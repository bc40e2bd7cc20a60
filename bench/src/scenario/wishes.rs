//! What single clients wish for: conversations that stay warm (F3), a context of their own size (F4), to hear the truth
//! about a prompt that is too long (F7).

use super::{
    Plan, ask,
    ask::{Ask, Caller, Heard},
    count, largest, world,
    world::{Setup, World},
};
use crate::{
    fake::{Script, mix},
    measure::figures::{Bound, Report},
};
use anyhow::Result;
use serde_json::{Value, json};
use std::{
    fmt::Write as _,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};
use tokio::task::JoinSet;

const TURNS: usize = 5;
const AT_A_TIME: usize = 4;
/// The fake does everything this much faster than the measured machine, so that a run stays short.
const HASTE: u32 = 4;

struct Conversation {
    number: usize,
    prompt: String,
}

impl Conversation {
    /// One that begins with 1,000 to 2,000 words of its own.
    fn new(number: usize, seed: u64) -> Self {
        let words = 1_000 + mix(seed ^ mix(number as u64)) % 1_000;
        let mut prompt = String::new();
        for word in 0..words {
            let _ = write!(prompt, "w{number}x{word} ");
        }
        Self { number, prompt }
    }
}

/// Seconds of work on prompts: in all, and on the first turns.
#[derive(Default)]
struct Talk {
    prompts: f64,
    firsts: f64,
    wrong: Vec<String>,
}

impl Talk {
    fn ratio(&self) -> Option<f64> {
        (self.firsts > 0.0).then(|| self.prompts / self.firsts)
    }

    fn json(&self, haste: f64) -> Value {
        json!({"prompt_s": self.prompts * haste, "first_turns_s": self.firsts * haste, "ratio": self.ratio()})
    }
}

/// Four people at a time, each with one conversation from its first turn to its last, who think for a moment between turns.
async fn talk(world: &World, plan: &Plan, conversations: usize) -> Talk {
    let waiting: Vec<Conversation> = (0..conversations).rev().map(|number| Conversation::new(number, plan.seed)).collect();
    let waiting = Arc::new(Mutex::new(waiting));
    let mut set = JoinSet::new();
    for person in 0..AT_A_TIME {
        let (waiting, caller) = (Arc::clone(&waiting), Caller::new(&world.target));
        let (model, key) = (plan.models[0].clone(), world.key("people"));
        set.spawn(person_talks(waiting, caller, model, key, mix(plan.seed ^ mix(person as u64))));
    }
    let mut all = Talk::default();
    for talk in ask::gather(set).await {
        all.prompts += talk.prompts;
        all.firsts += talk.firsts;
        all.wrong.extend(talk.wrong);
    }
    all
}

async fn person_talks(
    waiting: Arc<Mutex<Vec<Conversation>>>,
    mut caller: Caller,
    model: String,
    key: Option<String>,
    mut dice: u64,
) -> Talk {
    let mut talk = Talk::default();
    loop {
        let next = waiting.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let Some(mut one) = next else { return talk };
        for turn in 0..TURNS {
            let session = format!("conversation-{}", one.number);
            let ask = Ask::new(&model, one.prompt.clone(), 20).field("raw", true).wish("session", session).key(key.clone());
            let heard = caller.ask(&ask, Instant::now()).await;
            talk.wrong.extend(ask::complaints([&heard], |_| false));
            let took = heard.done.as_ref().and_then(|done| done["prompt_eval_duration"].as_f64()).unwrap_or(0.0) / 1e9;
            talk.prompts += took;
            talk.firsts += if turn == 0 { took } else { 0.0 };
            let _ = write!(one.prompt, "{} and then {turn} went on", heard.text);
            dice = mix(dice);
            tokio::time::sleep(Duration::from_millis(dice % 200)).await;
        }
    }
}

pub(super) async fn conversations(plan: &Plan) -> Result<Report> {
    let haste = if plan.upstream.is_some() { 1 } else { HASTE };
    let measured = world::measured(plan);
    let script = Script {
        prefill: Duration::ZERO,
        prefill_per_token: measured.prefill_per_token / HASTE,
        tokens_per_second: measured.tokens_per_second * f64::from(HASTE),
        load_time: measured.load_time / HASTE,
        // The model's sliding window lets its runner take back fewer prompts than would fit into memory: three of these.
        saved_tokens: 5_800,
        ..measured
    };
    let setup = Setup::of(&script).tenants(&["people"]);
    let more = async |count: usize, servers: usize| -> Result<Option<Talk>> {
        let Some(world) = World::behind(plan, &script, &setup, servers).await? else { return Ok(None) };
        Ok(Some(talk(&world, plan, count).await))
    };
    let main = world::compare(plan, &script, &setup, async |world| Ok(talk(world, plan, 12).await));
    let (sides, many, two) = if plan.upstream.is_some() {
        (main.await?, more(24, 1).await, Ok(None))
    } else {
        let (sides, many, two) = tokio::join!(main, more(24, 1), more(12, 2));
        (sides?, many, two)
    };
    let mut report = sides.report("F3", |talk| talk.json(f64::from(haste)));
    report.errors(sides.behind.iter().flat_map(|talk| talk.wrong.clone()));
    report.verdict("F3", "work on prompts over that of the first turns", Bound::AtMost, 1.05, sides.of_behind(Talk::ratio));
    for (name, extra) in [("24 conversations", many), ("two servers", two)] {
        match extra {
            Ok(talk) => {
                report.figure(name, json!(talk.as_ref().map(|talk| talk.json(f64::from(haste)))));
                report.verdict("F3", &format!("the same with {name}"), Bound::AtMost, 1.05, talk.as_ref().and_then(Talk::ratio));
            }
            Err(error) => report.errors([format!("{name}: {error:#}")]),
        }
    }
    Ok(report)
}

const CONTEXTS: [u32; 2] = [4_096, 2_048];

pub(super) async fn contexts(plan: &Plan) -> Result<Report> {
    let script = world::measured(plan);
    let setup = Setup::of(&script).tenants(&["clients"]);
    let sides = world::compare(plan, &script, &setup, async |world| {
        let clients = |place: usize| async move {
            tokio::time::sleep(Duration::from_millis(300) * u32::try_from(place).unwrap_or(0)).await;
            let (model, key) = (plan.models[0].clone(), world.key("clients"));
            let make = move |client: usize, number: usize| {
                Ask::new(&model, format!("Number {number} of {client}"), 5).option("num_ctx", CONTEXTS[place]).key(key.clone())
            };
            ask::closed(&world.target, 3, Duration::from_secs(30), Duration::ZERO, make).await
        };
        let (large, small) = tokio::join!(clients(0), clients(1));
        let loads = world.seen(|seen| seen.reloads);
        Ok((large.into_iter().chain(small).collect::<Vec<Heard>>(), loads))
    })
    .await?;
    let served = |heard: &[Heard]| count(heard.iter().filter(|heard| heard.served()).count());
    let longest = |heard: &[Heard]| largest(heard.iter().map(|heard| heard.total));
    let mut report =
        sides.report("F4", |(heard, reloads)| json!({"done": served(heard), "longest_wait_s": longest(heard), "reloads": reloads}));
    report.errors(sides.behind.iter().flat_map(|(heard, _)| ask::complaints(heard, |_| false)));
    report.verdict("F4", "reloads", Bound::AtMost, 0.0, sides.of_behind(|(_, reloads)| *reloads));
    report.verdict("F4", "answers", Bound::AtLeast, 190.0, sides.of_behind(|(heard, _)| Some(served(heard))));
    report.verdict("F4", "longest wait in seconds", Bound::AtMost, 2.0, sides.of_behind(|(heard, _)| longest(heard)));
    Ok(report)
}

/// What a client learns of its prompt of 6,002 tokens.
pub(super) async fn too_long(plan: &Plan) -> Result<Report> {
    let script = Script { prefill_per_token: Duration::from_micros(200), ..world::measured(plan) };
    let setup = Setup::of(&script).tenants(&["clients"]);
    let sides = world::compare(plan, &script, &setup, async |world| {
        let ask = Ask::new(&plan.models[0], "word ".repeat(6_000), 3).field("raw", true).option("num_ctx", 4_096).whole();
        Ok(ask::once(&world.target, &ask.key(world.key("clients"))).await)
    })
    .await?;
    let truth = |heard: &Heard| {
        let marked = heard.done.as_ref().is_some_and(|done| done.pointer("/arriero/truncated").is_some_and(|it| !it.is_null()));
        let refused = matches!(heard.status, 400 | 413 | 422)
            && heard.error.as_ref().is_some_and(|error| error.contains("6002") || error.contains("6,002"));
        marked || refused
    };
    let mut report = sides.report("F7", |heard| {
        let processed = heard.done.as_ref().and_then(|done| done["prompt_eval_count"].as_u64());
        json!({"status": heard.status, "prompt_eval_count": processed, "told": truth(heard), "error": heard.error})
    });
    report.verdict("F7", "the client is told", Bound::AtLeast, 1.0, sides.of_behind(|heard| Some(f64::from(u8::from(truth(heard))))));
    Ok(report)
}
