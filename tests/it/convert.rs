//! `arriero convert` and the kind of job `convert`, on the real binary: what is made, published, refused, and left after a kill.

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use arriero::domain::digest::Digest;
use arriero_bench::fake::FakeOllama;
use reqwest::Method;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use crate::jobs::{Yard, kill};
use crate::support::fake;

/// A tiny model with weights as they were trained.
fn tiny() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/lm_qwen2-biases.gguf")
}

fn sha256(path: &Path) -> String {
    sha256_of(&std::fs::read(path).expect("there"))
}

fn sha256_of(bytes: &[u8]) -> String {
    Digest::new(Sha256::digest(bytes).into()).hex()
}

/// Runs `arriero convert`, without a terminal, for a user with this data folder.
pub fn convert(data: &Path, server: &str, words: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_arriero"));
    command.arg("convert").args(words).env_clear().env("HOME", data).env("ARRIERO_DATA_DIR", data.join("state"));
    command.env("ARRIERO_OLLAMA", server).stdin(Stdio::null()).output().expect("the program runs")
}

/// The same beside a server, whose answers need this thread.
async fn convert_for(data: &Path, fake: &FakeOllama, words: &[&str]) -> Output {
    let (data, server) = (data.to_owned(), fake.url());
    let words: Vec<String> = words.iter().map(|word| (*word).to_owned()).collect();
    let run = move || convert(&data, &server, &words.iter().map(String::as_str).collect::<Vec<_>>());
    tokio::task::spawn_blocking(run).await.expect("no panic")
}

pub fn answer(output: &Output) -> Value {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).expect("JSON")
}

fn complaint(output: &Output, code: i32) -> String {
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(code), "{text}");
    text
}

#[tokio::test]
async fn one_command_makes_and_publishes_files_and_a_second_one_changes_nothing() {
    let (place, fake) = (tempfile::tempdir().expect("a folder"), fake(|_| {}).await);
    let (source, out) = (tiny(), place.path().join("out"));
    let words = |more: &[&'static str]| {
        let all =
            [source.to_str().expect("text"), "-q", "q8_0,F16", "--out", out.to_str().expect("text"), "--publish", "me/tiny", "--json"];
        all.iter().map(|word| (*word).to_owned()).chain(more.iter().map(|word| (*word).to_owned())).collect::<Vec<String>>()
    };
    let run = async |more: &[&'static str]| {
        let words = words(more);
        convert_for(place.path(), &fake, &words.iter().map(String::as_str).collect::<Vec<_>>()).await
    };
    let made = answer(&run(&["--preset", "coder"]).await);
    let files = made["files"].as_array().expect("a list");
    assert_eq!(files.iter().map(|file| file["type"].as_str().expect("text")).collect::<Vec<_>>(), ["Q8_0", "F16"]);
    for file in files {
        let path = Path::new(file["path"].as_str().expect("text"));
        assert_eq!(file["sha256"], sha256(path));
        assert_eq!(file["size_bytes"], std::fs::metadata(path).expect("there").len());
        let modelfile = std::fs::read_to_string(path.with_extension("Modelfile")).expect("there");
        assert!(modelfile.contains("FROM ./") && modelfile.contains("PARAMETER temperature 0.2"), "{modelfile}");
    }
    let published = |made: &Value| -> Vec<(String, String)> {
        let all = made["published"].as_array().expect("a list").iter().filter(|one| one["to"] != "versions");
        all.map(|one| (one["name"].as_str().expect("text").into(), one["outcome"]["action"].as_str().expect("text").into())).collect()
    };
    let named = |action: &str| vec![("me/tiny:q8_0".to_owned(), action.to_owned()), ("me/tiny:f16".to_owned(), action.to_owned())];
    assert_eq!(published(&made), named("created"));
    assert!(fake.models().iter().any(|name| name == "me/tiny:q8_0"), "{:?}", fake.models());

    assert!(complaint(&run(&[]).await, 1).contains("is there already"), "nothing is overwritten unasked");
    let again = answer(&run(&["--overwrite", "--preset", "coder"]).await);
    assert_eq!((again["files"][0]["sha256"].clone(), published(&again)), (files[0]["sha256"].clone(), named("unchanged")));
}

#[tokio::test]
async fn a_plan_says_exactly_what_will_be_made() {
    let place = tempfile::tempdir().expect("a folder");
    let (source, out) = (tiny(), place.path().join("x.gguf"));
    let words = [source.to_str().expect("text"), "-q", "Q4_K_M", "--out", out.to_str().expect("text"), "--json"];
    let planned = answer(&convert(place.path(), "http://127.0.0.1:1", &[&words[..], &["--plan"]].concat()));
    assert!(!out.exists());
    answer(&convert(place.path(), "http://127.0.0.1:1", &words));
    assert_eq!(planned["files"][0]["size_bytes"], std::fs::metadata(&out).expect("there").len());
}

