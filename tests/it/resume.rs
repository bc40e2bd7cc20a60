//! Generations that outlive their clients, and clients that come back.

use std::time::Duration;

use arriero_bench::fake::{FakeOllama, Text};
use arriero_bench::sse::Event;
use reqwest::{Method, Response};
use serde_json::{Value, json};

use crate::keys::{admin, guarded, make};
use crate::support::{Listener, TestApp, asked, data, eventually, fake, text};

const PIECES: usize = 30;

fn request(detach: bool) -> Value {
    json!({
        "model": "gemma3:270m", "prompt": "Count", "stream": true, "detach": detach,
        "options": {"num_predict": PIECES}
    })
}

fn whole() -> String {
    (0..PIECES).map(|n| format!(" t{n}")).collect::<Vec<_>>().concat()
}

async fn counting() -> FakeOllama {
    fake(|script| (script.text, script.token_gap) = (Text::Numbered(PIECES), Duration::from_millis(25))).await
}

fn number(event: &Event) -> u64 {
    event.id.as_deref().and_then(|id| id.rsplit_once('/')).and_then(|(_, number)| number.parse().ok()).expect("a numbered event")
}

fn request_id(events: &[Event]) -> String {
    events[0].id.as_deref().and_then(|id| id.rsplit_once('/')).expect("an id").0.to_owned()
}

/// The events go on from one to the next.
fn assert_in_order(events: &[Event]) {
    let numbers: Vec<u64> = events.iter().map(number).collect();
    assert!(numbers.windows(2).all(|pair| pair[1] == pair[0] + 1), "{numbers:?}");
}

async fn read(app: &TestApp, key: Option<&str>, method: Method, id: &str, headers: &[(&str, &str)]) -> Response {
    let path = if method == Method::POST { "/generate".to_owned() } else { format!("/generate/{id}") };
    let mut request = app.client.request(method, format!("{}{path}", app.url));
    if let Some(key) = key {
        request = request.bearer_auth(key);
    }
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    request.send().await.expect("an answer")
}

const EVENTS: (&str, &str) = ("accept", "text/event-stream");

#[tokio::test]
async fn a_detached_generation_goes_on_and_can_be_read_again() {
    let fake = counting().await;
    let app = TestApp::spawn(&fake).await;
    let mut listener = app.listen(request(true)).await;
    let heard = listener.until("token", 3).await;
    drop(listener);
    let id = request_id(&heard);
    let running = read(&app, None, Method::GET, &id, &[]).await;
    assert_eq!(running.status(), 202);
    let running: Value = running.json().await.expect("JSON");
    assert_eq!((&running["request_id"], &running["state"]), (&json!(id), &json!("running")));

    // While it runs: from the start, and from where the client was.
    let last = heard.last().expect("events").id.clone().expect("an id");
    let again = Listener::new(read(&app, None, Method::GET, &id, &[EVENTS, ("last-event-id", &last)]).await);
    let from_start = Listener::new(read(&app, None, Method::GET, &id, &[EVENTS]).await);
    let posted = Listener::new(read(&app, None, Method::POST, &id, &[("last-event-id", &last)]).await);
    let (again, from_start, posted) = tokio::join!(again.rest(), from_start.rest(), posted.rest());
    for rest in [again, posted] {
        assert_eq!(number(&rest[0]), number(heard.last().expect("events")) + 1);
        assert_in_order(&rest);
        assert_eq!(format!("{}{}", text(&heard), text(&rest)), whole(), "nothing is lost, nothing comes twice");
        assert_eq!(rest.last().expect("events").event, "done");
    }
    assert_eq!((number(&from_start[0]), from_start[0].event.as_str(), text(&from_start)), (0, "start", whole()));
    assert_in_order(&from_start);

    // After its end: the same, and the whole answer.
    let answer = read(&app, None, Method::GET, &id, &[]).await;
    assert_eq!(answer.status(), 200);
    let answer: Value = answer.json().await.expect("JSON");
    assert_eq!((answer["response"].as_str(), &answer["eval_count"]), (Some(whole().as_str()), &json!(PIECES)));
    let later = Listener::new(read(&app, None, Method::GET, &id, &[EVENTS, ("last-event-id", &last)]).await).rest().await;
    assert_eq!(format!("{}{}", text(&heard), text(&later)), whole());
    assert_eq!((asked(&fake), fake.seen(|seen| seen.aborted)), (1, 0));
}

