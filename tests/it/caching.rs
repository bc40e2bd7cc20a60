//! Answers that need not be computed again: the same, kept, joined, forgotten, and never those that must not be.

use std::time::Duration;

use arriero::domain::principal::Role;
use arriero_bench::fake::{Fault, Midway, Plan};
use reqwest::Method;
use serde_json::{Value, json};

use crate::keys::{admin, guarded, make};
use crate::support::{TestApp, asked, data, eventually, fake, text};

fn request(prompt: &str) -> Value {
    json!({"model": "gemma3:270m", "prompt": prompt, "options": {"temperature": 0, "seed": 1, "num_predict": 12}})
}

fn with(mut body: Value, field: &str, value: impl Into<Value>) -> Value {
    body[field] = value.into();
    body
}

fn status(answer: &Value) -> &str {
    answer["arriero"]["cache"]["status"].as_str().unwrap_or("none")
}

/// Status of the cache for a request that must succeed.
async fn ask(app: &TestApp, body: Value) -> String {
    let (code, answer) = app.ask(body).await;
    assert_eq!(code, 200, "{answer}");
    status(&answer).to_owned()
}

#[tokio::test]
async fn the_same_question_is_answered_once() {
    let fake = fake(|_| {}).await;
    let app = TestApp::spawn(&fake).await;
    let (_, first) = app.ask(request("a")).await;
    let (_, second) = app.ask(request("a")).await;
    assert_eq!((status(&first), status(&second)), ("miss", "hit"), "{second}");
    assert!(second["arriero"]["cache"]["age_ms"].is_u64() && second["arriero"]["backend"] == "cache", "{second}");
    for field in ["response", "done_reason", "eval_count", "prompt_eval_count", "context"] {
        assert_eq!(first[field], second[field], "{field}");
    }
    assert_eq!(asked(&fake), 1);
    assert_eq!(ask(&app, request("b")).await, "miss");
    assert_eq!(ask(&app, with(request("a"), "system", "Be brief.")).await, "miss");
}

#[tokio::test]
async fn a_stream_is_given_again_piece_by_piece() {
    let fake = fake(|_| {}).await;
    let app = TestApp::spawn(&fake).await;
    let pieces = |events: &[arriero_bench::sse::Event]| {
        events.iter().filter(|event| event.event == "token").map(|event| event.data.clone()).collect::<Vec<_>>()
    };
    let first = app.events(request("a")).await;
    let second = app.events(request("a")).await;
    assert_eq!(pieces(&first).len(), 12);
    assert_eq!(pieces(&first), pieces(&second));
    assert_eq!(status(&data(second.last().expect("events"))), "hit");
    let (_, whole) = app.ask(request("a")).await;
    assert_eq!((whole["response"].as_str(), status(&whole)), (Some(text(&first).as_str()), "hit"), "streamed or not is no matter");
    assert_eq!(asked(&fake), 1);
}

#[tokio::test]
async fn answers_survive_a_restart() {
    let fake = fake(|_| {}).await;
    let app = TestApp::spawn(&fake).await;
    let (_, first) = app.ask(request("a")).await;
    let data = app.end().await;
    let app = TestApp::on(data, &[&fake], |_| {}).await;
    let (_, second) = app.ask(request("a")).await;
    assert_eq!((status(&second), &second["response"]), ("hit", &first["response"]), "{second}");
    assert_eq!(asked(&fake), 1);
}

#[tokio::test]
async fn a_client_says_what_it_wants_of_the_cache() {
    let fake = fake(|_| {}).await;
    let app = TestApp::spawn(&fake).await;
    let wish = |wish: &str| with(request("a"), "cache", wish);
    let (code, problem) = app.ask(wish("only")).await;
    assert_eq!((code, &problem["code"]), (504, &json!("not_cached")), "{problem}");
    assert_eq!(ask(&app, wish("bypass")).await, "bypass");
    assert_eq!(ask(&app, wish("default")).await, "miss", "what bypasses the cache is not kept either");
    assert_eq!(ask(&app, wish("only")).await, "hit");
    assert_eq!(ask(&app, wish("bypass")).await, "bypass");
    assert_eq!(asked(&fake), 3);
    assert_eq!(ask(&app, wish("refresh")).await, "refresh");
    assert_eq!((asked(&fake), ask(&app, wish("only")).await.as_str()), (4, "hit"));
}

