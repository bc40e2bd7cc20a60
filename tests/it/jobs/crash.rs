use serde_json::json;

use super::*;

#[tokio::test]
async fn a_child_that_is_killed_costs_an_attempt_and_nothing_else() {
    let yard = Yard::new().await;
    let id = yard.trial(json!({"steps": 4, "step_ms": 300})).await;
    yard.until_steps(&id, 2).await;
    kill(a_child(&yard).await, "-KILL");
    let job = yard.until(&id, "succeeded").await;
    assert_eq!(job["attempts"], 2);
    assert_eq!(yard.artifact(&id, "trial.txt").await, made(4).as_bytes());
    let events = yard.events(&id).await;
    let told = events.iter().find(|(name, data)| name == "state" && data["error"]["kind"] == "crashed").expect("the failure is told");
    assert!(told.1["error"]["message"].as_str().expect("text").contains("signal 9"));
    let done = done_in(&events);
    assert_eq!(done.iter().filter(|line| line.starts_with("step 0 ")).count(), 1, "a step that has ended is not done again: {done:?}");
}

#[tokio::test]
async fn after_a_kill_of_the_gateway_the_job_goes_on() {
    let mut yard = Yard::new().await;
    let id = yard.trial(json!({"steps": 4, "step_ms": 300})).await;
    let waits = yard.submit(json!({"kind": "trial", "input": {"steps": 2}, "after": [id]})).await;
    yard.until_steps(&id, 2).await;
    let child = a_child(&yard).await;
    yard.kill_and_start_again().await;
    eventually("that the child of the killed gateway ends", async || !std::path::Path::new(&format!("/proc/{child}/fd/0")).exists()).await;
    let job = yard.until(&id, "succeeded").await;
    assert_eq!(job["attempts"], 2);
    assert_eq!(yard.artifact(&id, "trial.txt").await, made(4).as_bytes());
    let done = done_in(&yard.events(&id).await);
    assert_eq!(done.iter().filter(|line| line.starts_with("step 0 ")).count(), 1, "{done:?}");
    yard.until(&waits, "succeeded").await;
}

#[tokio::test]
async fn kills_at_many_moments_lose_nothing() {
    let mut yard = Yard::with(&[("ARRIERO_JOBS__MAX_ATTEMPTS", "50")]).await;
    let mut ids = Vec::new();
    for _ in 0..3 {
        ids.push(yard.trial(json!({"steps": 5, "step_ms": 150})).await);
    }
    for round in 0..6_u64 {
        tokio::time::sleep(Duration::from_millis(90 + round * 61 % 230)).await;
        if round % 3 == 2 {
            yard.kill_and_start_again().await;
        } else if let Some(child) = yard.children().first() {
            kill(*child, "-KILL");
        }
    }
    for id in &ids {
        yard.until(id, "succeeded").await;
        assert_eq!(yard.artifact(id, "trial.txt").await, made(5).as_bytes());
    }
    let artifacts = yard.data.path().join("jobs/artifacts");
    for id in &ids {
        let listed = yard.get(&format!("/jobs/{id}/artifacts")).await;
        assert_eq!(listed["artifacts"].as_array().expect("a list").len(), 1);
        assert!(artifacts.join(id).is_dir());
    }
}

#[tokio::test]
async fn a_kill_at_every_step_boundary_loses_nothing() {
    let mut yard = Yard::with(&[("ARRIERO_JOBS__MAX_ATTEMPTS", "20")]).await;
    let id = yard.trial(json!({"steps": 6, "step_ms": 120})).await;
    for step in 1..6 {
        yard.until_steps(&id, step).await;
        if step % 2 == 0 {
            yard.kill_and_start_again().await;
        } else if let Some(child) = yard.children().first() {
            kill(*child, "-KILL");
        }
    }
    yard.until(&id, "succeeded").await;
    assert_eq!(yard.artifact(&id, "trial.txt").await, made(6).as_bytes());
    let done = done_in(&yard.events(&id).await);
    for step in 0..6 {
        // The log of a step may be lost with its worker, its end is not: it may have been done again only if it had not ended.
        let times = done.iter().filter(|line| line.starts_with(&format!("step {step} "))).count();
        assert!(times <= 2, "{done:?}");
    }
}

