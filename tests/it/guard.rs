//! What the gateway does so that one client, or one stuck server, does not spoil it for all.

use std::time::Duration;

use arriero::config::Config;
use arriero::models::Policy;
use arriero_bench::fake::FakeOllama;
use serde_json::{Value, json};

use crate::support::{TestApp, asked, eventually, fake, load};

const MODEL: &str = "gemma3:270m";

fn request(options: &Value) -> Value {
    json!({"model": MODEL, "prompt": "Hello", "options": options})
}

fn policy(text: &str) -> Vec<Policy> {
    vec![toml::from_str(&format!("name = \"{MODEL}\"\n{text}")).expect("a policy")]
}

/// What was changed in a request, by field.
fn changed(answer: &Value) -> Vec<&str> {
    answer["arriero"]["changed"].as_array().into_iter().flatten().filter_map(|change| change["field"].as_str()).collect()
}

fn last_sent(fake: &FakeOllama) -> Value {
    fake.requests().into_iter().rfind(|request| request.path == "/api/generate").expect("asked").json()
}

#[tokio::test]
async fn clients_with_other_settings_do_not_have_the_model_loaded_anew() {
    let fake = fake(|_| {}).await;
    let app = TestApp::spawn(&fake).await;
    let settings = [
        json!({"num_ctx": 4096}),
        json!({"num_ctx": 2048}),
        json!({"num_ctx": 4096, "num_thread": 2}),
        json!({"num_ctx": 2048, "num_thread": 8, "num_batch": 64}),
        json!({"use_mmap": false}),
        json!({}),
    ];
    let mut told = 0;
    for round in 0..3 {
        for options in &settings {
            let mut options = options.clone();
            options["num_predict"] = json!(2);
            let (code, answer) = app.ask(request(&options)).await;
            assert_eq!(code, 200, "round {round}: {answer}");
            told += usize::from(!changed(&answer).is_empty());
        }
    }
    assert_eq!(fake.seen(|seen| (seen.loads, seen.reloads)), (1, 0));
    assert!(told >= 9, "{told} were told that their settings were changed");
    let (_, answer) = app.ask(request(&json!({"num_ctx": 2048, "num_thread": 3, "num_predict": 2}))).await;
    assert_eq!(changed(&answer), ["options.num_ctx", "options.num_thread"], "{answer}");
    // One and the same model under both its names.
    let mut named = request(&json!({"num_predict": 2}));
    named["model"] = json!("chat:latest");
    app.ask(named.clone()).await;
    named["model"] = json!("chat");
    app.ask(named).await;
    assert_eq!(fake.seen(|seen| seen.reloads), 0);
}

#[tokio::test]
async fn how_long_a_model_stays_is_the_gateways_business() {
    let fake = fake(|_| {}).await;
    let app = TestApp::with(&[&fake], |config| config.model = policy("keep_alive = \"20m\"")).await;
    let mut body = request(&json!({"num_predict": 2}));
    body["keep_alive"] = json!(0);
    let (code, answer) = app.ask(body).await;
    assert_eq!((code, changed(&answer)), (200, vec!["keep_alive"]), "{answer}");
    assert_eq!(last_sent(&fake)["keep_alive"], 1200);
    assert_eq!(fake.loaded(), [MODEL]);
}

#[tokio::test]
async fn a_pinned_model_is_there_before_anyone_asks() {
    let fake = fake(|_| {}).await;
    let app = TestApp::with(&[&fake], |config| config.model = policy("pinned = true\nnum_ctx = 8192")).await;
    fake.wait_for(|seen| seen.loads == 1 && seen.in_flight == 0).await.expect("it is loaded");
    assert_eq!((fake.loaded(), &last_sent(&fake)["keep_alive"]), (vec![MODEL.to_owned()], &json!(-1)));
    assert_eq!(app.ask(request(&json!({"num_predict": 2}))).await.0, 200);
    assert_eq!(fake.seen(|seen| (seen.loads, seen.reloads)), (1, 0), "and requests have it as it was loaded");
}

#[tokio::test]
async fn a_request_without_a_bound_gets_one() {
    let fake = fake(|_| {}).await;
    let app = TestApp::with(&[&fake], |config| config.model = policy("num_predict_default = 7\nnum_predict_max = 9")).await;
    for (asked_for, sent) in
        [(json!({}), 7), (json!({"num_predict": -1}), 7), (json!({"num_predict": 100}), 9), (json!({"num_predict": 3}), 3)]
    {
        let (code, answer) = app.ask(request(&asked_for)).await;
        assert_eq!((code, &answer["eval_count"]), (200, &json!(sent)), "{asked_for}: {answer}");
        assert_eq!(last_sent(&fake)["options"]["num_predict"], sent);
        assert_eq!(
            changed(&answer).contains(&"options.num_predict"),
            asked_for == json!({"num_predict": 100}) || asked_for == json!({"num_predict": -1}),
            "{answer}"
        );
    }
}

