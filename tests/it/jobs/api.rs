use std::os::unix::fs::symlink;

use reqwest::Method;
use serde_json::json;

use super::*;

const ABC: &str = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";

#[tokio::test]
async fn a_folder_is_hashed_and_every_event_is_told_also_to_one_who_comes_back() {
    let yard = Yard::new().await;
    yard.put("set/b.bin", "abc");
    yard.put("set/a/x.txt", "");
    let id = yard.submit(json!({"kind": "checksum", "input": {"path": "files/set"}, "labels": {"for": "test"}})).await;

    let events = yard.follow(&id, None).await.rest().await;
    let numbers: Vec<String> = events.iter().filter_map(|event| event.id.clone()).collect();
    assert_eq!(numbers, (0..events.len()).map(|n| format!("{id}/{n}")).collect::<Vec<_>>());
    let last = events.last().expect("some");
    assert_eq!((last.event.as_str(), &data(last)["state"]), ("state", &json!("succeeded")));
    for name in ["state", "step", "artifact"] {
        assert!(events.iter().any(|event| event.event == name), "{name}");
    }
    let rest = yard.follow(&id, Some(&numbers[2])).await.rest().await;
    assert_eq!(rest.iter().map(|event| event.id.clone()).collect::<Vec<_>>(), events[3..].iter().map(|e| e.id.clone()).collect::<Vec<_>>());

    let job = yard.job(&id).await;
    assert_eq!((&job["state"], &job["attempts"], &job["result"]["files"]), (&json!("succeeded"), &json!(1), &json!(2)));
    let manifest = yard.artifact(&id, "SHA256SUMS").await;
    let empty = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
    assert_eq!(String::from_utf8(manifest).expect("text"), format!("{empty}  a/x.txt\n{ABC}  b.bin\n"));
    let artifacts = yard.get(&format!("/jobs/{id}/artifacts")).await;
    assert_eq!(artifacts["artifacts"][0]["sha256"], job["result"]["sha256"]);
    assert_eq!(artifacts["artifacts"][0]["lineage"]["code"]["kind_version"], 1);
    assert_eq!(yard.get("/jobs?state=succeeded&kind=checksum&limit=1").await["jobs"][0]["id"], id);
    assert!(!yard.data.path().join("jobs/work").join(&id).exists(), "its folder is gone");
}

#[tokio::test]
async fn an_expected_hash_is_checked() {
    let yard = Yard::new().await;
    yard.put("x", "abc");
    let right = yard.submit(json!({"kind": "checksum", "input": {"path": "files/x", "expected": ABC.to_uppercase()}})).await;
    assert_eq!(yard.until(&right, "succeeded").await["result"]["sha256"], ABC);
    let wrong = yard.submit(json!({"kind": "checksum", "input": {"path": "files/x", "expected": "0".repeat(64)}})).await;
    let job = yard.until(&wrong, "failed").await;
    assert_eq!((&job["attempts"], &job["error"]["kind"]), (&json!(1), &json!("failed")), "trying again does not help");
    assert_eq!(yard.ask(Method::DELETE, &format!("/jobs/{wrong}"), None).await.1["code"], "job_ended");
}

#[tokio::test]
async fn paths_that_lead_out_are_refused() {
    let yard = Yard::new().await;
    yard.put("x", "abc");
    std::fs::write(yard.data.path().join("secret"), "s").expect("written");
    let files = yard.data.path().join("files");
    symlink("../secret", files.join("up")).expect("made");
    symlink("/etc", files.join("etc")).expect("made");
    let secret = yard.data.path().join("secret");
    for path in ["files/../secret", "files/up", "files/etc/passwd", "/etc/passwd", "secret", "", secret.to_str().expect("text")] {
        let (status, problem) = yard.ask(Method::POST, "/jobs", Some(json!({"kind": "checksum", "input": {"path": path}}))).await;
        assert_eq!((status, &problem["code"]), (403, &json!("path_forbidden")), "{path}: {problem}");
    }
    let (status, problem) = yard.ask(Method::POST, "/jobs", Some(json!({"kind": "checksum", "input": {"path": "files/none"}}))).await;
    assert_eq!((status, &problem["code"]), (422, &json!("path_not_found")));
    // Links inside of a folder are passed over when they lead out.
    let id = yard.submit(json!({"kind": "checksum", "input": {"path": "files"}})).await;
    assert_eq!(yard.until(&id, "succeeded").await["result"]["files"], 1);
}

