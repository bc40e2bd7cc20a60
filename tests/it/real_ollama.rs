//! Against a real Ollama, where `ARRIERO_TEST_OLLAMA` names one that has a model that generates (the first in its list, or the one
//! that `ARRIERO_TEST_OLLAMA_MODEL` names).

use arriero::app;
use arriero::backends::ollama;
use arriero::domain::clock::Clock;
use serde_json::{Value, json};

use crate::support::{data, read_events, text};

#[tokio::test]
async fn a_real_server_answers_whole_and_streamed() {
    let Ok(url) = std::env::var("ARRIERO_TEST_OLLAMA") else {
        println!("skipped: ARRIERO_TEST_OLLAMA names no server");
        return;
    };
    let folder = tempfile::tempdir().expect("a folder");
    let mut config = crate::support::config(&folder, &[]);
    config.ollama = vec![ollama::Config { url, ..ollama::Config::default() }];
    let app = app::start(config, Clock::system()).await.expect("starts");
    let gateway = format!("http://{}", app.address());
    let client = reqwest::Client::builder().no_proxy().build().expect("a client");
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