#[test]
fn what_cannot_be_made_is_refused_in_a_line_that_says_why() {
    let place = tempfile::tempdir().expect("a folder");
    let (source, file) = (tiny(), place.path().join("text.gguf"));
    std::fs::write(&file, "no model").expect("written");
    let refused = |words: &[&str], code: i32| {
        let text = complaint(&convert(place.path(), "http://127.0.0.1:1", words), code);
        assert_eq!(text.lines().count(), 1, "{text}");
        text
    };
    let source = source.to_str().expect("text");
    assert!(refused(&[source, "-q", "Q9"], 2).contains("Q4_K_M"), "it names those there are");
    assert!(refused(&[file.to_str().expect("text"), "-q", "Q8_0"], 4).contains("no GGUF file"));
    refused(&["/nowhere.gguf", "-q", "Q8_0"], 1);
    assert!(refused(&["ollama:../x", "-q", "Q8_0"], 4).contains("name"));
    assert!(refused(&["ollama:gemma3", "-q", "Q8_0"], 4).contains("ollama list"));
    refused(&[source, "-q", "Q8_0", "--publish", "m", "--to", "nobody"], 2);
    refused(&[source, "-q", "Q8_0,F16", "--out", "x.gguf"], 2);
    assert!(refused(&["hf:not a name", "-q", "Q8_0"], 1).contains("hf:OWNER/NAME"));
}

#[tokio::test]
async fn a_job_makes_and_publishes_what_the_command_does() {
    let yard = Yard::new().await;
    yard.put("tiny.gguf", std::fs::read(tiny()).expect("there"));
    let publish = json!({"name": "me/tiny", "library": true, "to": ["*"], "system": "Be brief."});
    let id = yard.submit(json!({"kind": "convert", "input": {"source": "files/tiny.gguf", "types": ["Q4_K_M"], "publish": publish}})).await;
    let job = yard.until(&id, "succeeded").await;
    let file = &job["result"]["files"][0];
    let name = file["name"].as_str().expect("text");
    let bytes = yard.artifact(&id, name).await;
    let (place, source) = (tempfile::tempdir().expect("a folder"), tiny());
    let out = place.path().join("x.gguf");
    let words = [source.to_str().expect("text"), "-q", "Q4_K_M", "--out", out.to_str().expect("text"), "--json"];
    let by_command = answer(&convert(place.path(), "http://127.0.0.1:1", &words));
    assert_eq!((&file["sha256"], sha256(&out)), (&by_command["files"][0]["sha256"], sha256_of(&bytes)));
    assert!(yard.fake.models().iter().any(|model| model == "me/tiny:latest"), "{:?}", yard.fake.models());
    assert_eq!(sha256(&yard.data.path().join("library/me-tiny.gguf")), sha256(&out));
    let modelfile = yard.artifact(&id, &format!("{name}.Modelfile")).await;
    assert!(String::from_utf8_lossy(&modelfile).contains("SYSTEM Be brief."));
}

#[tokio::test]
async fn a_job_gives_a_name_back_to_the_version_before() {
    let yard = Yard::new().await;
    yard.put("tiny.gguf", std::fs::read(tiny()).expect("there"));
    let promote = async |input: Value| yard.ask(Method::POST, "/jobs", Some(json!({"kind": "promote", "input": input}))).await;
    let refused = async |input: Value, word: &str| {
        let (status, problem) = promote(input).await;
        assert!(status == 422 && problem["detail"].as_str().is_some_and(|detail| detail.contains(word)), "{status} {problem}");
    };
    refused(json!({"name": "me/tiny"}), "nothing was published under `me/tiny").await;
    let publish = json!({"name": "me/tiny", "library": true, "to": ["*"]});
    for kind in ["Q4_K_M", "Q8_0"] {
        let input = json!({"source": "files/tiny.gguf", "types": [kind], "publish": publish});
        yard.until(&yard.submit(json!({"kind": "convert", "input": input})).await, "succeeded").await;
        if kind == "Q4_K_M" {
            refused(json!({"name": "me/tiny"}), "nothing to go back to").await;
        }
    }
    refused(json!({"name": "me/tiny", "version": 3}), "there are 1, 2").await;
    let state = async || {
        let names = yard.get("/versions").await["names"].take();
        assert_eq!(names.as_array().map(Vec::len), Some(1), "{names}");
        let (name, shelf) = (names[0].clone(), yard.fake.model("me/tiny:latest").expect("on the server").blob);
        let served = sha256(&yard.data.path().join("library/me-tiny.gguf"));
        let number = name["current"].as_u64().expect("a number");
        let version = name["versions"].as_array().expect("a list").iter().find(|version| version["number"] == number).expect("kept");
        assert_eq!((version["sha256"].as_str(), &shelf), (Some(served.as_str()), &served));
        (number, name["previous"].as_u64())
    };
    assert_eq!(state().await, (2, Some(1)));
    for (input, expected) in [(json!({"name": "me/tiny"}), (1, Some(2))), (json!({"name": "me/tiny", "version": 2}), (2, Some(1)))] {
        let (status, job) = promote(input).await;
        assert_eq!(status, 201, "{job}");
        yard.until(job["id"].as_str().expect("an id"), "succeeded").await;
        assert_eq!(state().await, expected);
    }
}

