//! A server that is stuck: found, kept free of traffic, told to those who wait, cured.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use arriero_bench::fake::{FakeOllama, Fault, Midway, On, Plan, Script, When};
use futures_util::StreamExt;
use tokio::time::{sleep, timeout};

use super::server::{LONG, Server};
use super::{DONE, collect, piece, request, start};
use crate::backends::ollama::{Config, Ollama};
use crate::backends::{Backend, Error, Events, TroubleKind};
use crate::domain::blame::{Blame, Retry};
use crate::domain::options::Options;
use crate::telemetry::metrics::Metrics;

const MODEL: &str = "gemma3:270m";

/// A server, and a client that is soon out of patience with it.
async fn impatient(script: Script) -> (FakeOllama, Ollama, Metrics) {
    let fake = FakeOllama::spawn(script).await.expect("a port");
    let config = Config {
        url: fake.url(),
        probe_interval: Duration::from_hours(1),
        guard_interval: Duration::from_millis(50),
        wedged_after: Duration::from_millis(300),
        probe_timeout: Duration::from_millis(400),
        deep_probe_timeout: Duration::from_millis(400),
        ..Config::default()
    };
    let ollama = Ollama::new(config).expect("a client");
    let metrics = Metrics::default();
    ollama.count_in(&metrics);
    (fake, ollama, metrics)
}

/// Runs a test while the client watches over its server.
async fn watched<T>(ollama: &Ollama, test: impl Future<Output = T>) -> T {
    let bounded = timeout(LONG, test);
    tokio::select! {
        done = bounded => done.expect("the test hangs"),
        () = ollama.clone().watch() => panic!("watching never ends"),
    }
}

async fn ask(ollama: &Ollama, prompt: &str) -> Result<Events, Error> {
    let mut asked = request(MODEL, prompt);
    asked.ask.options = Options { num_predict: Some(5), ..Options::default() };
    ollama.generate(Arc::new(asked)).await
}

/// Asks once, so that the model is known to be loaded, and waits until that is seen.
async fn warm_up(fake: &FakeOllama, ollama: &Ollama) {
    assert!(collect(ask(ollama, "Hello").await.expect("an answer")).await.error.is_none());
    fake.wait_for(|seen| seen.on("/api/ps").count() >= 1).await.expect("it is looked at");
    sleep(Duration::from_millis(100)).await;
}

async fn until(mut holds: impl FnMut() -> bool) {
    while !holds() {
        sleep(Duration::from_millis(10)).await;
    }
}

fn assert_wedged(error: Option<Error>) {
    let error = error.expect("a failure");
    assert!(matches!(error, Error::Wedged { .. }), "{error}");
    assert_eq!((error.kind(), error.blame(), error.retry()), ("wedged", Blame::Upstream, Retry::Elsewhere));
}

fn generations(fake: &FakeOllama) -> usize {
    fake.seen(|seen| seen.on("/api/generate").count())
}

#[tokio::test]
async fn a_leaked_slot_is_found_and_cured() {
    let (fake, ollama, metrics) = impatient(Script::default()).await;
    watched(&ollama, async {
        warm_up(&fake, &ollama).await;
        fake.fail(Plan::next(1, Fault::Hang));
        // It would wait for five minutes.
        assert_wedged(ask(&ollama, "Hello").await.err());
        fake.wait_for(|seen| seen.unloads == 1).await.expect("it is unloaded");
        until(|| ollama.troubles().is_empty()).await;
        assert!(collect(ask(&ollama, "Hello").await.expect("an answer")).await.error.is_none());
    })
    .await;
    let text = metrics.render();
    for series in [
        format!("arriero_wedges_total{{backend=\"{}\",kind=\"leaked_slot\"}} 1", ollama.name()),
        format!("arriero_cures_total{{backend=\"{}\",kind=\"leaked_slot\",outcome=\"healed\"}} 1", ollama.name()),
    ] {
        assert!(text.contains(&series), "{series} is not in\n{text}");
    }
}

#[tokio::test]
async fn while_no_cure_helps_nobody_is_sent_there_and_the_trouble_is_told() {
    let (fake, ollama, _) = impatient(Script::default()).await;
    watched(&ollama, async {
        warm_up(&fake, &ollama).await;
        fake.fail(Plan::always(Fault::Hang));
        assert_wedged(ask(&ollama, "Hello").await.err());
        until(|| ollama.troubles().first().is_some_and(|trouble| trouble.cures_tried == 1)).await;
        let trouble = ollama.troubles().remove(0);
        assert_eq!((trouble.kind, trouble.model.as_str()), (TroubleKind::LeakedSlot, MODEL));
        assert!(trouble.why.contains("does not begin 1 of 1 answers") && trouble.since_unix_ms > 1_577_836_800_000, "{trouble:?}");
        sleep(Duration::from_millis(900)).await;
        let before = generations(&fake);
        for _ in 0..20 {
            assert_wedged(ask(&ollama, "Hello").await.err());
        }
        assert_eq!(generations(&fake), before, "it is not asked");
        // Other models of the server are.
        fake.fail(Plan::none());
        let other = ollama.generate(Arc::new(request("q8", "Hello"))).await.expect("an answer");
        assert!(collect(other).await.error.is_none());
    })
    .await;
}

