//! Arriero in this process, on a port of its own, with a data folder of its own, in front of fake servers.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::Duration;

use arriero::app::{self, App};
use arriero::backends::ollama;
use arriero::config::Config;
use arriero::domain::clock::Clock;
use arriero_bench::fake::{FakeOllama, Script};
use arriero_bench::sse;
use futures_util::StreamExt;
use futures_util::stream::BoxStream;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::task::JoinHandle;

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
        Self::on(tempfile::tempdir().expect("a folder"), fakes, change).await
    }

    /// On a data folder that another one has left.
    pub async fn on(data: TempDir, fakes: &[&FakeOllama], change: impl FnOnce(&mut Config)) -> Self {
        let mut config = config(&data, fakes);
        change(&mut config);
        // It holds the configuration, which is too large for the stack of every test that holds this.
        let app = Box::pin(app::start(config, Clock::system())).await.expect("starts");
        Self::around(app, data)
    }

    pub fn around(app: App, data: TempDir) -> Self {
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

    /// A request by the holder of a key.
    pub async fn post_as(&self, key: &str, body: Value) -> reqwest::Response {
        self.client.post(format!("{}/generate", self.url)).bearer_auth(key).json(&body).send().await.expect("an answer")
    }

    /// A request that others run beside.
    pub fn start(&self, body: &Value) -> JoinHandle<reqwest::Response> {
        let request = self.client.post(format!("{}/generate", self.url)).json(&body);
        tokio::spawn(async move { request.send().await.expect("an answer") })
    }

    /// Reads the events of a request one by one.
    pub async fn listen(&self, mut body: Value) -> Listener {
        body["stream"] = json!(true);
        let response = self.post(body).await;
        assert_eq!(response.status(), 200);
        Listener::new(response)
    }

    /// Waits until so many requests wait for their turn.
    pub async fn until_waiting(&self, wanted: u64) {
        eventually(&format!("that {wanted} wait"), async || self.queue().await["waiting"] == wanted).await;
    }

    pub async fn queue(&self) -> Value {
        self.get("/admin/queue").await.json().await.expect("JSON")
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

/// Reads a stream of events one by one. Dropping it is leaving.
pub struct Listener {
    body: BoxStream<'static, reqwest::Result<bytes::Bytes>>,
    parser: sse::Parser,
    ready: VecDeque<sse::Event>,
}

impl Listener {
    pub fn new(response: reqwest::Response) -> Self {
        Self { body: response.bytes_stream().boxed(), parser: sse::Parser::new(), ready: VecDeque::new() }
    }

    /// The next event that is no heartbeat; `None` at the end of the stream.
    pub async fn next(&mut self) -> Option<sse::Event> {
        loop {
            match self.ready.pop_front() {
                Some(event) if event.comment.is_some() => continue,
                Some(event) => return Some(event),
                None => {}
            }
            let piece = self.body.next().await?.expect("a whole body");
            let mut events = Vec::new();
            self.parser.feed(&piece, &mut events);
            self.ready.extend(events);
        }
    }

    /// The events up to the one of this number among those of this name.
    pub async fn until(&mut self, name: &str, count: usize) -> Vec<sse::Event> {
        let mut events = Vec::new();
        while events.iter().filter(|event: &&sse::Event| event.event == name).count() < count {
            events.push(self.next().await.unwrap_or_else(|| panic!("{count} × {name}, but there were only {events:?}")));
        }
        events
    }

    /// All events that are left.
    pub async fn rest(mut self) -> Vec<sse::Event> {
        let mut events = Vec::new();
        while let Some(event) = self.next().await {
            events.push(event);
        }
        events
    }
}

/// The data of an event.
pub fn data(event: &sse::Event) -> Value {
    serde_json::from_str(&event.data).expect("JSON")
}

/// The text of all `token` events.
pub fn text(events: &[sse::Event]) -> String {
    events.iter().filter(|e| e.event == "token").filter_map(|e| data(e)["text"].as_str().map(str::to_owned)).collect()
}

/// The prompts that a fake was asked, in the order in which they came.
pub fn prompts(fake: &FakeOllama) -> Vec<String> {
    fake.seen(|seen| seen.on("/api/generate").filter_map(|asked| asked.json()["prompt"].as_str().map(str::to_owned)).collect())
}

/// Has a fake load a model, as somebody else's request would.
pub async fn load(fake: &FakeOllama, model: &str) {
    let client = reqwest::Client::builder().no_proxy().build().expect("a client");
    let answer = client.post(format!("{}/api/generate", fake.url())).json(&json!({"model": model})).send().await.expect("an answer");
    assert_eq!(answer.status(), 200);
}

/// How often a fake was asked to generate.
pub fn asked(fake: &FakeOllama) -> usize {
    fake.seen(|seen| seen.on("/api/generate").count())
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
