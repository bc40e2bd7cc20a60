//! What is collected to learn from: of whom, when not, what people may say of it, and that what is forgotten is gone.

mod learning;

use std::path::Path;
use std::time::Duration;

use arriero::config::Config;
use arriero_bench::fake::{FakeOllama, Fault, Midway, Plan, Text};
use reqwest::Method;
use serde_json::{Value, json};

use crate::keys::{admin, guarded, make};
use crate::process::{self, Process};
use crate::support::{Listener, TestApp, eventually, fake, read_events};

/// Words of an answer of the fake.
const PIECES: usize = 5;

fn whole() -> String {
    (0..PIECES).map(|n| format!(" t{n}")).collect::<Vec<_>>().concat()
}

async fn talkative() -> FakeOllama {
    fake(|script| script.text = Text::Numbered(PIECES)).await
}

fn collecting(config: &mut Config) {
    config.collection.enabled = true;
    config.collection.everyone_without_a_key_consents = true;
}

fn prompt(text: &str, stream: bool) -> Value {
    json!({"model": "gemma3:270m", "prompt": text, "system": "Be brief.", "stream": stream, "cache": "bypass"})
}

/// Status and body of a request to any path.
async fn ask(app: &TestApp, key: Option<&str>, method: Method, path: &str, body: Option<Value>) -> (u16, Value) {
    let mut request = app.client.request(method, format!("{}{path}", app.url));
    if let Some(key) = key {
        request = request.bearer_auth(key);
    }
    let request = if let Some(body) = body { request.json(&body) } else { request };
    let response = request.send().await.expect("an answer");
    (response.status().as_u16(), response.json().await.expect("JSON"))
}

async fn collected(app: &TestApp, key: Option<&str>, query: &str) -> Vec<Value> {
    let (status, page) = ask(app, key, Method::GET, &format!("/collection{query}"), None).await;
    assert_eq!(status, 200, "{page}");
    page["exchanges"].as_array().expect("a list").clone()
}

/// Asks for an answer and reads it to its end; gives the request's id.
async fn answered(app: &TestApp, key: Option<&str>, headers: &[(&str, &str)], body: Value) -> String {
    let mut request = app.client.post(format!("{}/generate", app.url)).json(&body);
    if let Some(key) = key {
        request = request.bearer_auth(key);
    }
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let response = request.send().await.expect("an answer");
    assert_eq!(response.status(), 200);
    let id = response.headers()["x-request-id"].to_str().expect("text").to_owned();
    if body["stream"] == true {
        assert_eq!(read_events(response).await.last().expect("an end").event, "done");
    } else {
        response.text().await.expect("a body");
    }
    id
}