#[tokio::test]
async fn a_prompt_is_not_shortened_in_silence() {
    let fake = fake(|_| {}).await;
    let app = TestApp::spawn(&fake).await;
    let mut body = request(&json!({"num_predict": 2, "num_ctx": 4096}));
    body["prompt"] = json!("word ".repeat(6_000));
    let (code, problem) = app.ask(body.clone()).await;
    assert_eq!(problem["code"], "context_too_long", "{code} {problem}");
    body["truncate"] = json!(true);
    let (code, answer) = app.ask(body.clone()).await;
    assert_eq!(code, 200, "{answer}");
    assert_eq!(answer["arriero"]["truncated"]["kept_tokens"], 2_051, "{answer}");
    assert!(answer["arriero"]["truncated"]["prompt_tokens"].as_u64() > Some(4_096), "{answer}");
    body["prompt"] = json!("short");
    let (_, answer) = app.ask(body).await;
    assert!(answer["arriero"].get("truncated").is_none(), "{answer}");
}

/// What is stuck, by the name of the backend.
async fn troubles(app: &TestApp) -> Vec<(String, Value)> {
    let report: Value = app.get("/admin/backends").await.json().await.expect("JSON");
    let backends = report["backends"].as_array().expect("a list").clone();
    let stuck = |backend: &Value| backend["troubles"].as_array().is_some_and(|troubles| !troubles.is_empty());
    backends.into_iter().filter(stuck).map(|mut one| (one["name"].as_str().expect("a name").to_owned(), one["troubles"].take())).collect()
}

fn impatient(config: &mut Config) {
    for server in &mut config.ollama {
        server.slots = Some(1);
        server.guard_interval = Duration::from_millis(100);
        server.wedged_after = Duration::from_millis(600);
        server.probe_timeout = Duration::from_millis(600);
        server.deep_probe_timeout = Duration::from_millis(600);
    }
}

/// A question that nobody has asked yet: the same one would go where it was read before.
fn other() -> Value {
    json!({"model": MODEL, "prompt": arriero::domain::id::RequestId::generate().to_string(), "options": {"num_predict": 2}})
}

/// Two servers, both with the model loaded; the first is broken, and everyone is served all the same, soon by the second one alone.
async fn is_found_and_left_alone(how: impl Fn(&FakeOllama)) {
    let first = fake(|script| script.slots = 1).await;
    let second = fake(|script| script.slots = 1).await;
    // A gateway prefers where the model is in memory.
    load(&first, MODEL).await;
    load(&second, MODEL).await;
    let app = TestApp::with(&[&first, &second], impatient).await;
    eventually("that both have been asked", async || {
        let running: Vec<_> = (0..4).map(|_| app.start(&other())).collect();
        for answer in running {
            assert_eq!(answer.await.expect("no panic").status(), 200);
        }
        asked(&first) > 2 && asked(&second) > 2
    })
    .await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    how(&first);
    let name = first.address().to_string();
    let (mut found, since) = (None, std::time::Instant::now());
    while found.is_none() {
        assert!(since.elapsed() < Duration::from_secs(10), "it was not found");
        let running: Vec<_> = (0..2).map(|_| app.start(&other())).collect();
        for answer in running {
            let answer = answer.await.expect("no panic");
            assert_eq!(answer.status(), 200, "{:?}", answer.text().await);
        }
        found = troubles(&app).await.into_iter().find(|(stuck, _)| *stuck == name);
        let counted = app.get("/metrics").await.text().await.expect("text");
        if counted.contains(&format!("arriero_wedges_total{{backend=\"{name}\"")) {
            break;
        }
    }
    let before = asked(&second);
    for _ in 0..4 {
        assert_eq!(app.ask(other()).await.0, 200);
    }
    assert!(asked(&second) > before, "the work has moved");
    if let Some((_, troubles)) = found {
        assert!(troubles[0]["why"].is_string() && troubles[0]["advice"].is_string() && troubles[0]["kind"].is_string(), "{troubles}");
    }
}

#[tokio::test]
async fn a_slot_that_was_lost_is_found() {
    is_found_and_left_alone(|fake| fake.leak_slot(None)).await;
}

#[tokio::test]
async fn a_runner_that_stands_still_is_found() {
    is_found_and_left_alone(|fake| fake.hang_runner(None)).await;
}

#[tokio::test]
async fn a_model_that_never_leaves_is_found() {
    let fake = fake(|script| script.max_loaded = 1).await;
    let app = TestApp::with(&[&fake], |config| {
        impatient(config);
        config.ollama[0].max_loaded = Some(1);
        config.queue.min_residence = Duration::from_millis(100);
    })
    .await;
    assert_eq!(app.ask(request(&json!({"num_predict": 2}))).await.0, 200);
    tokio::time::sleep(Duration::from_millis(1_300)).await;
    fake.deadlock();
    let other = app.start(&json!({"model": "q8", "prompt": "x", "options": {"num_predict": 2}}));
    eventually("that it is found", async || {
        let counted = app.get("/metrics").await.text().await.expect("text");
        counted.contains("kind=\"eviction_deadlock\"}")
    })
    .await;
    let answer = other.await.expect("no panic");
    let code = answer.status();
    let answer: Value = answer.json().await.expect("JSON");
    assert!(code == 200 || answer["code"] == "wedged", "{code} {answer}");
    eventually("that it is cured", async || app.ask(json!({"model": "q8", "prompt": "y", "options": {"num_predict": 2}})).await.0 == 200)
        .await;
}