#[tokio::test]
async fn an_answer_that_stops_in_the_middle_is_given_up_and_the_runner_cured() {
    let (fake, ollama, metrics) = impatient(Script::default()).await;
    watched(&ollama, async {
        warm_up(&fake, &ollama).await;
        fake.fail(Plan::next(1, Fault::After(3, Midway::Stall)));
        let mut events = ask(&ollama, "Hello").await.expect("it begins");
        for _ in 0..3 {
            assert!(matches!(events.next().await, Some(Ok(_))));
        }
        assert_wedged(events.next().await.and_then(Result::err));
        assert!(events.next().await.is_none());
        drop(events);
        until(|| ollama.troubles().is_empty()).await;
    })
    .await;
    let text = metrics.render();
    assert!(text.contains("kind=\"hung_runner\",outcome=\"healed\"} 1"), "{text}");
}

#[tokio::test]
async fn a_model_that_another_keeps_out_of_memory_is_given_up_and_the_other_unloaded() {
    let (fake, ollama, metrics) = impatient(Script::default()).await;
    watched(&ollama, async {
        warm_up(&fake, &ollama).await;
        sleep(Duration::from_millis(400)).await;
        fake.fail(Plan::next(1, Fault::Hang));
        let waits = ollama.generate(Arc::new(request("q8", "Hello"))).await;
        assert_wedged(waits.err());
        until(|| fake.loaded().is_empty() && ollama.troubles().is_empty()).await;
    })
    .await;
    let text = metrics.render();
    assert!(text.contains("kind=\"eviction_deadlock\"} 1"), "{text}");
}

#[tokio::test]
async fn an_honest_server_is_left_alone_and_an_idle_one_is_not_asked() {
    let script = Script { prefill: Duration::from_millis(150), load_time: Duration::from_millis(900), slots: 1, ..Script::default() };
    let (fake, ollama, metrics) = impatient(script).await;
    watched(&ollama, async {
        for _ in 0..6 {
            assert!(collect(ask(&ollama, "Hello").await.expect("an answer")).await.error.is_none());
        }
        sleep(Duration::from_millis(300)).await;
        let asked = fake.seen(|seen| seen.on("/api/ps").count());
        sleep(Duration::from_millis(300)).await;
        assert_eq!(fake.seen(|seen| seen.on("/api/ps").count()), asked);
    })
    .await;
    assert!(ollama.troubles().is_empty() && !metrics.render().contains("arriero_wedges_total{"));
    assert!(metrics.render().contains("cause=\"planned\"} 1"), "the first one loads the model");
    assert!(!metrics.render().contains("cause=\"unplanned\""));
}

#[tokio::test]
async fn a_load_that_nobody_had_to_expect_is_counted_as_such() {
    let (fake, ollama, metrics) = impatient(Script { load_time: Duration::from_millis(700), ..Script::default() }).await;
    watched(&ollama, async {
        warm_up(&fake, &ollama).await;
        // Someone else, or a crash, has taken the model away.
        fake.kill_runners();
        assert!(collect(ask(&ollama, "Hello").await.expect("an answer")).await.error.is_none());
    })
    .await;
    assert!(metrics.render().contains("cause=\"unplanned\"} 1"), "{}", metrics.render());
}

#[tokio::test]
async fn a_list_that_fails_accuses_nobody() {
    let (fake, ollama, _) = impatient(Script { prefill: Duration::from_millis(800), ..Script::default() }).await;
    watched(&ollama, async {
        fake.fail(Plan::none().rule(On::Path("/api/ps".into()), When::Always, Fault::status(500)));
        for _ in 0..3 {
            assert!(collect(ask(&ollama, "Hello").await.expect("an answer")).await.error.is_none());
        }
        assert!(ollama.troubles().is_empty());
    })
    .await;
}

#[tokio::test]
async fn a_stopped_runner_is_found_by_the_list_that_hangs() {
    // It answers once; then both the next answer and the list stand still, while the rest of the server goes on.
    let asked = std::sync::atomic::AtomicUsize::new(0);
    let server = Server::start(move |talk| match talk.received.head.split_whitespace().nth(1) {
        Some("/api/ps") if asked.load(Ordering::SeqCst) > 1 => assert!(talk.wait_for_close(), "nobody waits for it for ever"),
        Some("/api/ps") => talk.json(r#"{"models":[{"name":"m:latest","expires_at":"2318-01-01T00:00:00Z","context_length":4096}]}"#),
        Some("/api/generate") if asked.fetch_add(1, Ordering::SeqCst) == 0 => talk.json(DONE),
        Some("/api/generate") => {
            talk.stream();
            talk.chunk(piece("a"));
            talk.wait_for_close();
            talk.close();
        }
        _ => talk.json(r#"{"version":"0.33.0"}"#),
    });
    let config = Config { url: server.url(), wedged_after: Duration::from_hours(1), ..Config::default() };
    let ollama = Ollama::new(config).expect("a client");
    watched(&ollama, async {
        assert!(collect(start(&ollama).await.expect("an answer")).await.error.is_none());
        until(|| server.received().iter().any(|received| received.head.starts_with("GET /api/ps"))).await;
        sleep(Duration::from_millis(200)).await;
        let events = start(&ollama).await.expect("it begins");
        until(|| !ollama.troubles().is_empty()).await;
        let trouble = ollama.troubles().remove(0);
        assert_eq!(trouble.kind, TroubleKind::HungRunner);
        assert!(trouble.why.contains("the list of loaded models takes"), "{trouble:?}");
        drop(events);
    })
    .await;
}
