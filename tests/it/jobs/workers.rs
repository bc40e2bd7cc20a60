use reqwest::Method;
use serde_json::json;

use super::*;

#[tokio::test]
async fn workers_beside_the_gateway_do_the_work_and_hand_over_what_they_have_begun() {
    let yard = Yard::with(&[("ARRIERO_JOBS__WORKERS", "false")]).await;
    let id = yard.trial(json!({"steps": 4, "step_ms": 300})).await;
    a_moment().await;
    assert_eq!(yard.job(&id).await["state"], "queued");
    let mut first = worker(yard.data.path()).spawn().expect("starts");
    yard.until_steps(&id, 1).await;
    kill(first.id().expect("runs"), "-TERM");
    let status = tokio::time::timeout(PATIENCE, first.wait()).await.expect("it ends").expect("a status");
    assert_eq!(status.code(), Some(0));
    let job = yard.job(&id).await;
    assert_eq!((&job["state"], &job["attempts"]), (&json!("queued"), &json!(0)), "no attempt is used up");
    let _second = worker(yard.data.path()).spawn().expect("starts");
    let _third = worker(yard.data.path()).spawn().expect("starts");
    assert_eq!(yard.until(&id, "succeeded").await["attempts"], 1);
    assert_eq!(yard.artifact(&id, "trial.txt").await, made(4).as_bytes());
    let done = done_in(&yard.events(&id).await);
    assert_eq!(done.iter().filter(|line| line.starts_with("step 0 ")).count(), 1, "{done:?}");
}

#[tokio::test]
async fn a_worker_that_stands_still_loses_its_job_and_its_writes_do_not_count() {
    let yard = Yard::with(&[("ARRIERO_JOBS__WORKERS", "false")]).await;
    let id = yard.trial(json!({"steps": 3, "step_ms": 400})).await;
    let stopped = worker(yard.data.path()).spawn().expect("starts");
    yard.until_steps(&id, 1).await;
    let pid = stopped.id().expect("runs");
    kill(pid, "-STOP");
    let _other = worker(yard.data.path()).spawn().expect("starts");
    let job = yard.until(&id, "succeeded").await;
    // More where the machine is so busy that the short lease of these tests runs out by itself.
    assert!(job["attempts"].as_u64() >= Some(2), "{job}");
    kill(pid, "-CONT");
    a_moment().await;
    a_moment().await;
    assert_eq!(yard.job(&id).await, job, "the zombie changes nothing");
    assert_eq!(yard.artifact(&id, "trial.txt").await, made(3).as_bytes());
}

#[tokio::test]
async fn operators_pause_drain_and_resume() {
    let yard = Yard::new().await;
    let id = yard.trial(json!({"steps": 3, "step_ms": 400})).await;
    yard.until_steps(&id, 1).await;
    let order = async |order: &str| yard.ask(Method::POST, "/jobs/pool", Some(json!({"order": order}))).await;
    assert_eq!(order("drain").await.0, 200);
    yard.until(&id, "queued").await;
    eventually("that the child ends", async || yard.children().is_empty()).await;
    a_moment().await;
    assert_eq!(yard.job(&id).await["state"], "queued");
    assert_eq!(yard.get("/jobs/pool").await["jobs"]["queued"], 1);
    assert_eq!(order("nonsense").await.0, 422);
    assert_eq!(order("run").await.1["order"], "run");
    assert_eq!(yard.until(&id, "succeeded").await["attempts"], 1);
}

#[tokio::test]
async fn jobs_run_beside_each_other_as_there_is_room() {
    let yard = Yard::with(&[("ARRIERO_JOBS__RESOURCES__CPU_THREADS", "2")]).await;
    for _ in 0..4 {
        yard.trial(json!({"steps": 1, "step_ms": 600})).await;
    }
    eventually("that all are done", async || {
        let jobs = yard.get("/jobs").await;
        let count = |state: &str| jobs["jobs"].as_array().expect("a list").iter().filter(|job| job["state"] == state).count();
        assert!(count("running") + count("leased") <= 2);
        count("succeeded") == 4
    })
    .await;
}

#[tokio::test]
async fn a_worker_refuses_a_folder_without_a_database() {
    let folder = tempfile::tempdir().expect("a folder");
    let output = worker(folder.path()).output().await.expect("runs");
    assert_eq!(output.status.code(), Some(6));
    let mut child = Command::new(env!("CARGO_BIN_EXE_arriero"));
    let output = child.args(["worker", "run"]).env_clear().stdin(std::process::Stdio::null()).output().await.expect("runs");
    assert_eq!(output.status.code(), Some(2));
}

#[tokio::test]
async fn jobs_of_low_priority_make_way_for_live_requests() {
    let yard = Yard::with(&[
        ("ARRIERO_JOBS__PRESSURE__WAITING", "1"),
        ("ARRIERO_JOBS__PRESSURE__CALM", "100ms"),
        ("ARRIERO_JOBS__PRESSURE__RUNNING", "wait"),
    ])
    .await;
    let low = async |steps: u32| yard.submit(json!({"kind": "trial", "priority": "low", "input": {"steps": steps, "step_ms": 200}})).await;
    let runs = low(20).await;
    yard.until_steps(&runs, 1).await;
    yard.fake.adjust(|script| script.prefill = Duration::from_mins(10));
    let mut live = Vec::new();
    for n in 0..20 {
        let body = json!({"model": "gemma3:270m", "prompt": format!("{n}"), "cache": "bypass"});
        let asking = yard.process.client.post(format!("{}/generate", yard.process.url)).json(&body).send();
        live.push(tokio::spawn(asking));
    }
    eventually("that live requests wait", async || yard.get("/admin/queue").await["waiting"].as_u64() > Some(0)).await;
    a_moment().await;
    let waits = low(1).await;
    let urgent = yard.trial(json!({"steps": 1})).await;
    yard.until(&urgent, "succeeded").await;
    a_moment().await;
    let steps = yard.job(&runs).await["steps_ended"].clone();
    a_moment().await;
    a_moment().await;
    assert_eq!(yard.job(&runs).await["steps_ended"], steps, "it holds still");
    assert_eq!(yard.job(&waits).await["state"], "queued", "it is not started");
    live.iter().for_each(tokio::task::JoinHandle::abort);
    yard.until(&waits, "succeeded").await;
    assert_eq!(yard.until(&runs, "succeeded").await["attempts"], 1);
}