#[tokio::test]
async fn what_may_differ_is_asked_anew() {
    let fake = fake(|_| {}).await;
    let app = TestApp::spawn(&fake).await;
    let free = json!({"model": "gemma3:270m", "prompt": "a", "options": {"temperature": 0.8, "num_predict": 3}});
    assert_ne!(ask(&app, free.clone()).await, "hit");
    assert_ne!(ask(&app, free.clone()).await, "hit");
    assert_eq!(asked(&fake), 2);
    let seeded = json!({"model": "gemma3:270m", "prompt": "a", "options": {"temperature": 0.8, "seed": 4, "num_predict": 3}});
    assert_eq!((ask(&app, seeded.clone()).await.as_str(), ask(&app, seeded).await.as_str()), ("miss", "hit"));
    // It may be kept, and given again, when the client says so.
    let wished = with(free, "cache", "refresh");
    ask(&app, wished).await;
    assert_eq!(asked(&fake), 4);
}

#[tokio::test]
async fn failures_and_cut_answers_are_not_kept() {
    let fake = fake(|_| {}).await;
    let app = TestApp::spawn(&fake).await;
    for (n, fault) in [Fault::After(3, Midway::Close), Fault::After(3, Midway::EndWithoutDone), Fault::status(500)].into_iter().enumerate()
    {
        let body = request(&format!("number {n}"));
        fake.fail(Plan::next(1, fault.clone()));
        assert!(app.ask(body.clone()).await.0 >= 500, "{fault:?}");
        assert_eq!(ask(&app, body.clone()).await, "miss", "{fault:?}");
        assert_eq!(ask(&app, body).await, "hit", "{fault:?}");
    }
    // Nor one whose client has left.
    fake.adjust(|script| script.token_gap = Duration::from_millis(10));
    let mut leaver = app.listen(request("left")).await;
    leaver.until("token", 2).await;
    drop(leaver);
    fake.wait_for(|seen| seen.in_flight == 0).await.expect("the work stops");
    assert_eq!(ask(&app, request("left")).await, "miss");
}

#[tokio::test]
async fn tenants_do_not_see_each_others_answers_and_answers_are_forgotten_on_demand() {
    let fake = fake(|_| {}).await;
    let (app, first) = guarded(&fake, |_| {}).await;
    let (a, _) = make(&app, &first, json!({"name": "a"})).await;
    let (a2, _) = make(&app, &first, json!({"name": "a2", "tenant": "a"})).await;
    let (b, _) = make(&app, &first, json!({"name": "b"})).await;
    let ask = async |key: &str| {
        let answer = app.post_as(key, request("a")).await;
        status(&answer.json().await.expect("JSON")).to_owned()
    };
    assert_eq!((ask(&a).await, ask(&b).await), ("miss".into(), "miss".into()));
    assert_eq!((ask(&a).await, ask(&a2).await, ask(&b).await), ("hit".into(), "hit".into(), "hit".into()));
    for (which, a_has_it, b_has_it) in [("tenant=a", "miss", "hit"), ("model=gemma3:270m", "miss", "miss"), ("all=true", "miss", "miss")] {
        let (code, purged) = admin(&app, &first, Method::DELETE, &format!("cache?{which}"), json!({})).await;
        assert!(code == 200 && purged["purged"].as_u64() >= Some(1), "{which}: {code} {purged}");
        assert_eq!((ask(&a).await, ask(&b).await), (a_has_it.into(), b_has_it.into()), "{which}");
    }
    let (code, _) = admin(&app, &first, Method::DELETE, "cache?model=other", json!({})).await;
    assert_eq!((code, ask(&a).await.as_str()), (200, "hit"));
    assert_eq!(admin(&app, &first, Method::DELETE, "cache?all=true&tenant=a", json!({})).await.0, 422);
}