#[tokio::test]
async fn a_detached_generation_is_stopped_on_demand() {
    let fake = counting().await;
    let app = TestApp::spawn(&fake).await;
    let mut listener = app.listen(request(true)).await;
    let id = request_id(&listener.until("token", 1).await);
    drop(listener);
    assert_eq!(read(&app, None, Method::DELETE, &id, &[]).await.status(), 204);
    fake.wait_for(|seen| seen.aborted == 1).await.expect("the work stops");
    assert_eq!(read(&app, None, Method::GET, &id, &[]).await.status(), 404);
    assert_eq!(read(&app, None, Method::DELETE, &id, &[]).await.status(), 404);
}

#[tokio::test]
async fn an_answer_out_of_the_cache_can_be_read_again_like_any_other() {
    let fake = counting().await;
    let app = TestApp::spawn(&fake).await;
    let mut body = request(true);
    body["options"]["seed"] = json!(1);
    // The first computes it, the second joins that, the third has it from the cache.
    let (mut first, mut second) = (app.listen(body.clone()).await, app.listen(body.clone()).await);
    let ids = [request_id(&first.until("token", 1).await), request_id(&second.until("token", 1).await)];
    assert_ne!(ids[0], ids[1]);
    drop((first, second));
    for id in &ids {
        eventually("the answer", async || {
            let answer = read(&app, None, Method::GET, id, &[]).await;
            assert!(answer.status().is_success(), "{}", answer.status());
            answer.status() == 200
        })
        .await;
    }
    let third = app.listen(body).await.rest().await;
    let answer = read(&app, None, Method::GET, &request_id(&third), &[]).await;
    assert_eq!((answer.status().as_u16(), asked(&fake)), (200, 1));
    assert_eq!(answer.json::<Value>().await.expect("JSON")["response"], whole());
}

#[tokio::test]
async fn without_detach_the_work_ends_with_its_client() {
    let fake = counting().await;
    let app = TestApp::spawn(&fake).await;
    let mut listener = app.listen(request(false)).await;
    let id = request_id(&listener.until("token", 1).await);
    drop(listener);
    fake.wait_for(|seen| seen.aborted == 1).await.expect("the work stops");
    assert_eq!(read(&app, None, Method::GET, &id, &[]).await.status(), 404);
}

#[tokio::test]
async fn a_client_whose_connection_broke_has_a_while_to_come_back() {
    let fake = counting().await;
    let app = TestApp::with(&[&fake], |config| config.generation.kept.resume_window = Duration::from_secs(5)).await;
    let mut listener = app.listen(request(false)).await;
    let heard = listener.until("token", 4).await;
    drop(listener);
    tokio::time::sleep(Duration::from_millis(100)).await;
    let last = heard.last().expect("events").id.clone().expect("an id");
    let rest = Listener::new(read(&app, None, Method::POST, "", &[("last-event-id", &last)]).await).rest().await;
    assert_eq!(format!("{}{}", text(&heard), text(&rest)), whole());
    assert_eq!((asked(&fake), fake.seen(|seen| seen.aborted)), (1, 0));

    let app = TestApp::with(&[&fake], |config| config.generation.kept.resume_window = Duration::from_millis(200)).await;
    fake.adjust(|script| script.token_gap = Duration::from_millis(500));
    let mut listener = app.listen(request(false)).await;
    listener.until("token", 1).await;
    drop(listener);
    fake.wait_for(|seen| seen.aborted == 1).await.expect("the work stops when the while is over");
}

#[tokio::test]
async fn ids_of_others_lead_nowhere() {
    let fake = counting().await;
    let (app, first) = guarded(&fake, |_| {}).await;
    let (a, _) = make(&app, &first, json!({"name": "a"})).await;
    let (b, _) = make(&app, &first, json!({"name": "b"})).await;
    let mut listener = Listener::new(app.post_as(&a, request(true)).await);
    let id = request_id(&listener.until("token", 1).await);
    let point = format!("{id}/0");
    for (method, headers) in [
        (Method::GET, vec![]),
        (Method::GET, vec![EVENTS]),
        (Method::POST, vec![("last-event-id", point.as_str())]),
        (Method::DELETE, vec![]),
    ] {
        let refused = read(&app, Some(&b), method.clone(), &id, &headers).await;
        assert_eq!(refused.status(), 404, "{method} {headers:?}");
        assert_eq!(refused.json::<Value>().await.expect("JSON")["code"], "generation_not_found");
    }
    assert_eq!(text(&listener.rest().await).matches('t').count(), PIECES - 1, "it went on");
    assert_eq!(read(&app, Some(&a), Method::GET, &id, &[]).await.status(), 200);
    for wrong in ["nonsense", "/1", "a/x"] {
        assert_eq!(read(&app, Some(&a), Method::POST, "", &[("last-event-id", wrong)]).await.status(), 400, "{wrong}");
    }
}

