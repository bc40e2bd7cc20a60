//! A real model learns a real task: Gemma 3 270M, from its quantised file, reads orders that it could not read before.

use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use crate::process::{Process, command};
use crate::support::demo_model;

/// Longer than any answer of the task.
const ANSWER_TOKENS: u32 = 32;

/// Trains some steps on orders in words, which are to become lines that a program reads. Phrases of the test are in no other row.
fn learn(data: &Path) -> Value {
    let (rows, options) = (Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/finetune/orders.jsonl"), data.join("options.json"));
    std::fs::write(&options, json!({"evaluate": {"max_items": 15, "max_tokens": ANSWER_TOKENS}}).to_string()).expect("written");
    let mut command = Command::new(env!("CARGO_BIN_EXE_arriero"));
    // It takes minutes, beside other tests: threads that wait for each other would take more.
    command.args(["finetune", "--out", "orders", "--json", "--device", "cpu", "--threads", "1"]);
    command.arg("--base").arg(demo_model()).arg("--data").arg(rows).arg("--options").arg(options);
    command.args(["--group", "group", "--validation-share", "0.02", "--test-share", "0.2", "--learning-rate", "0.0005"]);
    command.args(["--sequence-tokens", "256", "--batch-tokens", "1024", "--accumulation", "1", "--max-steps", "12"]);
    command.env("ARRIERO_DATA_DIR", data).stdin(Stdio::null());
    let output = command.output().expect("the program runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).expect("JSON")
}

#[tokio::test]
async fn a_quantised_model_learns_what_it_could_not_do_and_does_it_where_it_is_served() {
    let data = tempfile::tempdir().expect("a folder");
    let folder = data.path().to_owned();
    let made = tokio::task::spawn_blocking(move || learn(&folder)).await.expect("it ends");
    let [before, after] = ["before", "after"].map(|when| &made["report"]["tested"][when]);
    let figure = |score: &Value, name: &str| score[name].as_f64().expect("a number");
    assert!(figure(before, "accuracy") < 0.1 && figure(after, "accuracy") > 0.6, "{after}");
    assert!(figure(after, "f1") > 0.85, "{after}");
    assert!(figure(before, "perplexity") > 10.0 && figure(after, "perplexity") < 1.5, "{after}");
    let survival = made["model"]["survival"].as_array().expect("a list");
    assert!(survival.len() == 126 && survival.iter().all(|one| figure(one, "gain") >= 0.95), "{survival:?}");

    // The gateway serves what was made, and it says what the test heard; prompts are read in other pieces there, which may turn a near call.
    let gateway = Process::of(command(data.path()).args(["--listen", "127.0.0.1:0", "--ollama", "http://127.0.0.1:9"])).await;
    let mut same = 0;
    for heard in after["answers"].as_array().expect("answers").iter().take(5) {
        let options = json!({"temperature": 0, "num_predict": ANSWER_TOKENS});
        let ask = json!({"model": "orders", "prompt": heard["prompt"], "raw": true, "stream": false, "options": options});
        let response = gateway.client.post(format!("{}/generate", gateway.url)).json(&ask).send().await.expect("an answer");
        let told: Value = response.json().await.expect("JSON");
        let text = |value: &Value| value.as_str().expect("text").trim().to_owned();
        same += usize::from(text(&told["response"]) == text(&heard["answer"]));
    }
    assert!(same >= 4, "{same} of 5 answers are the same");
}
