//! The real binary: how it starts, how it says why it does not, how it ends, and what is left after it was killed.

use std::path::Path;
use std::process::{ExitStatus, Stdio};
use std::time::{Duration, Instant};

use arriero_bench::fake::FakeOllama;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader};
use tokio::process::{Child, Command};
use tokio::time::timeout;

use crate::support::{PATIENCE, fake, read_events};

pub struct Process {
    pub child: Child,
    pub url: String,
    pub client: reqwest::Client,
    /// What it said at its start, after where it listens.
    pub said: tokio::sync::mpsc::Receiver<String>,
}

pub fn command(data: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_arriero"));
    command.arg("serve").arg("--data-dir").arg(data).env_clear().kill_on_drop(true);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

impl Process {
    pub async fn start(data: &Path, fake: &FakeOllama, args: &[&str]) -> Self {
        Self::of(command(data).args(["--listen", "127.0.0.1:0", "--ollama", &fake.url()]).args(args)).await
    }

    pub async fn of(command: &mut Command) -> Self {
        let mut child = command.spawn().expect("starts");
        let mut lines = BufReader::new(child.stdout.take().expect("piped")).lines();
        let first = timeout(PATIENCE, lines.next_line()).await.expect("in time").expect("text");
        let url = first.as_deref().and_then(|line| line.split("listens on ").nth(1)).map(str::to_owned);
        let url = url.unwrap_or_else(|| panic!("no address in {first:?}"));
        // Read on, so that the process is never held up by a full pipe.
        let (sender, said) = tokio::sync::mpsc::channel(100);
        tokio::spawn(async move {
            while let Ok(Some(line)) = lines.next_line().await {
                let _ = sender.try_send(line);
            }
        });
        let client = reqwest::Client::builder().timeout(PATIENCE).no_proxy().build().expect("a client");
        Self { child, url, client, said }
    }

    async fn post(&self, body: &Value) -> reqwest::Response {
        self.client.post(format!("{}/generate", self.url)).json(body).send().await.expect("an answer")
    }

    pub fn signal(&self, signal: &str) {
        let pid = self.child.id().expect("runs").to_string();
        let sent = std::process::Command::new("kill").args([signal, &pid]).status().expect("kill runs");
        assert!(sent.success());
    }

    pub async fn ended(&mut self) -> ExitStatus {
        timeout(PATIENCE, self.child.wait()).await.expect("it ends").expect("a status")
    }
}

/// Exit code and message of a start that must fail.
pub async fn refused(data: &Path, args: &[&str]) -> (i32, String) {
    let mut child = command(data).args(args).spawn().expect("starts");
    let status = timeout(PATIENCE, child.wait()).await.expect("it ends").expect("a status");
    let mut said = String::new();
    child.stderr.take().expect("piped").read_to_string(&mut said).await.expect("text");
    assert_eq!(said.trim_end().lines().count(), 1, "one line: {said}");
    (status.code().expect("a code"), said)
}

#[tokio::test]
async fn each_reason_not_to_start_has_its_line_and_its_code() {
    let folder = tempfile::tempdir().expect("a folder");
    let data = folder.path();
    let fake = fake(|_| {}).await;
    let here = fake.url();
    let nobody = ["--listen", "127.0.0.1:0", "--ollama", "http://127.0.0.1:9"];

    let (code, said) = refused(data, &nobody).await;
    assert_eq!(code, 7, "{said}");
    assert!(said.contains("127.0.0.1:9") && said.contains("--ollama") && said.contains("--model"), "{said}");

    let busy = fake.address().to_string();
    let (code, said) = refused(data, &["--listen", &busy, "--ollama", &here]).await;
    assert_eq!(code, 5, "{said}");
    assert!(said.contains(&busy) && said.contains("--listen"), "{said}");

    let (code, said) = refused(data, &["--listen", "0.0.0.0:0", "--ollama", &here]).await;
    assert_eq!(code, 9, "{said}");
    assert!(said.contains("--insecure-public-bind"), "{said}");

    let file = data.join("file");
    std::fs::write(&file, "not a folder").expect("written");
    let (code, said) = refused(&file, &["--listen", "127.0.0.1:0", "--ollama", &here]).await;
    assert_eq!(code, 6, "{said}");

    let (code, said) = refused(data, &["--listen", "127.0.0.1:0", "--ollama", "ftp://x"]).await;
    assert_eq!(code, 3, "{said}");
}

#[cfg(feature = "embedded")]
#[tokio::test]
async fn a_model_file_that_is_none_has_its_line_and_its_code() {
    let folder = tempfile::tempdir().expect("a folder");
    let data = folder.path();
    let model = crate::support::demo_model();
    let whole = std::fs::read(&model).expect("the demo model");
    let cases: [(&str, &[u8], &str); 4] = [
        ("empty.gguf", b"", "incomplete"),
        ("text.gguf", b"this is no model at all, only some text that is long enough", "GGUF"),
        ("half.gguf", &whole[..whole.len() / 2], "incomplete"),
        ("head.gguf", &whole[..1000], "ends"),
    ];
    for (name, bytes, word) in cases {
        let path = data.join(name);
        std::fs::write(&path, bytes).expect("written");
        let path = path.to_str().expect("UTF-8");
        let (code, said) = refused(data, &["--listen", "127.0.0.1:0", "--model", path]).await;
        assert_eq!(code, 4, "{said}");
        assert!(said.contains(name) && said.contains(word), "{name}: {said}");
    }
    let (code, said) = refused(data, &["--listen", "127.0.0.1:0", "--model", "/nowhere/model.gguf"]).await;
    assert_eq!(code, 4, "{said}");

    // A family nobody supports: the same file under another architecture.
    let mut foreign = std::fs::read("tests/golden/lm_llama3-scaling-tied.gguf").expect("a fixture");
    let at = foreign.windows(5).position(|window| window == b"llama").expect("an architecture");
    foreign[at..at + 5].copy_from_slice(b"zebra");
    let path = data.join("foreign.gguf");
    std::fs::write(&path, foreign).expect("written");
    let (code, said) = refused(data, &["--listen", "127.0.0.1:0", "--model", path.to_str().expect("UTF-8")]).await;
    assert_eq!(code, 4, "{said}");
    assert!(said.contains("zebra") && said.contains("gemma3"), "it says what it is and what is supported: {said}");
}

#[tokio::test]
async fn two_processes_cannot_share_a_data_folder() {
    let folder = tempfile::tempdir().expect("a folder");
    let fake = fake(|_| {}).await;
    let _first = Process::start(folder.path(), &fake, &[]).await;
    let (code, said) = refused(folder.path(), &["--listen", "127.0.0.1:0", "--ollama", &fake.url()]).await;
    assert_eq!(code, 6, "{said}");
}

#[tokio::test]
async fn sigterm_under_load_finishes_what_runs() {
    let folder = tempfile::tempdir().expect("a folder");
    let fake = fake(|s| s.token_gap = Duration::from_millis(20)).await;
    let mut process = Process::start(folder.path(), &fake, &[]).await;
    let body = json!({"model": "gemma3:270m", "prompt": "x", "stream": true, "options": {"num_predict": 30}});
    let mut answers = Vec::new();
    for _ in 0..4 {
        answers.push(process.post(&body).await);
    }
    fake.wait_for(|seen| seen.tokens > 4).await.expect("tokens come");
    process.signal("-TERM");
    for answer in answers {
        let events = read_events(answer).await;
        assert_eq!(events.last().expect("events").event, "done");
        assert_eq!(events.iter().filter(|e| e.event == "token").count(), 30);
    }
    assert_eq!(process.ended().await.code(), Some(0));
}

#[tokio::test]
async fn a_second_signal_ends_at_once() {
    let folder = tempfile::tempdir().expect("a folder");
    let fake = fake(|s| s.prefill = Duration::from_mins(10)).await;
    let mut process = Process::start(folder.path(), &fake, &[]).await;
    let waiting = process.client.post(format!("{}/generate", process.url)).json(&json!({"model": "gemma3:270m", "prompt": "x"})).send();
    let waiting = tokio::spawn(waiting);
    fake.wait_for(|seen| seen.generating == 1).await.expect("it runs");
    process.signal("-INT");
    crate::support::eventually("the listener closes", async || {
        tokio::net::TcpStream::connect(process.url.trim_start_matches("http://")).await.is_err()
    })
    .await;
    process.signal("-INT");
    assert_eq!(process.ended().await.code(), Some(130));
    assert!(waiting.await.expect("no panic").is_err());
}

#[tokio::test]
async fn after_a_kill_it_starts_again_where_it_was() {
    let folder = tempfile::tempdir().expect("a folder");
    let fake = fake(|s| s.token_gap = Duration::from_millis(10)).await;
    for round in 0..3 {
        let mut process = Process::start(folder.path(), &fake, &[]).await;
        let short = json!({"model": "gemma3:270m", "prompt": "x", "options": {"num_predict": 2}});
        assert_eq!(process.post(&short).await.status(), 200, "round {round}");
        let running =
            process.post(&json!({"model": "gemma3:270m", "prompt": "x", "stream": true, "options": {"num_predict": 10_000}})).await;
        process.signal("-KILL");
        process.ended().await;
        assert!(running.bytes().await.is_err(), "a cut stream is no clean end");
    }
    fake.wait_for(|seen| seen.in_flight == 0).await.expect("the work stops");
}

#[tokio::test]
async fn client_commands_talk_to_it() {
    let folder = tempfile::tempdir().expect("a folder");
    let fake = fake(|_| {}).await;
    let process = Process::start(folder.path(), &fake, &[]).await;
    let run = async |args: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_arriero"));
        command.args(args).args(["--url", &process.url]).env_clear().stdin(Stdio::null()).kill_on_drop(true);
        let output = timeout(PATIENCE, command.output()).await.expect("in time").expect("runs");
        (output.status.code(), String::from_utf8_lossy(&output.stdout).into_owned(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    let (code, said, _) = run(&["generate", "--model", "gemma3:270m", "Hello"]).await;
    assert!(code == Some(0) && said.trim().len() > 5, "{said}");
    let (code, said, _) = run(&["models"]).await;
    assert!(code == Some(0) && said.contains("gemma3:270m"), "{said}");
    assert_eq!(run(&["health"]).await.0, Some(0));
    let (code, _, error) = run(&["generate", "--model", "gemma3:27b", "Hello"]).await;
    assert!(code == Some(11) && error.contains("gemma3:270m"), "{error}");
}

#[tokio::test]
async fn a_start_is_quick() {
    // Not a measurement (that is `make bench`): only that nothing in it waits for a timeout.
    let folder = tempfile::tempdir().expect("a folder");
    let fake = fake(|_| {}).await;
    let before = Instant::now();
    let process = Process::start(folder.path(), &fake, &[]).await;
    let answer: Value =
        process.post(&json!({"model": "gemma3:270m", "prompt": "x", "options": {"num_predict": 1}})).await.json().await.expect("JSON");
    assert_eq!(answer["done"], true);
    assert!(before.elapsed() < PATIENCE / 2);
}
