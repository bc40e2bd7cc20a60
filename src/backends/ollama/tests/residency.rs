//! What is in memory, and what brings it there and away; clients that disagree about it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use arriero_bench::fake::{FakeOllama, Script};
use serde_json::{Map, Value, json};

use super::{client, collect, request};
use crate::backends::ollama::{Config, Ollama};
use crate::backends::{Backend, Error};
use crate::domain::allowance::Allowance;
use crate::domain::generation::Request;
use crate::domain::id::ModelName;
use crate::domain::options::Options;
use crate::models::{Circumstances, Loaded, Normaliser, Policy};

fn name(text: &str) -> ModelName {
    ModelName::parse(text).expect("a name")
}

fn object(value: Value) -> Map<String, Value> {
    let Value::Object(map) = value else { panic!("{value} is no object") };
    map
}

#[tokio::test]
async fn models_are_loaded_listed_and_unloaded() {
    let fake = FakeOllama::spawn(Script::default()).await.expect("a port");
    let ollama = client(&fake.url());
    assert_eq!(ollama.resident().await.expect("a list"), []);
    ollama.load(name("q8"), object(json!({"num_ctx": 8192, "shift": false})), Some(json!(-1))).await.expect("loads");
    let resident = ollama.resident().await.expect("a list");
    assert_eq!((resident.len(), resident[0].model.canonical(), resident[0].context_length), (1, "q8:latest", Some(8192)));
    assert!(resident[0].size_bytes.is_some() && resident[0].expires_at_unix_ms.is_some_and(|at| at > 4_000_000_000_000), "{resident:?}");
    // A request with the same settings finds it as it is.
    let mut asked = request("q8", "Hi");
    asked.ask.options = Options { num_ctx: Some(8192), ..Options::default() };
    asked.ask.extra.insert("shift".into(), json!(false));
    collect(ollama.generate(Arc::new(asked)).await.expect("an answer")).await;
    assert_eq!(fake.seen(|seen| seen.loads), 1);
    ollama.unload(name("Q8:latest")).await.expect("unloads");
    assert_eq!(ollama.resident().await.expect("a list"), []);
    let unknown = ollama.load(name("nope"), Map::new(), None).await;
    assert!(matches!(unknown, Err(Error::ModelNotFound { model }) if model == "nope"));
}

#[test]
fn what_is_configured_is_told() {
    let ollama = Ollama::new(Config { slots: Some(4), max_loaded: Some(2), ..Config::default() }).expect("a client");
    assert_eq!((ollama.slots(), ollama.max_loaded()), (Some(4), Some(2)));
    assert_eq!(
        (ollama.booked_after_cancel(false), ollama.booked_after_cancel(true)),
        (Duration::from_millis(150), Duration::from_millis(20))
    );
    assert!(ollama.troubles().is_empty());
}

/// Clients that disagree about the settings of the runner.
fn wishes() -> impl Iterator<Item = Request> {
    (0..40_u32).map(|n| {
        let mut asked = request("gemma3:270m", "Hi");
        let num_ctx = [Some(2048), Some(4096), None][n as usize % 3];
        asked.ask.options = Options { num_ctx, num_predict: Some(2), num_batch: (n % 4 == 0).then_some(256), ..Options::default() };
        if n % 5 == 0 {
            asked.ask.extra.insert("shift".into(), json!(false));
        }
        asked
    })
}

#[tokio::test]
async fn clients_that_disagree_about_the_runner_cause_no_reload() {
    let fake = FakeOllama::spawn(Script::default()).await.expect("a port");
    let ollama = client(&fake.url());
    for asked in wishes() {
        collect(ollama.generate(Arc::new(asked)).await.expect("an answer")).await;
    }
    let alone = fake.seen(|seen| seen.loads);
    assert!(alone > 20, "as they are, they have it loaded {alone} times");
    ollama.unload(name("gemma3:270m")).await.expect("unloads");

    let models = ollama.models().await.expect("models");
    let model = models.iter().find(|model| model.name == name("gemma3:270m")).expect("it is there");
    let (normaliser, policy, allowance) = (Normaliser::new(), Policy::default(), Allowance::default());
    for mut asked in wishes() {
        let with = Circumstances { loaded: Loaded::Unknown, allowance: &allowance, now: Instant::now() };
        normaliser.normalise(model, &mut asked.ask, &policy, with);
        let outcome = collect(ollama.generate(Arc::new(asked)).await.expect("an answer")).await;
        assert!(outcome.error.is_none());
    }
    assert_eq!(fake.seen(|seen| seen.loads) - alone, 1, "it is loaded once, and stays");
}
