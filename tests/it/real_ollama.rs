//! Against a real Ollama, where `ARRIERO_TEST_OLLAMA` names one that has a model that generates (the first in its list, or the one
//! that `ARRIERO_TEST_OLLAMA_MODEL` names).

use std::path::Path;

use arriero::app;
use arriero::backends::ollama;
use arriero::domain::clock::Clock;
use reqwest::{Client, Method};
use serde_json::{Value, json};

use crate::convert::{answer, convert};
use crate::support::{data, demo_model, read_events, text};

fn server() -> Option<String> {
    let url = std::env::var("ARRIERO_TEST_OLLAMA").ok();
    if url.is_none() {
        println!("skipped: ARRIERO_TEST_OLLAMA names no server");
    }
    url
}

#[tokio::test]
async fn a_real_server_answers_whole_and_streamed() {
    let Some(url) = server() else { return };
    let folder = tempfile::tempdir().expect("a folder");
    let mut config = crate::support::config(&folder, &[]);
    config.ollama = vec![ollama::Config { url, ..ollama::Config::default() }];
    let app = app::start(config, Clock::system()).await.expect("starts");
    let gateway = format!("http://{}", app.address());
    let client = Client::builder().no_proxy().build().expect("a client");
    let models: Value = client.get(format!("{gateway}/models")).send().await.expect("an answer").json().await.expect("JSON");
    let first = || models["models"][0]["name"].as_str().expect("the server has a model").to_owned();
    let model = std::env::var("ARRIERO_TEST_OLLAMA_MODEL").unwrap_or_else(|_| first());
    let request = |stream: bool| json!({"model": model, "prompt": "Count to ten.", "stream": stream, "options": {"num_predict": 16, "temperature": 0, "seed": 1}});
    let ask = async |stream: bool| client.post(format!("{gateway}/generate")).json(&request(stream)).send().await.expect("an answer");

    let whole: Value = ask(false).await.json().await.expect("JSON");
    assert_eq!(whole["done"], true, "{whole}");
    assert!(whole["eval_count"].as_u64().is_some_and(|count| (1..=16).contains(&count)), "{whole}");
    let events = read_events(ask(true).await).await;
    let last = events.last().expect("events");
    assert_eq!(last.event, "done", "{last:?}");
    assert_eq!(data(last)["eval_count"], whole["eval_count"]);
    assert_eq!(text(&events), whole["response"].as_str().expect("text"));
    app.end().await;
}

/// A real server, and a folder of our own.
struct Shelf {
    url: String,
    client: Client,
    folder: tempfile::TempDir,
}

impl Shelf {
    async fn ask(&self, method: Method, path: &str, body: Value) -> String {
        let response = self.client.request(method, format!("{}{path}", self.url)).json(&body).send().await.expect("an answer");
        let (status, text) = (response.status(), response.text().await.expect("text"));
        assert!(status.is_success(), "{path}: {status} {text}");
        text
    }

    /// The digest of a model's file.
    async fn file_of(&self, model: &str) -> String {
        let shown: Value = serde_json::from_str(&self.ask(Method::POST, "/api/show", json!({"model": model})).await).expect("JSON");
        let from = shown["modelfile"].as_str().expect("a Modelfile").lines().find(|line| line.starts_with("FROM ")).expect("a file");
        from.rsplit_once("sha256-").expect("a digest").1.to_owned()
    }

    /// What `arriero convert` made, and published under a name.
    fn convert(&self, source: &Path, kind: &str, name: &str) -> String {
        let out = self.folder.path().join(format!("{kind}.gguf"));
        let paths = [source, &out].map(|path| path.to_str().expect("UTF-8"));
        let words = [paths[0], "-q", kind, "--allow-requantize", "--json", "--publish", name, "--out", paths[1]];
        let made = answer(&convert(self.folder.path(), &self.url, &words));
        made["files"][0]["sha256"].as_str().expect("a digest").to_owned()
    }
}

#[tokio::test]
async fn a_real_server_keeps_our_files_as_they_are_and_makes_the_same() {
    let Some(url) = server() else { return };
    let client = Client::builder().no_proxy().build().expect("a client");
    let shelf = Shelf { url: url.trim_end_matches('/').to_owned(), client, folder: tempfile::tempdir().expect("a folder") };
    let [source, ours, theirs] = ["source", "ours", "theirs"].map(|name| format!("arriero-test/{name}"));
    let digest = shelf.convert(&demo_model(), "F16", &source);
    assert_eq!(shelf.file_of(&source).await, digest);
    let file = shelf.folder.path().join("F16.gguf");
    for kind in ["Q8_0", "Q4_K_M", "Q4_K_S"] {
        let made = shelf.convert(&file, kind, &ours);
        assert_eq!(shelf.file_of(&ours).await, made, "{kind} is kept as it is");
        let wanted = json!({"model": theirs, "files": {"model.gguf": format!("sha256:{digest}")}, "quantize": kind, "stream": false});
        shelf.ask(Method::POST, "/api/create", wanted).await;
        assert_eq!(shelf.file_of(&theirs).await, made, "{kind} of the server's own making");
    }
    for model in [source, ours, theirs] {
        shelf.ask(Method::DELETE, "/api/delete", json!({"model": model})).await;
    }
}
