//! Servers that die, that fail, and that fail fast: what the others make of it.

use std::time::Duration;

use arriero::domain::principal::Role;
use arriero::gateway::OnCut;
use arriero_bench::fake::{FakeOllama, Fault, Midway, Model, Plan, Script, Text};
use serde_json::{Value, json};

use crate::support::{TestApp, asked, data, eventually, fake, load, text};

fn request(prompt: &str) -> Value {
    json!({"model": "gemma3:270m", "prompt": prompt, "options": {"num_predict": 12}})
}

#[tokio::test]
async fn when_one_of_three_dies_everyone_is_served() {
    let mut fakes = Vec::new();
    for _ in 0..3 {
        fakes.push(fake(|script| (script.prefill, script.slots) = (Duration::from_millis(400), 64)).await);
    }
    let app = TestApp::with(&fakes.iter().collect::<Vec<_>>(), |config| {
        config.ollama.iter_mut().for_each(|server| server.slots = Some(64));
        // Of so few requests, a third fail at the same moment.
        config.routing.retry.budget = 1.0;
    })
    .await;
    let mut running: Vec<_> = (0..30).map(|n| app.start(&request(&format!("{n}")))).collect();
    let victim = async {
        loop {
            if let Some(place) = fakes.iter().position(|fake| fake.seen(|seen| seen.generating > 0)) {
                return place;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let victim = fakes.remove(victim.await);
    let had = asked(&victim);
    victim.kill().await;
    running.extend((30..45).map(|n| app.start(&request(&format!("{n}")))));
    for answer in running {
        let answer = answer.await.expect("no panic");
        assert_eq!(answer.status(), 200, "{:?}", answer.text().await);
    }
    assert!(had > 0 && fakes.iter().map(asked).sum::<usize>() >= 45);
}

/// With the usual budget, of which a new gateway has next to nothing: a server that is gone hears nothing, so nothing is spent.
#[tokio::test]
async fn who_waits_for_a_server_that_dies_is_served_by_the_other() {
    let one_by_one = |script: &mut Script| (script.prefill, script.slots) = (Duration::from_millis(150), 1);
    let (victim, other) = (fake(one_by_one).await, fake(one_by_one).await);
    for fake in [&victim, &other] {
        load(fake, "gemma3:270m").await;
    }
    let (had, other_had) = (asked(&victim), asked(&other));
    let app = TestApp::with(&[&victim, &other], |config| config.ollama.iter_mut().for_each(|server| server.slots = Some(1))).await;
    let running: Vec<_> = (0..16).map(|n| app.start(&request(&format!("{n}")))).collect();
    eventually("both are at work", async || asked(&victim) > had && asked(&other) > other_had).await;
    victim.kill().await;
    for answer in running {
        let answer = answer.await.expect("no panic");
        assert_eq!(answer.status(), 200, "{:?}", answer.text().await);
    }
}

#[tokio::test]
async fn a_failure_before_the_first_byte_is_not_seen() {
    for fault in [Fault::ResetBeforeHeaders, Fault::CloseBeforeHeaders, Fault::status(500), Fault::After(0, Midway::ErrorLine)] {
        let (bad, good) = (fake(|_| {}).await, fake(|_| {}).await);
        let app = TestApp::with(&[&bad, &good], |_| {}).await;
        bad.fail(Plan::always(fault.clone()));
        for n in 0..12 {
            let body = request(&format!("{n}"));
            if n % 2 == 0 {
                assert_eq!(app.ask(body).await.0, 200, "{fault:?}");
            } else {
                let events = app.events(body).await;
                assert_eq!(events.last().expect("events").event, "done", "{fault:?}");
                assert_eq!(events.iter().filter(|event| event.event == "token").count(), 12, "{fault:?}");
            }
        }
        assert!(asked(&bad) > 0, "{fault:?}: it was never tried");
    }
}

#[tokio::test]
async fn a_failure_after_the_first_byte_ends_the_answer() {
    let (a, b) = (fake(|_| {}).await, fake(|_| {}).await);
    let app = TestApp::with(&[&a, &b], |_| {}).await;
    for fake in [&a, &b] {
        fake.fail(Plan::always(Fault::After(3, Midway::Close)));
    }
    let events = app.events(request("x")).await;
    assert_eq!(events.iter().filter(|event| event.event == "token").count(), 3);
    let last = events.last().expect("events");
    assert_eq!((last.event.as_str(), &data(last)["code"]), ("error", &json!("failed")));
    assert_eq!(asked(&a) + asked(&b), 1, "the other one was not asked");
}

/// Two servers with the same model. The one that is asked falls silent after five of twenty numbered pieces; the other one, asked to go on,
/// says what a real model would.
async fn cut(num_predict: i64, change: impl FnOnce(&mut Value)) -> (Vec<arriero_bench::sse::Event>, Vec<Value>) {
    let numbered = |from: usize| Text::Given((from..20).map(|n| format!(" t{n}")).collect());
    let mut fakes = Vec::new();
    for _ in 0..2 {
        let one = fake(|script| (script.text, script.token_gap) = (numbered(0), Duration::from_millis(40))).await;
        one.fail(Plan::always(Fault::After(5, Midway::Reset)));
        fakes.push(one);
    }
    let app = TestApp::with(&[&fakes[0], &fakes[1]], |config| config.generation.on_cut = OnCut::Continue).await;
    let mut body = json!({"model": "gemma3:270m", "prompt": "Count", "options": {"num_predict": num_predict}});
    change(&mut body);
    let mut listener = app.listen(body).await;
    let mut events = listener.until("token", 1).await;
    let other: &FakeOllama = if asked(&fakes[0]) == 0 { &fakes[0] } else { &fakes[1] };
    other.fail(Plan::none());
    other.adjust(|script| script.text = numbered(5));
    events.extend(listener.rest().await);
    let sent = other.requests().into_iter().filter(|request| request.path == "/api/generate").map(|request| request.json()).collect();
    (events, sent)
}

#[tokio::test]
async fn an_answer_that_is_cut_goes_on_at_a_twin() {
    let (events, sent) = cut(20, |_| {}).await;
    let whole = (0..20).map(|n| format!(" t{n}")).collect::<Vec<_>>().concat();
    assert_eq!(text(&events), whole, "nothing is lost, nothing comes twice");
    let done = data(events.last().expect("events"));
    assert_eq!((&done["done"], &done["eval_count"]), (&json!(true), &json!(20)), "{done}");
    let changed = done["arriero"]["changed"].as_array().expect("a list");
    assert!(changed.iter().any(|change| change["field"] == "backend" && change["from"] != change["to"]), "{done}");
    let last = sent.last().expect("it was asked");
    assert_eq!((&last["raw"], &last["options"]["num_predict"]), (&json!(true), &json!(15)), "{last}");
    assert!(last["prompt"].as_str().expect("text").ends_with("Count t0 t1 t2 t3 t4"), "{last}");
}

#[tokio::test]
async fn a_raw_answer_that_was_at_its_end_is_whole() {
    let (events, sent) = cut(5, |body| body["raw"] = json!(true)).await;
    assert_eq!(text(&events), " t0 t1 t2 t3 t4");
    assert_eq!((events.last().expect("events").event.as_str(), sent.len()), ("done", 0), "nobody need be asked for nothing");
}

#[tokio::test]
async fn what_cannot_be_continued_ends_with_the_error() {
    let (events, sent) = cut(20, |body| body["format"] = json!({"type": "object"})).await;
    let last = events.last().expect("events");
    assert_eq!((last.event.as_str(), sent.len()), ("error", 0), "{events:?}");
}

#[tokio::test]
async fn who_sees_nothing_before_the_end_loses_nothing_by_a_cut() {
    let numbered = || fake(|script| script.text = Text::Numbered(12));
    let (bad, good, other) = (numbered().await, numbered().await, numbered().await);
    let whole = TestApp::spawn(&other).await.ask(request("whole")).await.1["response"].clone();
    bad.fail(Plan::always(Fault::After(5, Midway::Reset)));
    let app = TestApp::with(&[&bad, &good], |config| config.routing.retry.budget = 1.0).await;
    let mut begun_anew = 0;
    for n in 0..6 {
        let (status, answer) = app.ask(request(&format!("{n}"))).await;
        assert_eq!((status, &answer["response"]), (200, &whole), "{answer}");
        begun_anew += usize::from(answer["arriero"]["changed"].to_string().contains("begun anew"));
    }
    assert!(begun_anew >= 1, "the first backend was never asked");
}

#[tokio::test]
async fn who_fails_fast_attracts_nothing() {
    let (bad, good) = (fake(|_| {}).await, fake(|script| script.prefill = Duration::from_millis(5)).await);
    let app = TestApp::with(&[&bad, &good], |_| {}).await;
    bad.fail(Plan::always(Fault::status(500)));
    for n in 0..80 {
        assert_eq!(app.ask(request(&format!("{n}"))).await.0, 200, "number {n}");
    }
    assert!((1..=16).contains(&asked(&bad)), "{} of 80", asked(&bad));
    let backends: Value = app.get("/admin/backends").await.json().await.expect("JSON");
    assert_eq!(backends["backends"].as_array().map(Vec::len), Some(2), "{backends}");
}

#[tokio::test]
async fn retry_after_is_obeyed() {
    let (busy, good) = (fake(|_| {}).await, fake(|_| {}).await);
    let app = TestApp::with(&[&busy, &good], |_| {}).await;
    busy.fail(Plan::always(Fault::status(503).retry_after(60)));
    for n in 0..40 {
        assert_eq!(app.ask(request(&format!("{n}"))).await.0, 200, "number {n}");
    }
    assert_eq!((asked(&busy), asked(&good)), (1, 40));
}

#[tokio::test]
async fn a_model_whose_only_backend_is_known_to_be_down_is_refused_and_not_waited_for() {
    let (only, spare) = (fake(|_| {}).await, fake(|script| script.models = vec![Model::new("spare")]).await);
    let app = TestApp::with(&[&only, &spare], |config| {
        config.auth.anonymous.role = Role::Operator;
        config.ollama[0].probe_interval = Duration::from_millis(50);
        let alias = "name = \"smart\"\nsteps = [{ model = \"gemma3:270m\" }, { model = \"spare\" }]";
        config.routing.alias = vec![toml::from_str(alias).expect("an alias")];
    })
    .await;
    assert_eq!(app.ask(request("1")).await.0, 200);
    only.adjust(|script| script.token_gap = Duration::from_secs(30));
    let waits = app.start(&json!({"model": "gemma3:270m", "prompt": "2", "options": {"num_predict": 12}}));
    eventually("it is being answered", async || only.seen(|seen| seen.generating > 0)).await;
    only.kill().await;
    assert_eq!(waits.await.expect("no panic").status(), 502);
    eventually("it is seen to be down", async || {
        let backends: Value = app.get("/admin/backends").await.json().await.expect("JSON");
        backends["backends"][0]["health"] == "down"
    })
    .await;
    for n in 0..3 {
        let asked = tokio::time::timeout(Duration::from_secs(10), app.ask(request(&format!("again {n}")))).await;
        let (code, problem) = asked.expect("an answer at once");
        assert_eq!((code, &problem["code"]), (502, &json!("unreachable")), "{problem}");
        let asked = tokio::time::timeout(Duration::from_secs(10), app.ask(json!({"model": "smart", "prompt": format!("{n}")}))).await;
        let (code, answer) = asked.expect("an answer at once");
        assert_eq!((code, &answer["arriero"]["model"]), (200, &json!("spare")), "{answer}");
    }
}
