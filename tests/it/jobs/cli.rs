use super::*;

struct Said {
    code: Option<i32>,
    out: String,
    err: String,
}

async fn run(yard: &Yard, words: &[&str]) -> Said {
    let mut command = Command::new(env!("CARGO_BIN_EXE_arriero"));
    command.arg("jobs").args(words).args(["--url", &yard.process.url]).env_clear().stdin(std::process::Stdio::null()).kill_on_drop(true);
    let output = tokio::time::timeout(PATIENCE, command.output()).await.expect("in time").expect("runs");
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("text");
    Said { code: output.status.code(), out: text(output.stdout), err: text(output.stderr) }
}

#[tokio::test]
async fn a_job_is_submitted_followed_and_its_artifact_fetched() {
    let yard = Yard::new().await;
    yard.put("x", "abc");
    let said = run(&yard, &["submit", "checksum", "path=files/x", "--name", "mine", "--idempotency-key", "k"]).await;
    assert_eq!(said.code, Some(0), "{}", said.err);
    let id = said.out.trim().to_owned();
    assert_eq!(run(&yard, &["submit", "checksum", "path=files/x", "--name", "mine", "--idempotency-key", "k"]).await.out.trim(), id);
    let said = run(&yard, &["watch", &id]).await;
    assert_eq!(said.code, Some(0), "{}{}", said.out, said.err);
    for line in ["running", "step 1/3: list", "succeeded"] {
        assert!(said.out.lines().any(|shown| shown == line), "{line}: {}", said.out);
    }
    assert!(said.out.contains("made SHA256SUMS"));
    assert!(run(&yard, &["list"]).await.out.contains("mine"));
    assert!(run(&yard, &["show", &id]).await.out.contains("attempt     1 of 3"));
    let sums = run(&yard, &["artifacts", &id, "--download", "SHA256SUMS"]).await;
    assert!(sums.out.ends_with("  x\n"), "{}", sums.out);
    assert!(run(&yard, &["kinds"]).await.out.contains("path (string, required)"));
    let said = run(&yard, &["submit", "checksum", "path=files/x", "--cron", "0 3 * * *"]).await;
    let schedule = said.out.trim().to_owned();
    assert!(run(&yard, &["schedules"]).await.out.contains(&schedule));
    assert_eq!(run(&yard, &["schedules", "remove", &schedule]).await.code, Some(0));
}

#[tokio::test]
async fn files_of_this_machine_are_sent_for_jobs_to_read() {
    let yard = Yard::new().await;
    let folder = tempfile::tempdir().expect("a folder");
    let rows = folder.path().join("rows.jsonl");
    std::fs::write(&rows, "{\"prompt\": \"q\", \"completion\": \"a\"}\n").expect("written");
    let path = rows.to_str().expect("text");
    let said = run(&yard, &["upload", path, "--name", "mine.jsonl"]).await;
    assert_eq!(said.code, Some(0), "{}", said.err);
    let file = said.out.trim().to_owned();
    assert!(file.starts_with("artifact:") && file.ends_with("/mine.jsonl"), "{file}");
    assert!(run(&yard, &["list", "--kind", "upload"]).await.out.contains("mine.jsonl"));
    let said = run(&yard, &["delete-upload", &file]).await;
    assert_eq!(said.code, Some(0), "{}", said.err);
    assert_eq!(run(&yard, &["delete-upload", &file]).await.code, Some(11));
    assert_eq!(run(&yard, &["upload", "/nowhere/rows.jsonl"]).await.code, Some(2));
    assert_eq!(run(&yard, &["upload", path, "--name", "a b"]).await.code, Some(11));

    let mut command = Command::new(env!("CARGO_BIN_EXE_arriero"));
    command.args(["dataset", path, "--job", "--upload", "--url", &yard.process.url]).env_clear().stdin(std::process::Stdio::null());
    let output = tokio::time::timeout(PATIENCE, command.output()).await.expect("in time").expect("runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let id = String::from_utf8(output.stdout).expect("text").trim().to_owned();
    assert_eq!(yard.until(&id, "succeeded").await["result"]["rows"]["train"], 1);
}

#[tokio::test]
async fn how_a_job_ends_is_how_the_command_ends() {
    let yard = Yard::new().await;
    let said = run(&yard, &["submit", "trial", "how=refuse", "--wait"]).await;
    assert_eq!(said.code, Some(1), "{}", said.out);
    assert!(said.err.contains("it was told to fail for good"), "{}", said.err);
    let said = run(&yard, &["submit", "checksum", "path=/etc/passwd"]).await;
    assert_eq!(said.code, Some(11));
    assert!(said.err.contains("jobs.roots"), "{}", said.err);
    assert_eq!(run(&yard, &["watch", "no-such-job"]).await.code, Some(11));
    assert_eq!(run(&yard, &["show", "../x"]).await.code, Some(2));
    let said = run(&yard, &["submit", "trial", "steps=2", "step_ms=400"]).await;
    let id = said.out.trim();
    assert_eq!(run(&yard, &["cancel", id]).await.code, Some(0));
    assert_eq!(run(&yard, &["watch", id]).await.code, Some(1));
    assert_eq!(run(&yard, &["retry", id]).await.code, Some(0));
    let said = run(&yard, &["logs", id, "--follow"]).await;
    assert!(said.out.contains("step 1 in attempt 1"), "{}", said.out);
}

#[tokio::test]
async fn watching_survives_a_kill_of_the_gateway() {
    let mut yard = Yard::new().await;
    let id = yard.trial(json!({"steps": 4, "step_ms": 300})).await;
    // Where the gateway is must not change for this.
    let address = yard.process.url.trim_start_matches("http://").to_owned();
    let url = yard.process.url.clone();
    let mut command = Command::new(env!("CARGO_BIN_EXE_arriero"));
    command.args(["jobs", "watch", &id, "--url", &url]).env_clear().stdin(std::process::Stdio::null()).kill_on_drop(true);
    let watching = tokio::spawn(async move { command.output().await.expect("runs") });
    yard.until_steps(&id, 1).await;
    yard.process.signal("-KILL");
    yard.process.ended().await;
    let mut again = crate::process::command(yard.data.path());
    again.args(["--listen", &address, "--ollama", &yard.fake.url()]).envs(QUICK.iter().copied());
    yard.process = Process::of(&mut again).await;
    let output = tokio::time::timeout(PATIENCE, watching).await.expect("in time").expect("no panic");
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(output.status.code(), Some(0), "{said}{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(said.matches("step 1/4").count(), 1, "no event is told twice: {said}");
    assert!(said.ends_with("succeeded\n"), "{said}");
}