#[tokio::test]
async fn only_what_configuration_key_and_request_agree_to_is_kept() {
    let fake = talkative().await;
    for enabled in [false, true] {
        let (app, first) = guarded(&fake, |config| config.collection.enabled = enabled).await;
        let (agreed, id) = make(&app, &first, json!({"name": "agreed", "collect": true})).await;
        let (silent, _) = make(&app, &first, json!({"name": "silent"})).await;
        for (key, agrees) in [(&agreed, true), (&silent, false)] {
            for (header, offers) in [(None, true), (Some("yes"), true), (Some("no"), false), (Some("perhaps"), false)] {
                for stream in [false, true] {
                    let headers: Vec<_> = header.map(|value| ("x-arriero-collect", value)).into_iter().collect();
                    let request = answered(&app, Some(key), &headers, prompt("Hi", stream)).await;
                    let found = collected(&app, Some(&first), &format!("?request_id={request}")).await;
                    let expected = enabled && agrees && offers;
                    assert_eq!(found.len(), usize::from(expected), "{enabled} {agrees} {header:?} {stream}");
                    let Some(kept) = found.first() else { continue };
                    assert_eq!((&kept["answer"], &kept["key"], &kept["finish_reason"]), (&json!(whole()), &json!(id), &json!("stop")));
                    let messages = json!([{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi"}]);
                    assert_eq!((&kept["messages"], &kept["model"], &kept["dialect"]), (&messages, &json!("gemma3:270m"), &json!("native")));
                    assert!(kept["prompt_tokens"].is_u64() && kept["completion_tokens"].is_u64() && kept["rating"].is_null(), "{kept}");
                }
            }
        }
        // Consent that is withdrawn holds from the next request on.
        let (status, key) = admin(&app, &first, Method::PATCH, &format!("keys/{id}"), json!({"collect": false})).await;
        assert_eq!((status, &key["collect"]), (200, &json!(false)));
        let request = answered(&app, Some(&agreed), &[], prompt("Hi", false)).await;
        assert_eq!(collected(&app, Some(&first), &format!("?request_id={request}")).await, Vec::<Value>::new());
    }
}

#[tokio::test]
async fn those_without_a_key_are_collected_where_all_of_them_agreed() {
    let fake = talkative().await;
    for everyone in [false, true] {
        let change = |config: &mut Config| {
            config.collection.enabled = true;
            config.collection.everyone_without_a_key_consents = everyone;
        };
        let app = TestApp::with(&[&fake], change).await;
        answered(&app, None, &[], prompt("Hi", false)).await;
        answered(&app, None, &[("x-arriero-collect", "no")], prompt("Hi", false)).await;
        let found = collected(&app, None, "?key=anonymous").await;
        assert_eq!(found.len(), usize::from(everyone));
    }
}

#[tokio::test]
async fn half_answers_and_those_of_others_are_not_kept() {
    let fake = fake(|script| (script.text, script.token_gap) = (Text::Numbered(PIECES), Duration::from_millis(20))).await;
    let app = TestApp::with(&[&fake], collecting).await;
    for fault in
        [Fault::status(500), Fault::After(2, Midway::Close), Fault::After(2, Midway::EndWithoutDone), Fault::After(2, Midway::ErrorLine)]
    {
        fake.fail(Plan::always(fault.clone()));
        for stream in [false, true] {
            let response = app.post(prompt("Hi", stream)).await;
            response.text().await.expect("a body");
        }
    }
    fake.fail(Plan::default());
    // One whose client leaves, one that only loads the model, and one that was detached and is read by nobody.
    let mut leaving = app.listen(prompt("Hi", true)).await;
    leaving.until("token", 1).await;
    drop(leaving);
    answered(&app, None, &[], json!({"model": "gemma3:270m"})).await;
    assert_eq!(collected(&app, None, "").await, Vec::<Value>::new());

    // Of equal requests at a time and after one another, the one that a backend answered is kept.
    let same = || json!({"model": "gemma3:270m", "prompt": "Same", "options": {"temperature": 0, "seed": 1}});
    let (one, other) = (app.start(&same()), app.start(&same()));
    for running in [one, other] {
        assert_eq!(running.await.expect("ran").status(), 200);
    }
    let response = app.ask(same()).await.1;
    let status = response["arriero"]["cache"]["status"].clone();
    let found = collected(&app, None, "").await;
    assert!(status != "hit" || found.len() == 1, "{status}: {found:?}");
    assert_eq!(app.metric("arriero_collection_dropped_total{reason=\"storage\"}").await, Some(0.0));
}

#[tokio::test]
async fn feedback_is_for_ones_own_requests_and_the_last_holds() {
    let fake = talkative().await;
    let (app, first) = guarded(&fake, |config| config.collection.enabled = true).await;
    let (own, own_id) = make(&app, &first, json!({"name": "own", "collect": true})).await;
    let (other, _) = make(&app, &first, json!({"name": "other", "collect": true})).await;
    let (operator, _) = make(&app, &first, json!({"name": "operator", "role": "operator"})).await;
    let (watcher, _) = make(&app, &first, json!({"name": "watcher", "role": "metrics"})).await;
    let request = answered(&app, Some(&own), &[], prompt("Why?", false)).await;
    let say = async |key: &str, body: Value| ask(&app, Some(key), Method::POST, "/feedback", Some(body)).await;

    // At once, before it can have been written.
    let (status, said) = say(&own, json!({"request_id": request, "rating": "bad", "correction": "Because.", "comment": "no"})).await;
    assert_eq!((status, &said["corrected"]), (200, &json!(true)), "{said}");
    let (status, problem) = say(&other, json!({"request_id": request, "rating": "good"})).await;
    assert_eq!((status, problem["code"].as_str()), (404, Some("exchange_not_collected")));
    assert!(problem["detail"].as_str().is_some_and(|why| why.contains("for this caller")) && problem["hint"].is_string(), "{problem}");
    assert_eq!(say(&watcher, json!({"request_id": request, "rating": "good"})).await.0, 403);
    let of = format!("?key={own_id}&rating=bad");
    let found = collected(&app, Some(&operator), &of).await;
    assert_eq!((&found[0]["correction"], &found[0]["comment"]), (&json!("Because."), &json!("no")));
    for _ in 0..2 {
        assert_eq!(say(&operator, json!({"request_id": request, "rating": "good"})).await.0, 200);
    }
    assert_eq!(collected(&app, Some(&operator), &of).await, Vec::<Value>::new());
    let found = collected(&app, Some(&operator), "?rating=good&model=gemma3:270m").await;
    assert!(found.len() == 1 && found[0].get("correction").is_none() && found[0]["rated_at"].is_string(), "{found:?}");

    // Clients choose ids: two keys may choose the same.
    let (mine, theirs) = ("chosen-by-both", "chosen-by-both");
    answered(&app, Some(&own), &[("x-request-id", mine)], prompt("Mine", false)).await;
    answered(&app, Some(&other), &[("x-request-id", theirs)], prompt("Theirs", false)).await;
    let (status, problem) = say(&operator, json!({"request_id": mine, "rating": "bad"})).await;
    assert_eq!((status, problem["code"].as_str()), (409, Some("feedback_ambiguous")));
    assert_eq!(say(&operator, json!({"request_id": mine, "rating": "bad", "key": own_id})).await.0, 200);
    assert_eq!(say(&other, json!({"request_id": mine, "rating": "good"})).await.0, 200);
    let rated = collected(&app, Some(&first), "?request_id=chosen-by-both").await;
    assert_eq!((&rated[0]["rating"], &rated[1]["rating"]), (&json!("good"), &json!("bad")));

    // Only operators look and forget.
    for (method, path) in [(Method::GET, "/collection"), (Method::DELETE, "/collection?all=true")] {
        assert_eq!(ask(&app, Some(&own), method, path, None).await.0, 403);
    }
    // Where nothing is collected, that is what is said.
    let (silent, _) = make(&app, &first, json!({"name": "silent"})).await;
    let request = answered(&app, Some(&silent), &[], prompt("Hi", false)).await;
    let (status, problem) = say(&silent, json!({"request_id": request, "rating": "good"})).await;
    assert!(status == 404 && problem["detail"].as_str().is_some_and(|why| why.contains("has not agreed")), "{problem}");
    let off = TestApp::spawn(&fake).await;
    let (status, problem) = ask(&off, None, Method::POST, "/feedback", Some(json!({"request_id": "x", "rating": "good"}))).await;
    assert!(status == 404 && problem["detail"].as_str().is_some_and(|why| why.contains("collection.enabled")), "{problem}");
}

#[tokio::test]
async fn pages_go_on_to_the_last() {
    let fake = talkative().await;
    let app = TestApp::with(&[&fake], collecting).await;
    for n in 0..7 {
        answered(&app, None, &[], prompt(&format!("Question {n}"), n % 2 == 0)).await;
    }
    let (mut seen, mut path) = (Vec::new(), "/collection?limit=3".to_owned());
    loop {
        let (status, page) = ask(&app, None, Method::GET, &path, None).await;
        assert_eq!(status, 200, "{page}");
        let exchanges = page["exchanges"].as_array().expect("a list");
        seen.extend(exchanges.iter().map(|one| one["messages"][1]["content"].as_str().expect("text").to_owned()));
        let Some(next) = page["next"].as_i64() else { break };
        path = format!("/collection?limit=3&cursor={next}");
    }
    assert_eq!(seen, (0..7).rev().map(|n| format!("Question {n}")).collect::<Vec<_>>());
    assert_eq!(collected(&app, None, "?since=2100-01-01T00:00:00Z").await.len(), 0);
    assert_eq!(collected(&app, None, "?until=2100-01-01T00:00:00Z&since=2020-01-01T00:00:00Z").await.len(), 7);
}

#[tokio::test]
async fn whatever_is_sent_is_refused_with_what_it_takes() {
    let fake = talkative().await;
    let app = TestApp::with(&[&fake], |config| {
        collecting(config);
        config.collection.max_exchange_bytes = 1_000;
    })
    .await;
    let request = answered(&app, None, &[], prompt("Hi", false)).await;
    answered(&app, None, &[], prompt(&"x".repeat(1_001), false)).await;
    assert_eq!(app.metric("arriero_collection_dropped_total{reason=\"too_large\"}").await, Some(1.0));
    let huge = "geheim ".repeat(100_000);
    for (body, status, field) in [
        (json!({}), 422, "request_id"),
        (json!({"request_id": request}), 422, "rating"),
        (json!({"request_id": request, "rating": 5}), 422, "rating"),
        (json!({"request_id": "a b", "rating": "good"}), 422, "request_id"),
        (json!({"request_id": "x".repeat(129), "rating": "good"}), 422, "request_id"),
        (json!({"request_id": "'; DROP TABLE collected; --", "rating": "good"}), 422, "request_id"),
        (json!({"request_id": request, "rating": "bad", "correction": huge}), 422, "correction"),
        (json!({"request_id": request, "rating": "bad", "correction": " "}), 422, "correction"),
        (json!({"request_id": request, "rating": "bad", "correction": {"a": 1}}), 422, "correction"),
        (json!({"request_id": request, "rating": "bad", "comment": "x".repeat(5_000)}), 422, "comment"),
        (json!({"request_id": request, "rating": "good", "stars": 5}), 422, "stars"),
        (json!([1]), 400, ""),
    ] {
        let (got, problem) = ask(&app, None, Method::POST, "/feedback", Some(body)).await;
        assert_eq!((got, problem["errors"][0]["field"].as_str().unwrap_or_default()), (status, field), "{problem}");
        assert!(problem["hint"].is_string() && problem.to_string().len() < 2_000 && !problem.to_string().contains("geheim geheim geheim"));
    }
    for query in ["?rating=fine", "?since=soon", "?limit=-1", "?cursor=x", "?stars=5", "?model=a%20b", "?until=2030"] {
        let (status, problem) = ask(&app, None, Method::GET, &format!("/collection{query}"), None).await;
        assert!(status == 422 && problem["detail"].as_str().is_some_and(|why| why.contains("`rating`")), "{query}: {problem}");
    }
    for query in ["", "?all=false", "?all=true&key=x", "?before=x", "?until=x"] {
        let (status, problem) = ask(&app, None, Method::DELETE, &format!("/collection{query}"), None).await;
        assert!(status == 422 && problem["detail"].as_str().is_some_and(|why| why.contains("at least one")), "{query}: {problem}");
    }
    assert_eq!(collected(&app, None, "").await.len(), 1, "and nothing was changed");
}

/// All files below a folder that hold these bytes.
fn holding(folder: &Path, canary: &str) -> Vec<String> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            found.extend(holding(&path, canary));
        } else if std::fs::read(&path).expect("read").windows(canary.len()).any(|window| window == canary.as_bytes()) {
            found.push(path.display().to_string());
        }
    }
    found
}