#[tokio::test]
async fn what_is_wrong_or_too_large_is_refused_at_once() {
    let yard = Yard::new().await;
    let refused = async |body: Value| {
        let (status, problem) = yard.ask(Method::POST, "/jobs", Some(body)).await;
        (status, problem["code"].as_str().unwrap_or_default().to_owned(), problem)
    };
    assert_eq!(refused(json!({"kind": "nothing", "input": {}})).await.1, "job_kind_unknown");
    assert_eq!(refused(json!({"kind": "checksum", "input": {"x": 1}})).await.1, "job_input_invalid");
    assert_eq!(refused(json!({"kind": "trial", "after": ["no-such-job"]})).await.1, "job_input_invalid");
    assert_eq!(refused(json!({"kind": "checksum", "input": {"path": "artifact:j/x"}})).await.1, "job_input_invalid");
    assert_eq!(refused(json!({"kind": "trial", "schedule": {"cron": "soon"}})).await.1, "schedule_invalid");
    for (field, resource) in [("memory_bytes", "memory"), ("disk_bytes", "disk")] {
        let (status, code, problem) = refused(json!({"kind": "trial", "input": {field: 1_u64 << 60}})).await;
        assert_eq!((status, code.as_str(), &problem["resource"]), (507, "job_too_large", &json!(resource)));
        assert_eq!(problem["needed"], 1_u64 << 60);
        assert!(problem["available"].as_u64().expect("a number") < 1 << 60);
    }
    assert_eq!(yard.get("/jobs").await["jobs"], json!([]));
}

#[tokio::test]
async fn a_submission_with_a_key_is_made_once() {
    let yard = Yard::new().await;
    let submit = async |key: &str, steps: u32| {
        let request = yard.process.client.post(format!("{}/jobs", yard.process.url)).header("idempotency-key", key);
        let response = request.json(&json!({"kind": "trial", "input": {"steps": steps}})).send().await.expect("an answer");
        let (status, replayed) = (response.status().as_u16(), response.headers().contains_key("idempotency-replayed"));
        (status, replayed, response.json::<Value>().await.expect("JSON"))
    };
    let first = submit("k", 1).await;
    assert_eq!((first.0, first.1), (201, false));
    let id = first.2["id"].as_str().expect("an id");
    yard.until(id, "succeeded").await;
    let again = submit("k", 1).await;
    assert_eq!((again.0, again.1, &again.2["id"]), (200, true, &first.2["id"]));
    assert_eq!(submit("k", 2).await.2["code"], "idempotency_conflict");
    assert_eq!(submit("other", 1).await.0, 201);
}

#[tokio::test]
async fn one_job_works_on_what_another_made_and_none_starts_after_a_failure() {
    let yard = Yard::new().await;
    let first = yard.trial(json!({"steps": 2, "step_ms": 200})).await;
    let path = format!("artifact:{first}/trial.txt");
    let second = yard.submit(json!({"kind": "checksum", "input": {"path": path}, "after": [first]})).await;
    assert_eq!(yard.job(&second).await["state"], "queued");
    let second = yard.until(&second, "succeeded").await;
    assert_eq!(second["result"]["sha256"], yard.job(&first).await["result"]["sha256"]);

    let fails = yard.trial(json!({"how": "refuse"})).await;
    let waits = yard.submit(json!({"kind": "trial", "after": [fails]})).await;
    let job = yard.until(&waits, "cancelled").await;
    assert_eq!((&job["error"]["kind"], &job["attempts"]), (&json!("dependency"), &json!(0)));
}

#[tokio::test]
async fn a_job_is_cancelled_where_it_stands_and_may_be_tried_again() {
    let yard = Yard::new().await;
    let id = yard.trial(json!({"steps": 3, "step_ms": 400})).await;
    let waits = yard.submit(json!({"kind": "trial", "after": [id]})).await;
    yard.until_steps(&id, 1).await;
    let (status, asked) = yard.ask(Method::DELETE, &format!("/jobs/{id}"), None).await;
    assert_eq!((status, &asked["cancel_requested"]), (200, &json!(true)));
    yard.until(&id, "cancelled").await;
    eventually("that the child ends", async || yard.children().is_empty()).await;
    yard.until(&waits, "cancelled").await;
    let ended = yard.job(&id).await["steps_ended"].as_u64().expect("a number");
    let (status, _) = yard.ask(Method::POST, &format!("/jobs/{id}/retry"), None).await;
    assert_eq!(status, 200);
    yard.until(&id, "succeeded").await;
    assert_eq!(yard.artifact(&id, "trial.txt").await, made(3).as_bytes());
    assert!((1..3).contains(&ended));
    let (_, again) = yard.ask(Method::POST, &format!("/jobs/{id}/retry"), None).await;
    assert_eq!(again["code"], "job_not_retryable");

    let paused = yard.ask(Method::POST, "/jobs/pool", Some(json!({"order": "pause"}))).await.1;
    assert_eq!(paused["order"], "pause");
    let queued = yard.trial(json!({})).await;
    a_moment().await;
    assert_eq!(yard.ask(Method::DELETE, &format!("/jobs/{queued}"), None).await.1["state"], "cancelled");
}

