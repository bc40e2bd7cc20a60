//! Waiting for a turn, seen from the outside: how many run, who goes first, what those who wait are told.

use std::time::Duration;

use arriero::config::Config;
use arriero_bench::fake::{FakeOllama, Model, Text};
use serde_json::{Value, json};

use crate::keys::{guarded, make};
use crate::support::{Listener, TestApp, data, eventually, fake, prompts};

const MODEL: &str = "gemma3:270m";

fn request(prompt: &str, tokens: u64) -> Value {
    json!({"model": MODEL, "prompt": prompt, "options": {"num_predict": tokens}})
}

fn slots(count: u32) -> impl FnOnce(&mut Config) {
    move |config| {
        config.ollama[0].slots = Some(count);
        config.queue.tell_every = Duration::from_millis(20);
    }
}

/// A server whose only slot is taken for as long as what comes back is kept.
async fn occupied(change: impl FnOnce(&mut Config)) -> (FakeOllama, TestApp, Listener) {
    let fake = fake(|script| (script.token_gap, script.text) = (Duration::from_millis(2), Text::Words(1_000_000))).await;
    let app = TestApp::with(&[&fake], |config| {
        slots(1)(config);
        change(config);
    })
    .await;
    let mut occupant = app.listen(request("occupant", 1_000_000)).await;
    occupant.until("token", 1).await;
    (fake, app, occupant)
}

#[tokio::test]
async fn no_more_run_upstream_than_there_are_slots() {
    let fake = fake(|script| (script.slots, script.token_gap) = (16, Duration::from_millis(2))).await;
    let app = TestApp::with(&[&fake], slots(2)).await;
    let running: Vec<_> = (0..12).map(|n| app.start(&request(&format!("number {n}"), 15))).collect();
    for answer in running {
        assert_eq!(answer.await.expect("no panic").status(), 200);
    }
    assert_eq!(fake.seen(|seen| (seen.max_in_flight, seen.on("/api/generate").count())), (2, 12));
}

#[tokio::test]
async fn who_waits_is_told_where_and_for_how_long() {
    let fake = fake(|script| script.token_gap = Duration::from_millis(5)).await;
    let app = TestApp::with(&[&fake], slots(1)).await;
    for n in 0..3 {
        assert_eq!(app.ask(request(&format!("known {n}"), 20)).await.0, 200, "so that it is known how long one takes");
    }
    let mut ahead = vec![app.start(&request("first", 20))];
    fake.wait_for(|seen| seen.generating == 1).await.expect("it runs");
    for (n, prompt) in ["second", "third"].iter().enumerate() {
        ahead.push(app.start(&request(prompt, 20)));
        app.until_waiting(n as u64 + 1).await;
    }
    let events = app.listen(request("fourth", 20)).await.rest().await;
    let queued: Vec<Value> = events.iter().filter(|event| event.event == "queued").map(data).collect();
    let positions: Vec<u64> = queued.iter().filter_map(|event| event["position"].as_u64()).collect();
    assert_eq!((positions.first(), positions.last()), (Some(&3), Some(&1)), "{queued:?}");
    assert!(positions.windows(2).all(|pair| pair[0] >= pair[1]), "{positions:?}");
    assert!(queued.iter().all(|event| event["reason"] == "busy" && event["eta_ms"].is_u64()), "{queued:?}");
    let etas: Vec<u64> = queued.iter().filter_map(|event| event["eta_ms"].as_u64()).collect();
    assert!(etas.last() < etas.first(), "{etas:?}");
    let names: Vec<&str> = events.iter().map(|event| event.event.as_str()).collect();
    assert_eq!(names.iter().rposition(|name| *name == "queued").map(|last| names[last + 1]), Some("start"), "{names:?}");
    assert_eq!(names.last(), Some(&"done"));
    for answer in ahead {
        assert_eq!(answer.await.expect("no panic").status(), 200);
    }
    assert_eq!(prompts(&fake)[3..], ["first", "second", "third", "fourth"]);
}