#[tokio::test]
async fn what_is_forgotten_is_gone_from_the_disk_at_once() {
    let fake = talkative().await;
    let (app, first) = guarded(&fake, |config| config.collection.enabled = true).await;
    let (goes, id) = make(&app, &first, json!({"name": "goes", "collect": true})).await;
    let (stays, _) = make(&app, &first, json!({"name": "stays", "collect": true})).await;
    for n in 0..20 {
        answered(&app, Some(&stays), &[], prompt(&"STAYING-WORD ".repeat(1 + 10 * n), false)).await;
        let request = answered(&app, Some(&goes), &[], prompt(&"CANARY-WORD ".repeat(1 + 60 * n), false)).await;
        let said = json!({"request_id": request, "rating": "bad", "correction": "CANARY-WORD instead", "comment": "CANARY-WORD"});
        assert_eq!(ask(&app, Some(&goes), Method::POST, "/feedback", Some(said)).await.0, 200);
    }
    assert!(!holding(app.data.path(), "CANARY-WORD").is_empty());
    let (status, gone) = ask(&app, Some(&first), Method::DELETE, &format!("/collection?key={id}"), None).await;
    assert_eq!((status, &gone), (200, &json!({"forgotten": 20, "overwritten": true})));
    assert_eq!(holding(app.data.path(), "CANARY-WORD"), Vec::<String>::new());
    let left = collected(&app, Some(&first), "").await;
    assert_eq!(left.len(), 20);
    // By request, by time, and all.
    let one = left[0]["request_id"].as_str().expect("an id");
    for (query, count) in [
        (format!("?request_id={one}"), 1),
        ("?until=2020-01-01T00:00:00Z".to_owned(), 0),
        ("?model=other".to_owned(), 0),
        ("?key=anonymous".to_owned(), 0),
        ("?until=2100-01-01T00:00:00Z&model=gemma3:270m".to_owned(), 19),
        ("?all=true".to_owned(), 0),
    ] {
        let (status, gone) = ask(&app, Some(&first), Method::DELETE, &format!("/collection{query}"), None).await;
        assert_eq!((status, &gone["forgotten"]), (200, &json!(count)), "{query}");
    }
    let folder = app.end().await;
    assert_eq!(holding(folder.path(), "STAYING-WORD"), Vec::<String>::new());
}