#[tokio::test]
async fn equal_requests_that_run_at_once_are_one() {
    let fake = fake(|script| script.token_gap = Duration::from_millis(10)).await;
    let app = TestApp::spawn(&fake).await;
    let running: Vec<_> = (0..16).map(|_| app.start(&request("a"))).collect();
    let mut answers = Vec::new();
    for answer in running {
        answers.push(answer.await.expect("no panic").json::<Value>().await.expect("JSON"));
    }
    assert_eq!(asked(&fake), 1);
    assert!(answers.iter().all(|answer| answer["response"] == answers[0]["response"] && answer["eval_count"] == 12), "{answers:?}");
    let count = |wanted: &str| answers.iter().filter(|answer| status(answer) == wanted).count();
    assert_eq!((count("miss"), count("joined")), (1, 15));
}

#[tokio::test]
async fn who_joins_late_misses_nothing_and_the_work_ends_with_the_last() {
    let fake = fake(|script| script.token_gap = Duration::from_millis(15)).await;
    let app = TestApp::spawn(&fake).await;
    let expected = {
        let quick = crate::support::fake(|_| {}).await;
        TestApp::spawn(&quick).await.ask(request("a")).await.1["response"].as_str().expect("text").to_owned()
    };
    let mut first = app.listen(request("a")).await;
    first.until("token", 4).await;
    let mut late = app.listen(request("a")).await;
    let mut heard = late.until("token", 1).await;
    drop(first);
    heard.extend(late.rest().await);
    assert_eq!(text(&heard), expected, "nothing is missing");
    assert_eq!(status(&data(heard.last().expect("events"))), "joined");
    assert_eq!((asked(&fake), fake.seen(|seen| seen.aborted)), (1, 0), "it did not end with the first");
    assert_eq!(ask(&app, request("a")).await, "hit", "it was kept although the first had left");

    fake.adjust(|script| script.token_gap = Duration::from_millis(50));
    let mut both = [app.listen(request("b")).await, app.listen(request("b")).await];
    for one in &mut both {
        one.until("token", 1).await;
    }
    drop(both);
    fake.wait_for(|seen| seen.aborted == 1 && seen.in_flight == 0).await.expect("the work stops with the last");
    assert_eq!(asked(&fake), 2);
}

#[tokio::test]
async fn a_failure_reaches_all_who_share_it() {
    let fake = fake(|script| script.prefill = Duration::from_millis(200)).await;
    let app = TestApp::spawn(&fake).await;
    fake.fail(Plan::always(Fault::After(0, Midway::ErrorLine)));
    let running: Vec<_> = (0..4).map(|_| app.start(&request("a"))).collect();
    for answer in running {
        let answer = answer.await.expect("no panic");
        assert_eq!(answer.status(), 502);
        assert_eq!(answer.json::<Value>().await.expect("JSON")["code"], "failed");
    }
    assert_eq!(asked(&fake), 1);
}

#[tokio::test]
async fn another_model_of_the_same_name_is_another_model() {
    let fake = fake(|_| {}).await;
    let app = TestApp::with(&[&fake], |config| config.auth.anonymous.role = Role::Admin).await;
    assert_eq!(ask(&app, request("a")).await, "miss");
    assert_eq!(ask(&app, request("a")).await, "hit");
    fake.adjust(|script| {
        for model in script.models.iter_mut().filter(|model| model.name == "gemma3:270m") {
            model.digest = "0".repeat(64);
        }
    });
    // Once the list of models was read again.
    eventually("that the new model is asked", async || ask(&app, request("a")).await == "miss").await;
    assert_eq!(asked(&fake), 2);
    assert_eq!(ask(&app, request("a")).await, "hit");
}
