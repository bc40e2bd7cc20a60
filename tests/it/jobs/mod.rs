//! Background jobs on the real binary: what is acknowledged is done, whoever dies meanwhile.

mod api;
mod cli;
mod crash;
#[cfg(target_os = "linux")]
mod full_disk;
mod upload;
mod workers;

use std::path::Path;
use std::time::Duration;

use arriero_bench::fake::FakeOllama;
use reqwest::Method;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::process::Command;

use crate::process::{Process, command};
use crate::support::{Listener, PATIENCE, data, eventually, fake};

/// Settings under which nothing takes long.
const QUICK: &[(&str, &str)] = &[
    ("ARRIERO_JOBS__TRIAL", "true"),
    ("ARRIERO_JOBS__LOOK_INTERVAL", "50ms"),
    ("ARRIERO_JOBS__LEASE", "2s"),
    ("ARRIERO_JOBS__RETRY_AFTER", "50ms"),
    ("ARRIERO_JOBS__KILL_AFTER", "500ms"),
    ("ARRIERO_JOBS__RESOURCES__DISK_RESERVE_BYTES", "0"),
    ("ARRIERO_JOBS__RESOURCES__CPU_THREADS", "4"),
];

/// A gateway on a data folder that stays when the gateway goes.
pub struct Yard {
    pub data: TempDir,
    pub fake: FakeOllama,
    pub process: Process,
    more: Vec<(&'static str, &'static str)>,
}

impl Yard {
    pub async fn new() -> Self {
        Self::with(&[]).await
    }

    pub async fn with(more: &[(&'static str, &'static str)]) -> Self {
        Self::on(tempfile::tempdir().expect("a folder"), more).await
    }

    /// With its data in a folder that is there already.
    pub async fn on(data: TempDir, more: &[(&'static str, &'static str)]) -> Self {
        let fake = fake(|_| {}).await;
        let process = start(data.path(), &fake, more).await;
        Self { data, fake, process, more: more.to_vec() }
    }

    /// Puts a file where jobs may read it.
    pub fn put(&self, path: &str, bytes: impl AsRef<[u8]>) {
        let path = self.data.path().join("files").join(path);
        std::fs::create_dir_all(path.parent().expect("a folder")).expect("made");
        std::fs::write(path, bytes).expect("written");
    }

    pub async fn kill_and_start_again(&mut self) {
        self.process.signal("-KILL");
        self.process.ended().await;
        self.process = start(self.data.path(), &self.fake, &self.more).await;
    }

    pub async fn ask(&self, method: Method, path: &str, body: Option<Value>) -> (u16, Value) {
        let request = self.process.client.request(method, format!("{}{path}", self.process.url));
        let request = if let Some(body) = body { request.json(&body) } else { request };
        let response = request.send().await.expect("an answer");
        let status = response.status().as_u16();
        (status, response.json().await.unwrap_or_default())
    }

    pub async fn get(&self, path: &str) -> Value {
        let (status, body) = self.ask(Method::GET, path, None).await;
        assert_eq!(status, 200, "{path}: {body}");
        body
    }

    pub async fn submit(&self, body: Value) -> String {
        let (status, made) = self.ask(Method::POST, "/jobs", Some(body)).await;
        assert_eq!(status, 201, "{made}");
        made["id"].as_str().expect("an id").to_owned()
    }

    pub async fn trial(&self, input: Value) -> String {
        self.submit(json!({"kind": "trial", "input": input})).await
    }

    pub async fn job(&self, id: &str) -> Value {
        self.get(&format!("/jobs/{id}")).await
    }

    pub async fn until(&self, id: &str, state: &str) -> Value {
        let seen = std::cell::RefCell::new(Value::Null);
        let holds = async || {
            let job = self.job(id).await;
            let holds = job["state"] == state;
            let over = ["succeeded", "failed", "cancelled"].iter().any(|end| job["state"] == *end);
            assert!(holds || !over, "it was to be {state}: {job}");
            *seen.borrow_mut() = job;
            holds
        };
        eventually(&format!("that the job is {state}"), holds).await;
        seen.into_inner()
    }