#[tokio::test]
async fn who_does_not_stream_is_told_in_headers_and_operators_see_the_queue() {
    let (_fake, app, occupant) = occupied(|_| {}).await;
    let waiting = app.start(&request("waits", 5));
    app.until_waiting(1).await;
    let queue = app.queue().await;
    let waiter = &queue["requests"][0];
    assert_eq!((&waiter["ahead"], &waiter["reason"], &waiter["class"]), (&json!(0), &json!("busy"), &json!("normal")), "{queue}");
    let runner = &queue["backends"][0]["runners"][0];
    assert_eq!((&runner["slots"], &runner["in_flight"], &runner["resident"]), (&json!(1), &json!(1), &json!(true)), "{queue}");
    drop(occupant);
    let answer = waiting.await.expect("no panic");
    let header = |name: &str| answer.headers()[name].to_str().expect("text").to_owned();
    assert!(header("x-arriero-queue-wait-ms").parse::<u64>().expect("a number") > 0);
    assert_eq!(header("x-arriero-queue-reason"), "busy");
}

#[tokio::test]
async fn who_leaves_makes_room() {
    let (fake, app, occupant) = occupied(|_| {}).await;
    let leaver = app.start(&request("leaves", 5));
    app.until_waiting(1).await;
    let mut stays = app.listen(request("stays", 5)).await;
    assert_eq!(data(&stays.next().await.expect("news"))["position"], 2);
    leaver.abort();
    loop {
        let event = stays.next().await.expect("news");
        assert_eq!(event.event, "queued");
        if data(&event)["position"] == 1 {
            break;
        }
    }
    app.until_waiting(1).await;
    drop(occupant);
    assert_eq!(stays.rest().await.last().expect("events").event, "done");
    assert_eq!(prompts(&fake), ["occupant", "stays"], "nobody asked for the one who left");
}

#[tokio::test]
async fn the_urgent_go_before_the_rest() {
    let (fake, app, occupant) = occupied(|_| {}).await;
    let mut waiting = Vec::new();
    for (n, (prompt, priority)) in [("b1", "batch"), ("b2", "batch"), ("n", "normal"), ("u", "urgent")].iter().enumerate() {
        let mut body = request(prompt, 5);
        body["priority"] = json!(priority);
        waiting.push(app.start(&body));
        app.until_waiting(n as u64 + 1).await;
    }
    drop(occupant);
    for answer in waiting {
        assert_eq!(answer.await.expect("no panic").status(), 200);
    }
    assert_eq!(prompts(&fake), ["occupant", "u", "n", "b1", "b2"]);
}

#[tokio::test]
async fn a_full_queue_refuses_at_once() {
    let (fake, app, occupant) = occupied(|config| config.queue.max_waiting = 1).await;
    let waiting = app.start(&request("waits", 5));
    app.until_waiting(1).await;
    for stream in [false, true] {
        let mut body = request("too many", 5);
        body["stream"] = json!(stream);
        let refused = app.post(body).await;
        assert_eq!(refused.status(), 503);
        let seconds: u64 = refused.headers()["retry-after"].to_str().expect("text").parse().expect("a number");
        assert!(seconds >= 1);
        let problem: Value = refused.json().await.expect("JSON");
        assert_eq!(problem["code"], "queue_full", "{problem}");
    }
    // An urgent one takes the place of the one that waits, which is told so.
    let mut urgent = request("urgent", 5);
    urgent["priority"] = json!("urgent");
    let urgent = app.start(&urgent);
    let displaced = waiting.await.expect("no panic");
    assert_eq!((displaced.status().as_u16(), displaced.headers().contains_key("retry-after")), (503, true));
    assert_eq!(displaced.json::<Value>().await.expect("JSON")["code"], "displaced");
    drop(occupant);
    assert_eq!(urgent.await.expect("no panic").status(), 200);
    assert_eq!(prompts(&fake), ["occupant", "urgent"]);
}