/// Neither logs nor metrics nor the request log say what was collected or said of it.
#[tokio::test]
async fn prompts_answers_and_corrections_are_in_no_log_and_no_metric() {
    let folder = tempfile::tempdir().expect("a folder");
    let data = folder.path();
    let fake = talkative().await;
    let log = data.join("log");
    let mut command = process::command(data);
    command.args(["--listen", "127.0.0.1:0", "--ollama", &fake.url()]).env("ARRIERO_LOG", "trace");
    command.env("ARRIERO_COLLECTION__ENABLED", "true").env("ARRIERO_COLLECTION__EVERYONE_WITHOUT_A_KEY_CONSENTS", "true");
    command.stderr(std::fs::File::create(&log).expect("a file"));
    let mut process = Process::of(&mut command).await;
    let send = async |method: Method, path: &str, body: Option<Value>| {
        let request = process.client.request(method, format!("{}{path}", process.url));
        let request = if let Some(body) = body { request.json(&body) } else { request };
        let response = request.send().await.expect("an answer");
        let id = response.headers()["x-request-id"].to_str().expect("text").to_owned();
        (id, response.text().await.expect("text"))
    };
    let (id, _) = send(Method::POST, "/generate", Some(prompt("CANARY-PROMPT", false))).await;
    let said = json!({"request_id": id, "rating": "bad", "correction": "CANARY-CORRECTION", "comment": "CANARY-COMMENT"});
    assert!(send(Method::POST, "/feedback", Some(said)).await.1.contains("corrected"));
    assert!(send(Method::GET, "/collection", None).await.1.contains("CANARY-CORRECTION"));
    assert!(send(Method::POST, "/feedback", Some(json!({"request_id": id, "rating": "CANARY-RATING"}))).await.1.contains("422"));
    let metrics = send(Method::GET, "/metrics", None).await.1;
    assert!(metrics.contains("arriero_collection_kept_total 1") && !metrics.contains("CANARY") && !metrics.contains(" t0 t1"));
    send(Method::DELETE, "/collection?all=true", None).await;
    process.signal("-TERM");
    process.ended().await;
    let log = std::fs::read_to_string(&log).expect("a log");
    assert!(log.contains("/feedback") && log.contains("forgotten"), "something was logged at all: {log}");
    assert!(!log.contains("CANARY") && !log.contains(" t0 t1"), "{log}");
    assert_eq!(holding(data, "CANARY"), Vec::<String>::new());
}