#[tokio::test]
async fn when_a_key_is_revoked_what_runs_for_it_ends() {
    let fake = fake(|script| (script.text, script.token_gap) = (Text::Words(1_000_000), Duration::from_millis(10))).await;
    let (app, first) = guarded(&fake, |config| config.generation.kept.resume_window = Duration::from_mins(5)).await;
    let (key, id) = make(&app, &first, json!({"name": "a"})).await;
    let endless = |detach: bool| {
        let mut body = request(detach);
        body["options"]["num_predict"] = json!(1_000_000);
        body
    };
    let mut open = Listener::new(app.post_as(&key, endless(false)).await);
    open.until("token", 1).await;
    let mut left = Listener::new(app.post_as(&key, endless(true)).await);
    left.until("token", 1).await;
    drop(left);
    let (revoked, _) = admin(&app, &first, Method::DELETE, &format!("keys/{id}"), json!({})).await;
    assert!(revoked < 300);
    let since = std::time::Instant::now();
    let events = open.rest().await;
    let last = events.last().expect("events");
    assert_eq!((last.event.as_str(), &data(last)["code"]), ("error", &json!("key_ended")), "{last:?}");
    assert!(since.elapsed() < Duration::from_secs(1), "{:?}", since.elapsed());
    fake.wait_for(|seen| seen.in_flight == 0)
        .await
        .expect("what was detached stops, and nothing waits for a client that may not come back");
}

#[tokio::test]
async fn the_id_of_a_request_does_not_open_another_tenants_answer() {
    let fake = counting().await;
    let (app, first) = guarded(&fake, |_| {}).await;
    let (a, _) = make(&app, &first, json!({"name": "a"})).await;
    let (b, _) = make(&app, &first, json!({"name": "b"})).await;
    let ask = async |key: &str, prompt: &str| {
        let mut body = request(true);
        body["prompt"] = json!(prompt);
        let url = format!("{}/generate", app.url);
        app.client.post(url).bearer_auth(key).header("x-request-id", "the-same").json(&body).send().await.expect("an answer")
    };
    let mut of_a = Listener::new(ask(&a, "secret").await);
    of_a.until("token", 1).await;
    let again = ask(&a, "another").await;
    assert_eq!((again.status().as_u16(), again.json::<Value>().await.expect("JSON")["code"].clone()), (409, json!("id_in_use")));
    let of_b = Listener::new(ask(&b, "open").await).rest().await;
    let joined = data(of_b.last().expect("events"));
    assert_ne!(joined["arriero"]["cache"]["status"], "joined", "{joined}");
    assert_eq!(crate::support::prompts(&fake), ["secret", "open"], "each has its own");
}

#[tokio::test]
async fn who_reads_a_generation_hears_that_it_was_stopped() {
    let fake = counting().await;
    let app = TestApp::spawn(&fake).await;
    let mut listener = app.listen(request(true)).await;
    let id = request_id(&listener.until("token", 2).await);
    assert_eq!(read(&app, None, Method::DELETE, &id, &[]).await.status(), 204);
    let rest = listener.rest().await;
    let last = rest.last().expect("an end");
    assert_eq!((last.event.as_str(), &data(last)["code"]), ("error", &json!("stopped")), "{last:?}");
    eventually("the backend stops", async || fake.seen(|seen| seen.generating == 0)).await;
    assert!(rest.len() < PIECES, "{}", rest.len());
}

#[tokio::test]
async fn ids_that_name_no_place_in_this_answer_are_refused() {
    let fake = counting().await;
    let app = TestApp::spawn(&fake).await;
    let mut listener = app.listen(request(true)).await;
    let id = request_id(&listener.until("token", 1).await);
    let ahead = format!("{id}/1000");
    for (last, why) in [("other/3", "another generation"), ("nonsense", "not the id"), (ahead.as_str(), "a later one")] {
        let answer = read(&app, None, Method::GET, &id, &[EVENTS, ("last-event-id", last)]).await;
        assert_eq!(answer.status(), 400, "{last}");
        let problem: Value = answer.json().await.expect("JSON");
        assert_eq!(problem["code"], "event_id_invalid", "{problem}");
        assert!(problem["detail"].as_str().is_some_and(|detail| detail.contains(why)), "{problem}");
    }
    let slash = app.client.post(format!("{}/generate", app.url)).header("x-request-id", "a/b").json(&request(true)).send().await;
    assert_eq!(slash.expect("an answer").status(), 422, "nobody could stop it");
    let odd = app.client.get(format!("{}/generate/%ff", app.url)).send().await.expect("an answer");
    assert_eq!((odd.status().as_u16(), odd.headers()["content-type"].to_str().ok()), (400, Some("application/problem+json")));
}