#[tokio::test]
async fn what_a_job_cannot_do_is_refused_before_it_is_accepted() {
    let yard = Yard::new().await;
    yard.put("tiny.gguf", std::fs::read(tiny()).expect("there"));
    yard.put("text.gguf", "no model");
    let refused = async |input: Value| {
        let (status, problem) = yard.ask(Method::POST, "/jobs", Some(json!({"kind": "convert", "input": input}))).await;
        (status, problem["detail"].as_str().unwrap_or_default().to_owned())
    };
    for (input, word) in [
        (json!({"source": "files/tiny.gguf", "types": ["Q9"]}), "Q4_K_M"),
        (json!({"source": "files/tiny.gguf", "types": []}), "types"),
        (json!({"source": "files/tiny.gguf", "types": ["Q8_0"], "quant": 1}), "quant"),
        (json!({"source": "files/text.gguf", "types": ["Q8_0"]}), "no GGUF file"),
        (json!({"source": "files/none.gguf", "types": ["Q8_0"]}), "not there"),
        (json!({"source": "/etc/passwd", "types": ["Q8_0"]}), "may read"),
        (json!({"source": "files/../state", "types": ["Q8_0"]}), "leads out"),
        (json!({"source": "files/tiny.gguf", "types": ["Q8_0"], "publish": {"name": "m", "to": ["nobody"]}}), "nobody"),
        (json!({"source": "files/tiny.gguf", "types": ["Q8_0"], "publish": {"name": "a/b/c/d"}}), "name"),
    ] {
        let (status, detail) = refused(input.clone()).await;
        assert!((400..500).contains(&status) && detail.contains(word), "{input}: {status} {detail}");
    }
}

#[tokio::test]
async fn a_job_that_fetches_in_vain_is_cancelled_at_once() {
    // Nobody listens there, and nobody kills it: it must stop by itself, while it waits to ask once more.
    let yard = Yard::with(&[("ARRIERO_JOBS__HUB__URL", "http://127.0.0.1:1"), ("ARRIERO_JOBS__KILL_AFTER", "1h")]).await;
    let id = yard.submit(json!({"kind": "convert", "input": {"source": "hf:some/model", "types": ["Q8_0"]}})).await;
    yard.until(&id, "running").await;
    let asked_at = std::time::Instant::now();
    let (status, _) = yard.ask(Method::DELETE, &format!("/jobs/{id}"), None).await;
    assert_eq!(status, 200);
    let job = yard.until(&id, "cancelled").await;
    assert!(asked_at.elapsed() < std::time::Duration::from_secs(5), "{:?}", asked_at.elapsed());
    assert_eq!(job["attempts"], 1, "{job}");
}

/// A child process of the gateway; none when the job has ended.
#[cfg(feature = "embedded")]
async fn a_child_or_the_end(yard: &Yard, id: &str) -> Option<u32> {
    loop {
        if let Some(child) = yard.children().first() {
            return Some(*child);
        }
        if !yard.job(id).await["finished_at_ms"].is_null() {
            return None;
        }
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
}

/// R12, as far as converting and publishing go.
#[cfg(feature = "embedded")]
#[tokio::test]
async fn a_worker_that_is_killed_again_and_again_makes_the_same_file_and_publishes_it_once() {
    let yard = Yard::with(&[("ARRIERO_JOBS__MAX_ATTEMPTS", "50")]).await;
    std::fs::create_dir_all(yard.data.path().join("models")).expect("made");
    let source = yard.data.path().join("models/gemma.gguf");
    if std::fs::hard_link(crate::support::demo_model(), &source).is_err() {
        std::fs::copy(crate::support::demo_model(), &source).expect("copied");
    }
    let input = |publish: Value| json!({"source": "models/gemma.gguf", "types": ["Q4_0"], "allow_requantize": true, "publish": publish});
    let calm = yard.submit(json!({"kind": "convert", "input": input(json!({"name": "calm"}))})).await;
    let expected = yard.until(&calm, "succeeded").await["result"]["files"][0]["sha256"].clone();
    let id = yard.submit(json!({"kind": "convert", "input": input(json!({"name": "shaken"}))})).await;
    for moment in [30, 250, 700, 1_100, 1_500] {
        let Some(child) = a_child_or_the_end(&yard, &id).await else { break };
        tokio::time::sleep(std::time::Duration::from_millis(moment)).await;
        kill(child, "-KILL");
    }
    let job = yard.until(&id, "succeeded").await;
    assert!(job["attempts"].as_u64() > Some(1), "{job}");
    assert_eq!(job["result"]["files"][0]["sha256"], expected);
    let names = yard.fake.models();
    assert_eq!(names.iter().filter(|name| name.contains("shaken")).count(), 1, "{names:?}");
    assert!(!names.iter().any(|name| name.starts_with("arriero-unfinished")), "{names:?}");
}