#[tokio::test]
async fn what_is_too_old_or_too_much_goes_by_itself() {
    let fake = talkative().await;
    let app = TestApp::with(&[&fake], |config| {
        collecting(config);
        config.collection.keep = Some(Duration::from_secs(2));
        config.collection.prune_interval = Duration::from_secs(1);
        config.collection.max_bytes = 3_000;
    })
    .await;
    for n in 0..8 {
        answered(&app, None, &[], prompt(&format!("{n}{}", "x".repeat(500)), false)).await;
    }
    let kept = collected(&app, None, "").await;
    assert!((4..=5).contains(&kept.len()), "{}", kept.len());
    assert!(kept[0]["messages"][1]["content"].as_str().is_some_and(|text| text.starts_with('7')), "the latest stay");
    eventually("that all are too old", async || collected(&app, None, "").await.is_empty()).await;
}

#[tokio::test]
async fn an_answer_that_is_read_again_is_not_collected_twice() {
    let fake = talkative().await;
    let app = TestApp::with(&[&fake], |config| {
        collecting(config);
        config.generation.kept.resume_window = Duration::from_secs(30);
    })
    .await;
    let id = answered(&app, None, &[], prompt("Hi", true)).await;
    let again = app.client.get(format!("{}/generate/{id}", app.url)).header("accept", "text/event-stream").send().await.expect("an answer");
    assert_eq!(Listener::new(again).rest().await.last().expect("an end").event, "done");
    assert_eq!(collected(&app, None, "").await.len(), 1);
}