    /// Until so many of its steps have ended.
    pub async fn until_steps(&self, id: &str, steps: u64) {
        eventually("that steps end", async || self.job(id).await["steps_ended"].as_u64() >= Some(steps)).await;
    }

    /// Name and data of all events, to the end of the job.
    pub async fn events(&self, id: &str) -> Vec<(String, Value)> {
        let mut listener = self.follow(id, None).await;
        let mut events = Vec::new();
        while let Some(event) = listener.next().await {
            events.push((event.event.clone(), data(&event)));
        }
        events
    }

    pub async fn follow(&self, id: &str, after: Option<&str>) -> Listener {
        let mut request = self.process.client.get(format!("{}/jobs/{id}/events", self.process.url));
        if let Some(after) = after {
            request = request.header("last-event-id", after);
        }
        let response = request.send().await.expect("an answer");
        assert_eq!(response.status(), 200);
        Listener::new(response)
    }

    pub async fn artifact(&self, id: &str, name: &str) -> Vec<u8> {
        let url = format!("{}/jobs/{id}/artifacts/{name}", self.process.url);
        let response = self.process.client.get(url).send().await.expect("an answer");
        assert_eq!(response.status(), 200);
        response.bytes().await.expect("a body").to_vec()
    }

    /// The child processes of the gateway.
    pub fn children(&self) -> Vec<u32> {
        children_of(self.process.child.id().expect("runs"))
    }
}

pub async fn start(data: &Path, fake: &FakeOllama, more: &[(&str, &str)]) -> Process {
    let mut command = command(data);
    command.args(["--listen", "127.0.0.1:0", "--ollama", &fake.url()]).envs(QUICK.iter().copied()).envs(more.iter().copied());
    // Nobody reads it, and a full pipe would hold the gateway up.
    command.stderr(std::process::Stdio::null());
    Process::of(&mut command).await
}

/// `arriero worker` on a data folder.
pub fn worker(data: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_arriero"));
    command.arg("worker").arg("--data-dir").arg(data).env_clear().envs(QUICK.iter().copied()).kill_on_drop(true);
    command.stdin(std::process::Stdio::null()).stdout(std::process::Stdio::null()).stderr(std::process::Stdio::null());
    command
}

pub fn children_of(parent: u32) -> Vec<u32> {
    let tasks = std::fs::read_dir(format!("/proc/{parent}/task")).into_iter().flatten().flatten();
    let children = tasks.filter_map(|task| std::fs::read_to_string(task.path().join("children")).ok());
    children.flat_map(|text| text.split_whitespace().filter_map(|pid| pid.parse().ok()).collect::<Vec<_>>()).collect()
}

pub fn kill(pid: u32, signal: &str) {
    // It may have ended just now.
    let _ = std::process::Command::new("kill").args([signal, &pid.to_string()]).status();
}

/// Waits for a child process of the gateway.
pub async fn a_child(yard: &Yard) -> u32 {
    eventually("that a child starts", async || !yard.children().is_empty()).await;
    yard.children()[0]
}

/// What an undisturbed trial of so many steps makes.
pub fn made(steps: usize) -> String {
    (0..steps).map(|n| format!("step {n}")).collect::<Vec<_>>().join("\n")
}

/// Lines of the log that say that a step was done.
pub fn done_in(events: &[(String, Value)]) -> Vec<String> {
    let lines = events.iter().filter(|(name, _)| name == "log").filter_map(|(_, data)| data["line"].as_str().map(str::to_owned));
    lines.filter(|line| line.starts_with("step ")).collect()
}

/// A pause in which nothing is expected.
pub async fn a_moment() {
    tokio::time::sleep(Duration::from_millis(300).min(PATIENCE)).await;
}