#[tokio::test]
async fn one_that_hangs_is_ended() {
    let yard = Yard::with(&[("ARRIERO_JOBS__HANG_AFTER", "1s")]).await;
    let id = yard.submit(json!({"kind": "trial", "input": {"how": "hang", "once": true}, "max_attempts": 2})).await;
    assert_eq!(yard.until(&id, "succeeded").await["attempts"], 2);
    let id = yard.submit(json!({"kind": "trial", "input": {"how": "hang"}, "max_attempts": 1})).await;
    let job = yard.until(&id, "failed").await;
    assert_eq!(job["error"]["kind"], "hung", "{job}");
    assert!(job["error"]["message"].as_str().expect("text").contains("jobs.hang_after"));
    assert!(yard.children().is_empty());
}

#[tokio::test]
async fn one_that_eats_more_than_it_said_fails_with_the_reason() {
    let yard = Yard::new().await;
    for (how, eats_bytes) in [("eat", 2_u64 << 30), ("gorge", 64_u64 << 30)] {
        let input = json!({"how": how, "memory_bytes": 200 << 20, "eats_bytes": eats_bytes});
        let id = yard.submit(json!({"kind": "trial", "input": input, "max_attempts": 1})).await;
        let job = yard.until(&id, "failed").await;
        assert_eq!(job["error"]["kind"], "out_of_memory", "{how}: {job}");
        assert!(job["error"]["message"].as_str().expect("text").contains(&(200 << 20).to_string()), "{job}");
    }
    let id = yard.trial(json!({"steps": 1})).await;
    yard.until(&id, "succeeded").await;
}

#[tokio::test]
async fn attempts_are_made_until_there_are_none_left() {
    let yard = Yard::new().await;
    let crashes = yard.trial(json!({"how": "crash", "once": true})).await;
    let job = yard.until(&crashes, "succeeded").await;
    let outcomes: Vec<&Value> = job["history"].as_array().expect("a list").iter().map(|attempt| &attempt["outcome"]).collect();
    assert_eq!((&job["attempts"], outcomes), (&json!(2), vec![&json!("crashed"), &json!("succeeded")]));
    let fails = yard.submit(json!({"kind": "trial", "input": {"how": "fail"}, "max_attempts": 3})).await;
    let job = yard.until(&fails, "failed").await;
    assert_eq!((&job["attempts"], &job["error"]["message"]), (&json!(3), &json!("it was told to fail")));
    let series = "arriero_job_attempts_total{kind=\"trial\",outcome=\"failed\"} 3";
    // Counted just after the job's end is written down.
    eventually("that the attempts are counted", async || {
        let asked = yard.process.client.get(format!("{}/metrics", yard.process.url)).send().await;
        asked.expect("an answer").text().await.expect("text").lines().any(|line| line == series)
    })
    .await;
}

#[tokio::test]
async fn what_belongs_to_no_job_is_swept() {
    let mut yard = Yard::with(&[("ARRIERO_JOBS__RETENTION__SWEEP_INTERVAL", "100ms")]).await;
    let id = yard.trial(json!({"steps": 1})).await;
    yard.until(&id, "succeeded").await;
    let jobs = yard.data.path().join("jobs");
    std::fs::create_dir_all(jobs.join("artifacts/gone/3")).expect("made");
    std::fs::write(jobs.join("artifacts/gone/3/x"), "x").expect("written");
    std::fs::create_dir_all(jobs.join("work/gone")).expect("made");
    std::fs::write(jobs.join("artifacts").join(&id).join("stray"), "x").expect("written");
    yard.kill_and_start_again().await;
    eventually("that orphans go", async || !jobs.join("artifacts/gone").exists() && !jobs.join("work/gone").exists()).await;
    assert_eq!(yard.artifact(&id, "trial.txt").await, made(1).as_bytes());
}
