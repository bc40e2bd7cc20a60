//! Arriero in this process, on a port of its own, with a data folder of its own, in front of fake servers.

use std::net::SocketAddr;
use std::time::Duration;

use arriero::app::{self, App};
use arriero::backends::ollama;
use arriero::config::Config;
use arriero::domain::clock::Clock;
use arriero_bench::fake::{FakeOllama, Script};
use arriero_bench::sse;
use futures_util::StreamExt;
use serde_json::{Value, json};
use tempfile::TempDir;

/// How long anything may take before a test calls it hung. Generous: the machine may be busy.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// A running gateway. Dropping it ends everything at once; [`TestApp::end`] ends it in order.
pub struct TestApp {
    pub url: String,
    pub address: SocketAddr,
    pub client: reqwest::Client,
    pub data: TempDir,
    app: Option<App>,
}

/// The configuration of tests: a free port, an own data folder, no waiting.
pub fn config(data: &TempDir, fakes: &[&FakeOllama]) -> Config {
    let mut config = Config::default();
    config.server.listen = SocketAddr::from(([127, 0, 0, 1], 0));
    data.path().clone_into(&mut config.data_dir);
    // A deep check asks for a token of its own, which tests that count requests would see.
    let server = |fake: &&FakeOllama| ollama::Config {
        url: fake.url(),
        deep_probe_interval: Duration::from_hours(1),
        slots: Some(4),
        ..ollama::Config::default()
    };
    config.ollama = fakes.iter().map(server).collect();
    // All tests are one address, and some try many wrong keys.
    config.limits.address.wrong_keys_per_minute = None;
    config
}

impl TestApp {
    pub async fn spawn(fake: &FakeOllama) -> Self {
        Self::with(&[fake], |_| {}).await
    }

    pub async fn with(fakes: &[&FakeOllama], change: impl FnOnce(&mut Config)) -> Self {
        let data = tempfile::tempdir().expect("a folder");
        let mut config = config(&data, fakes);
        change(&mut config);
        let app = app::start(config, Clock::system()).await.expect("starts");
        let client = reqwest::Client::builder().timeout(PATIENCE).no_proxy().build().expect("a client");
        let address = app.address();
        Self { url: format!("http://{address}"), address, client, data, app: Some(app) }
    }

    pub async fn post(&self, body: Value) -> reqwest::Response {
        self.client.post(format!("{}/generate", self.url)).json(&body).send().await.expect("an answer")
    }

    pub async fn get(&self, path: &str) -> reqwest::Response {
        self.client.get(format!("{}{path}", self.url)).send().await.expect("an answer")
    }

    /// Status and body of a request that does not stream.
    pub async fn ask(&self, body: Value) -> (u16, Value) {
        let response = self.post(body).await;
        (response.status().as_u16(), response.json().await.expect("JSON"))
    }

    /// All events of a request that streams.
    pub async fn events(&self, mut body: Value) -> Vec<sse::Event> {
        body["stream"] = json!(true);
        let response = self.post(body).await;
        assert_eq!(response.status(), 200, "{:?}", response.text().await);
        assert_eq!(response.headers()["content-type"], "text/event-stream; charset=utf-8");
        read_events(response).await
    }

    /// Lines of the metrics that begin so.
    pub async fn metric(&self, series: &str) -> Option<f64> {
        let text = self.get("/metrics").await.text().await.expect("text");
        text.lines().find_map(|line| line.strip_prefix(series)?.trim().parse().ok())
    }

    pub fn app(&self) -> &App {
        self.app.as_ref().expect("runs")
    }

    /// Ends in order and gives back the data folder.
    pub async fn end(mut self) -> TempDir {
        self.app.take().expect("runs").end().await;
        self.data
    }
}

pub async fn fake(change: impl FnOnce(&mut Script)) -> FakeOllama {
    let mut script = Script::default();
    change(&mut script);
    FakeOllama::spawn(script).await.expect("a port")
}

/// Reads a stream of events to its end, which must be a clean one.
pub async fn read_events(response: reqwest::Response) -> Vec<sse::Event> {
    let mut parser = sse::Parser::new();
    let mut events = Vec::new();
    let mut body = response.bytes_stream();
    while let Some(piece) = body.next().await {
        parser.feed(&piece.expect("a whole body"), &mut events);
    }
    assert!(!parser.pending(), "the stream ends inside an event");
    events.retain(|event| event.comment.is_none());
    events
}

/// The data of an event.
pub fn data(event: &sse::Event) -> Value {
    serde_json::from_str(&event.data).expect("JSON")
}

/// The text of all `token` events.
pub fn text(events: &[sse::Event]) -> String {
    events.iter().filter(|e| e.event == "token").filter_map(|e| data(e)["text"].as_str().map(str::to_owned)).collect()
}

/// Waits until something holds.
pub async fn eventually<F: Future<Output = bool>>(what: &str, mut holds: impl FnMut() -> F) {
    let deadline = tokio::time::Instant::now() + PATIENCE;
    while !holds().await {
        assert!(tokio::time::Instant::now() < deadline, "{what} did not happen");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// The real model that tests of the engine read; `make test` fetches it.
#[cfg(feature = "embedded")]
pub fn demo_model() -> std::path::PathBuf {
    let fetched = || std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("target/models/gemma-3-270m-q4_k_m.gguf");
    let path = std::env::var_os("ARRIERO_TEST_MODEL").map_or_else(fetched, Into::into);
    assert!(
        path.is_file(),
        "this test needs the demo model: `make model` puts it at {}, or set ARRIERO_TEST_MODEL to where it is",
        path.display()
    );
    path
}