#[tokio::test]
async fn a_deadline_that_cannot_be_met_is_refused_at_once() {
    let fake = fake(|script| script.token_gap = Duration::from_millis(10)).await;
    let app = TestApp::with(&[&fake], slots(1)).await;
    for n in 0..4 {
        assert_eq!(app.ask(request(&format!("known {n}"), 30)).await.0, 200);
    }
    let running: Vec<_> = (0..4).map(|n| app.start(&request(&format!("running {n}"), 30))).collect();
    app.until_waiting(3).await;
    let mut body = request("in a hurry", 30);
    body["deadline_ms"] = json!(400);
    let (status, problem) = app.ask(body.clone()).await;
    // `deadline` would say that it waited in vain.
    assert_eq!((status, &problem["code"]), (503, &json!("queue_too_long")), "{problem}");
    body["deadline_ms"] = json!(15_000);
    assert_eq!(app.ask(body).await.0, 200, "with time enough it is served");
    for answer in running {
        assert_eq!(answer.await.expect("no panic").status(), 200);
    }
}

#[tokio::test]
async fn one_tenant_does_not_crowd_out_another() {
    let fake = fake(|script| (script.token_gap, script.text) = (Duration::from_millis(1), Text::Words(1_000_000))).await;
    let (app, first) = guarded(&fake, slots(1)).await;
    let waiting = async |wanted: u64| {
        eventually("they wait", async || {
            let queue = app.client.get(format!("{}/admin/queue", app.url)).bearer_auth(&first).send().await.expect("an answer");
            queue.json::<Value>().await.expect("JSON")["waiting"] == wanted
        })
        .await;
    };
    let (loud, _) = make(&app, &first, json!({"name": "loud"})).await;
    let (quiet, _) = make(&app, &first, json!({"name": "quiet"})).await;
    let start = |key: &str, prompt: String| {
        let request = app.client.post(format!("{}/generate", app.url)).bearer_auth(key).json(&request(&prompt, 20));
        tokio::spawn(async move { request.send().await.expect("an answer").status() })
    };
    let mut endless = request("occupant", 1_000_000);
    endless["stream"] = json!(true);
    let mut occupant = Listener::new(app.post_as(&first, endless).await);
    occupant.until("token", 1).await;
    let mut answers: Vec<_> = (0..20).map(|n| start(&loud, format!("loud {n}"))).collect();
    waiting(20).await;
    answers.extend((0..5).map(|n| start(&quiet, format!("quiet {n}"))));
    waiting(25).await;
    drop(occupant);
    for answer in answers {
        assert_eq!(answer.await.expect("no panic"), 200);
    }
    let last = prompts(&fake).iter().rposition(|prompt| prompt.starts_with("quiet")).expect("asked");
    // In the order of arrival it would be the last of 25; by turns it is the tenth or eleventh.
    assert!(last <= 13, "{:?}", prompts(&fake));
}

#[tokio::test]
async fn two_models_that_do_not_fit_together_take_turns_of_some_length() {
    let fake = fake(|script| {
        script.models = vec![Model::new("a"), Model::new("b")];
        (script.max_loaded, script.load_time, script.token_gap) = (1, Duration::from_millis(150), Duration::from_millis(2));
    })
    .await;
    let app = TestApp::with(&[&fake], |config| {
        config.ollama[0].slots = Some(1);
        config.ollama[0].max_loaded = Some(1);
        config.queue.min_residence = Duration::from_millis(300);
    })
    .await;
    let ask =
        |n: usize| json!({"model": if n.is_multiple_of(2) { "a" } else { "b" }, "prompt": format!("{n}"), "options": {"num_predict": 10}});
    let running: Vec<_> = (0..40).map(|n| app.start(&ask(n))).collect();
    for answer in running {
        assert_eq!(answer.await.expect("no panic").status(), 200);
    }
    let (loads, a, b) = fake.seen(|seen| (seen.loads, seen.models["a:latest"].requests, seen.models["b:latest"].requests));
    assert!(a >= 20 && b >= 20);
    // In the order of arrival each of the forty would load its model.
    assert!(loads <= 8, "{loads} loads");
}