#[tokio::test]
async fn a_schedule_makes_jobs_when_its_time_comes() {
    use crate::support::TestApp;
    use arriero::domain::clock::Clock;

    let (folder, fake) = (tempfile::tempdir().expect("a folder"), fake(|_| {}).await);
    let mut config = crate::support::config(&folder, &[&fake]);
    config.jobs.program = env!("CARGO_BIN_EXE_arriero").into();
    config.jobs.look_interval = Duration::from_millis(50);
    config.jobs.resources.disk_reserve_bytes = 0;
    let clock = Clock::fake(1_800_000_000_000);
    let app = TestApp::around(arriero::app::start(config, clock.clone()).await.expect("starts"), folder);
    std::fs::write(app.data.path().join("files/x"), "abc").expect("written");
    let body = json!({"kind": "checksum", "input": {"path": "files/x"}, "schedule": {"cron": "*/5 * * * *", "missed": "all"}});
    let response = app.client.post(format!("{}/jobs", app.url)).json(&body).send().await.expect("an answer");
    assert_eq!(response.status(), 201);
    let schedule: Value = response.json().await.expect("JSON");
    assert_eq!(schedule["next_at_ms"], 1_800_000_300_000_i64);
    let jobs =
        async || app.get("/jobs?kind=checksum").await.json::<Value>().await.expect("JSON")["jobs"].as_array().expect("a list").clone();
    a_moment().await;
    assert!(jobs().await.is_empty());
    clock.advance(Duration::from_mins(12));
    eventually("that two were made and done", async || {
        let jobs = jobs().await;
        jobs.len() == 2 && jobs.iter().all(|job| job["state"] == "succeeded" && job["schedule"] == schedule["id"])
    })
    .await;
    let id = schedule["id"].as_str().expect("an id");
    let removed = app.client.delete(format!("{}/jobs/schedules/{id}", app.url)).send().await.expect("an answer");
    assert_eq!(removed.status(), 204);
    assert_eq!(app.get("/jobs/schedules").await.json::<Value>().await.expect("JSON")["schedules"], json!([]));
    app.end().await;
}

#[tokio::test]
async fn another_tenant_sees_nothing_of_a_job() {
    let fake = fake(|_| {}).await;
    let (app, first) = crate::keys::guarded(&fake, |_| {}).await;
    let key =
        async |tenant: &str, role: &str| crate::keys::make(&app, &first, json!({"name": tenant, "role": role, "tenant": tenant})).await.0;
    let (own, other, operator, metrics) =
        (key("a", "user").await, key("b", "user").await, key("c", "operator").await, key("d", "metrics").await);
    std::fs::write(app.data.path().join("files/x"), "abc").expect("written");
    let ask = async |key: &str, method: Method, path: &str, body: Value| {
        let request = app.client.request(method, format!("{}{path}", app.url)).bearer_auth(key).json(&body);
        let response = request.send().await.expect("an answer");
        (response.status().as_u16(), response.json::<Value>().await.unwrap_or_default())
    };
    let (status, job) = ask(&own, Method::POST, "/jobs", json!({"kind": "checksum", "input": {"path": "files/x"}})).await;
    assert_eq!((status, &job["tenant"]), (201, &json!("a")));
    let path = format!("/jobs/{}", job["id"].as_str().expect("an id"));
    for (method, end) in [
        (Method::GET, ""),
        (Method::DELETE, ""),
        (Method::POST, "/retry"),
        (Method::GET, "/events"),
        (Method::GET, "/artifacts"),
        (Method::GET, "/artifacts/SHA256SUMS"),
    ] {
        assert_eq!(ask(&other, method.clone(), &format!("{path}{end}"), json!({})).await.0, 404, "{method} {end}");
    }
    let after = json!({"kind": "checksum", "input": {"path": "files/x"}, "after": [job["id"]]});
    assert_eq!(ask(&other, Method::POST, "/jobs", after).await.1["code"], "job_input_invalid");
    assert_eq!(ask(&other, Method::GET, "/jobs?tenant=a", json!({})).await.1["jobs"], json!([]));

    let (status, file) = ask(&own, Method::PUT, "/files/rows.jsonl", json!({"text": "mine"})).await;
    assert_eq!(status, 201, "{file}");
    let deleted = format!("/files/{}", file["id"].as_str().expect("an id"));
    let reading = json!({"kind": "checksum", "input": {"path": file["path"]}, "after": [file["id"]]});
    assert_eq!(ask(&other, Method::POST, "/jobs", reading.clone()).await.1["code"], "job_input_invalid");
    assert_eq!(ask(&other, Method::DELETE, &deleted, json!({})).await.0, 404);
    assert_eq!(ask(&own, Method::POST, "/jobs", reading).await.0, 201);
    for (who, path, status) in [(&metrics, "/files/x", 403), (&operator, deleted.as_str(), 409)] {
        assert_eq!(ask(who, Method::DELETE, path, json!({})).await.0, status, "{path}");
    }
    assert_eq!(ask(&own, Method::GET, "/jobs", json!({})).await.1["jobs"].as_array().expect("a list").len(), 3);
    assert_eq!(ask(&operator, Method::GET, &path, json!({})).await.0, 200);
    for path in ["/jobs", "/jobs/kinds", "/jobs/pool"] {
        assert_eq!(ask(&metrics, Method::GET, path, json!({})).await.0, 403, "{path}");
    }
    assert_eq!(ask(&own, Method::GET, "/jobs/pool", json!({})).await.0, 403);
}
