//! `arriero dataset` and the kind of job `dataset`, on the real binary: both make the same, and nothing of what was masked is told.

use std::path::Path;
use std::process::{Command, Output, Stdio};

use reqwest::Method;
use serde_json::{Value, json};

use crate::jobs::Yard;

const SECRET: &str = "sk-0123456789abcdefghijABCDEFGHIJ";

/// Forty rows, of which some are bad, twice there, or hold a secret.
fn rows() -> String {
    let row = |n: u32| {
        let answer: String = (0..20).map(|word| ["w", &(n * 100 + word).to_string(), " "].concat()).collect();
        json!({"prompt": format!("Question {n}?"), "completion": answer}).to_string()
    };
    let mut lines: Vec<String> = (0..37).map(row).collect();
    lines.push(row(1).replace("w100", "W100!"));
    lines.push(json!({"prompt": "My key?", "completion": format!("It is {SECRET} as always.")}).to_string());
    lines.push("{\"prompt\": \"no end".to_owned());
    lines.join("\n")
}

/// Runs `arriero dataset`, without a terminal and in a folder of its own.
fn dataset(place: &Path, words: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_arriero"));
    command.arg("dataset").args(words).env_clear().env("HOME", place).current_dir(place);
    command.stdin(Stdio::null()).output().expect("the program runs")
}

fn answer(output: &Output) -> Value {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).expect("JSON")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).expect("text")
}

#[tokio::test]
async fn a_job_and_a_command_make_the_same() {
    let yard = Yard::new().await;
    yard.put("rows.jsonl", rows());
    let place = tempfile::tempdir().expect("a folder");
    std::fs::create_dir(place.path().join("files")).expect("made");
    std::fs::write(place.path().join("files/rows.jsonl"), rows()).expect("written");

    let input = json!({"sources": [{"path": "files/rows.jsonl"}], "split": {"validation": 0.1, "test": 0.1}, "seed": 3});
    let id = yard.submit(json!({"kind": "dataset", "input": input})).await;
    let job = yard.until(&id, "succeeded").await;
    assert_eq!(job["result"]["rows"], json!({"train": 30, "validation": 4, "test": 4}), "{job}");

    let made = answer(&dataset(place.path(), &["files/rows.jsonl", "--split", "80,10,10", "--seed", "3", "--json"]));
    assert_eq!(made["version"], job["result"]["version"]);
    let mut all = String::new();
    for name in ["train.jsonl", "validation.jsonl", "test.jsonl", "report.json", "report.md"] {
        let by_job = text(&yard.artifact(&id, name).await);
        assert_eq!(by_job, std::fs::read_to_string(place.path().join("dataset").join(name)).expect("there"), "{name}");
        all += &by_job;
    }
    assert!(all.contains("[API KEY]") && !all.contains(SECRET));
    let report: Value = serde_json::from_slice(&yard.artifact(&id, "report.json").await).expect("JSON");
    assert_eq!(report["sources"][0]["bad"]["not JSON"]["count"], 1, "{report}");
    assert_eq!(report["cleaned"]["dropped"]["duplicate"]["first"], json!(["files/rows.jsonl:38"]));
    assert_eq!(report["cleaned"]["masked"]["API key"]["first"], json!(["files/rows.jsonl:39"]));

    // What a job has made is what another one can begin with.
    let again = json!({"sources": [{"path": format!("artifact:{id}/train.jsonl")}], "split": {"validation": 0.0, "test": 0.0}});
    let id = yard.submit(json!({"kind": "dataset", "input": again, "after": [id]})).await;
    assert_eq!(yard.until(&id, "succeeded").await["result"]["rows"]["train"], 30);
}

#[tokio::test]
async fn what_a_job_cannot_make_is_refused_or_fails_at_once() {
    let yard = Yard::new().await;
    yard.put("bad.jsonl", "7\n8\n");
    for input in [json!({"sources": []}), json!({"sources": [{"path": "files/none.jsonl"}]}), json!({"sources": [{"path": "/etc/passwd"}]})]
    {
        let (status, problem) = yard.ask(Method::POST, "/jobs", Some(json!({"kind": "dataset", "input": input}))).await;
        assert!((400..500).contains(&status), "{input}: {problem}");
    }
    let id = yard.submit(json!({"kind": "dataset", "input": {"sources": [{"path": "files/bad.jsonl"}]}})).await;
    let job = yard.until(&id, "failed").await;
    assert_eq!(job["attempts"], 1, "trying again does not help");
    assert!(job["error"]["message"].as_str().is_some_and(|why| why.contains("2 of 2 rows")), "{job}");
}

#[test]
fn a_command_says_what_it_would_do_and_writes_over_nothing_unasked() {
    let place = tempfile::tempdir().expect("a folder");
    std::fs::write(place.path().join("rows.jsonl"), rows()).expect("written");
    let told = dataset(place.path(), &["rows.jsonl", "--report"]);
    let (out, notes) = (text(&told.stdout), text(&told.stderr));
    assert!(told.status.success() && out.starts_with("SIDE") && !place.path().join("dataset").exists(), "{out}{notes}");
    assert!(notes.contains("1 rows left out: duplicate (rows.jsonl:38)") && !notes.contains(SECRET), "{notes}");

    let refused = |words: &[&str], code: i32, why: &str| {
        let output = dataset(place.path(), words);
        let notes = text(&output.stderr);
        assert_eq!((output.status.code(), notes.lines().count()), (Some(code), 1), "{notes}");
        assert!(notes.contains(why), "{notes}");
    };
    assert!(dataset(place.path(), &["rows.jsonl"]).status.success());
    refused(&["rows.jsonl"], 2, "is there already");
    assert!(dataset(place.path(), &["rows.jsonl", "--overwrite"]).status.success());
    refused(&["none.jsonl", "--out", "x"], 1, "cannot be read");
    let wrong = dataset(place.path(), &["rows.jsonl", "--out", "x", "--split", "0,1,1"]);
    assert!(wrong.status.code() == Some(2) && text(&wrong.stderr).contains("three parts"), "{}", text(&wrong.stderr));
    refused(&["rows.jsonl", "--out", "x", "--max-bad-share", "0"], 1, "1 of 40 rows");
    refused(&["rows.jsonl", "--out", "x", "--language", "en"], 2, "ISO 639-3");
}

#[cfg(feature = "embedded")]
#[test]
fn a_command_counts_tokens_as_a_model_reads_them() {
    let place = tempfile::tempdir().expect("a folder");
    std::fs::write(place.path().join("rows.jsonl"), rows()).expect("written");
    let model = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/dataset/qwen2.gguf");
    let model = model.to_str().expect("text");
    let made = answer(&dataset(place.path(), &["rows.jsonl", "--report", "--json", "--model", model, "--sequence-tokens", "4096"]));
    let train = &made["tokens"]["train"];
    assert_eq!(train["rows"], made["divided"]["train"], "{made}");
    assert!(train["labels"].as_u64() < train["tokens"].as_u64() && train["label_share"].as_f64() > Some(0.1), "{train}");
    let output = dataset(place.path(), &["rows.jsonl", "--report", "--model", "rows.jsonl"]);
    assert_eq!(output.status.code(), Some(4));
}
