//! Data sets and models that are made of what was collected, and the commands that look at it.

use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use reqwest::Method;
use serde_json::{Value, json};

use super::{ask, talkative};
use crate::jobs::Yard;
#[cfg(feature = "embedded")]
use crate::jobs::{a_child, kill};
use crate::keys::{guarded, make};
use crate::support::eventually;

/// Runs a command on a data folder, without a terminal and in a folder of its own.
fn arriero(place: &Path, data: &Path, words: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_arriero"));
    command.args(words).env_clear().env("HOME", place).env("ARRIERO_DATA_DIR", data).current_dir(place);
    command.stdin(Stdio::null()).output().expect("the program runs")
}

fn told(output: &Output) -> (String, String) {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).expect("text");
    (text(&output.stdout), text(&output.stderr))
}

const AGREED: &[(&str, &str)] = &[("ARRIERO_COLLECTION__ENABLED", "true"), ("ARRIERO_COLLECTION__EVERYONE_WITHOUT_A_KEY_CONSENTS", "true")];

/// A gateway that was asked twenty things, and told of every fifth what would have been right.
async fn taught() -> Yard {
    let yard = Yard::with(AGREED).await;
    for n in 0..20_u32 {
        let words: String = (0..12).map(|word| format!("w{} ", n * 100 + word)).collect::<Vec<_>>().concat();
        let body = json!({"model": "gemma3:270m", "prompt": format!("Question {n}: {words}"), "options": {"num_predict": 500, "seed": n}});
        let (status, answer) = yard.ask(Method::POST, "/generate", Some(body)).await;
        assert_eq!(status, 200, "{answer}");
        let said = match n % 5 {
            0 => json!({"rating": "bad", "correction": format!("The right answer to {n}. {words}")}),
            1 => json!({"rating": "bad"}),
            2 => json!({"rating": "good"}),
            _ => continue,
        };
        let mut said = said;
        said["request_id"] = answer["arriero"]["request_id"].clone();
        assert_eq!(yard.ask(Method::POST, "/feedback", Some(said)).await.0, 200);
    }
    // Whoever looks sees what is on its way, too.
    assert_eq!(yard.get("/collection").await["exchanges"].as_array().map(Vec::len), Some(20));
    yard
}

#[tokio::test]
async fn data_sets_are_made_of_what_was_collected_by_jobs_and_by_commands() {
    let yard = taught().await;
    let place = tempfile::tempdir().expect("a folder");
    let clean = json!({"duplicates": false, "near_duplicates": null, "quality": {"max_repetition": null, "max_symbols": null}});
    let input =
        |collected: Value| json!({"sources": [{"collected": collected}], "clean": clean, "split": {"validation": 0.2, "test": 0.2}});
    let id = yard.submit(json!({"kind": "dataset", "input": input(json!({"model": "gemma3:270m"}))})).await;
    let job = yard.until(&id, "succeeded").await;
    let report: Value = serde_json::from_slice(&yard.artifact(&id, "report.json").await).expect("JSON");
    assert_eq!(report["sources"][0]["bad"]["rated bad"]["count"], 4, "{report}");
    assert_eq!((&report["sources"][0]["rows"], &report["sources"][0]["format"]), (&json!(20), &json!("collected")), "{report}");
    let mut rows = String::new();
    for side in ["train", "validation", "test"] {
        rows += &String::from_utf8(yard.artifact(&id, &format!("{side}.jsonl")).await).expect("text");
    }
    let ended = rows.lines().count();
    assert!((4..=16).contains(&ended), "{report}");
    assert_eq!(rows.matches("The right answer to").count(), 4, "corrections stand for answers");

    // The same on the data folder, beside the gateway and without it.
    std::fs::write(place.path().join("options.json"), json!({"clean": clean}).to_string()).expect("written");
    let words = |out: &'static str| {
        ["dataset", "collected:gemma3:270m", "--options", "options.json", "--split", "60,20,20", "--json", "--out", out]
    };
    let version = |output: Output| {
        let (out, notes) = told(&output);
        assert!(output.status.success(), "{notes}");
        serde_json::from_str::<Value>(&out).expect("JSON")["version"].clone()
    };
    assert_eq!(version(arriero(place.path(), yard.data.path(), &words("beside"))), job["result"]["version"]);
    let left = std::fs::read_dir(yard.data.path()).expect("a folder").filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    assert_eq!(left.filter(|name| name.starts_with("collected")).collect::<Vec<_>>(), Vec::<String>::new());

    // Preferences are made of corrections alone.
    let pairs = arriero(
        place.path(),
        yard.data.path(),
        &["dataset", "collected", "--preferences", "--keep-duplicates", "--split", "1,0,0", "--out", "pairs"],
    );
    assert!(pairs.status.success(), "{}", told(&pairs).1);
    let pairs = std::fs::read_to_string(place.path().join("pairs/train.jsonl")).expect("there");
    assert_eq!(
        (pairs.lines().count(), pairs.matches("\"chosen\":[{\"role\":\"assistant\",\"content\":\"The right").count()),
        (4, 4),
        "{pairs}"
    );

    // More that was collected is another version.
    yard.ask(
        Method::POST,
        "/generate",
        Some(json!({"model": "gemma3:270m", "prompt": "New one", "options": {"num_predict": 500, "seed": 99}})),
    )
    .await;
    let request = yard.get("/collection?limit=1").await["exchanges"][0]["request_id"].clone();
    let said = json!({"request_id": request, "rating": "bad", "correction": "A correction that is new here."});
    assert_eq!(yard.ask(Method::POST, "/feedback", Some(said)).await.0, 200);
    assert_ne!(version(arriero(place.path(), yard.data.path(), &words("more"))), job["result"]["version"]);
    let id = yard.submit(json!({"kind": "dataset", "input": input(json!({"rating": "good", "key": "anonymous"}))})).await;
    let other = yard.submit(json!({"kind": "dataset", "input": input(json!({"model": "nobody"}))})).await;
    let good = yard.until(&id, "succeeded").await;
    assert_eq!(good["result"]["rows"]["train"].as_u64().map(|rows| (1..=4).contains(&rows)), Some(true), "{good}");
    let failed = yard.until(&other, "failed").await;
    assert!(failed["error"]["message"].as_str().is_some_and(|why| why.contains("no row is left: nothing was collected")), "{failed}");

    // The folder of a job that has ended goes, and with it what was brought there.
    let work = yard.data.path().join("jobs/work");
    eventually("that folders of jobs go", async || std::fs::read_dir(&work).expect("a folder").next().is_none()).await;

    let mut yard = yard;
    yard.process.signal("-TERM");
    yard.process.ended().await;
    let alone = arriero(place.path(), yard.data.path(), &words("alone"));
    assert!(alone.status.success(), "{}", told(&alone).1);
    let nothing = arriero(place.path(), &place.path().join("nowhere"), &words("x"));
    let (code, notes) = (nothing.status.code(), told(&nothing).1);
    assert!(code == Some(6) && notes.contains("--data-dir") && notes.lines().count() == 1, "{code:?} {notes}");
    let wrong = arriero(place.path(), yard.data.path(), &["dataset", "file.jsonl", "--rating", "good"]);
    assert!(wrong.status.code() == Some(2) && told(&wrong).1.contains("--rating"), "{}", told(&wrong).1);
}

#[tokio::test]
async fn only_operators_learn_from_what_was_collected() {
    let fake = talkative().await;
    let (app, first) = guarded(&fake, |config| config.collection.enabled = true).await;
    let (user, _) = make(&app, &first, json!({"name": "user", "collect": true})).await;
    let dataset = |source: Value| json!({"kind": "dataset", "input": {"sources": [source]}});
    for source in [json!({"collected": {}}), json!({"collected": null}), json!({"collected": {"key": "x"}})] {
        let (status, problem) = ask(&app, Some(&user), Method::POST, "/jobs", Some(dataset(source))).await;
        assert_eq!((status, problem["code"].as_str()), (403, Some("forbidden")), "{problem}");
    }
    for name in ["collected", "collected:{}", "collected:gemma3"] {
        let (status, problem) = ask(&app, Some(&user), Method::POST, "/jobs", Some(dataset(json!({"path": name})))).await;
        assert_eq!(status, 422, "{problem}");
    }
    for source in [json!({"collected": {"stars": 5}}), json!({"collected": {"since": "soon"}}), json!({"collected": {}, "path": "files/x"})]
    {
        let (status, problem) = ask(&app, Some(&first), Method::POST, "/jobs", Some(dataset(source))).await;
        assert_eq!((status, problem["code"].as_str()), (422, Some("job_input_invalid")), "{problem}");
    }
}

#[tokio::test]
async fn the_command_line_looks_judges_takes_out_and_forgets() {
    let yard = Yard::with(AGREED).await;
    let place = tempfile::tempdir().expect("a folder");
    let body = json!({"model": "gemma3:270m", "prompt": "A question of some length", "options": {"num_predict": 500}});
    let (_, answer) = yard.ask(Method::POST, "/generate", Some(body)).await;
    let id = answer["arriero"]["request_id"].as_str().expect("an id").to_owned();
    let url = yard.process.url.clone();
    let run = |words: &[&str]| {
        let output = arriero(place.path(), yard.data.path(), &[words, &["--url", &url]].concat());
        let (out, notes) = told(&output);
        (output.status.code(), out, notes)
    };
    let (code, out, _) = run(&["collection", "list"]);
    assert!(code == Some(0) && out.contains(&id) && out.contains("A question"), "{out}");
    let (code, _, notes) = run(&["feedback", &id, "bad", "--correction", "Another answer"]);
    assert!(code == Some(0) && notes.contains("bad, with a correction"), "{notes}");
    let (code, _, notes) = run(&["feedback", "unknown", "good"]);
    assert!(code != Some(0) && notes.contains("no exchange") && notes.lines().count() == 1, "{notes}");
    assert_eq!(run(&["feedback", &id, "great"]).0, Some(2));
    let (code, out, _) = run(&["collection", "list", "--rating", "bad", "--json"]);
    let listed: Value = serde_json::from_str(&out).expect("JSON");
    assert_eq!((code, &listed["exchanges"][0]["correction"]), (Some(0), &json!("Another answer")));
    let (code, out, notes) = run(&["collection", "export", "--out", "all.jsonl"]);
    assert!(code == Some(0) && out.is_empty() && notes.contains("1 exchanges"), "{notes}");
    let line = std::fs::read_to_string(place.path().join("all.jsonl")).expect("there");
    assert_eq!(serde_json::from_str::<Value>(line.trim()).expect("JSON")["request_id"], json!(id));
    assert_eq!(run(&["collection", "export", "--out", "all.jsonl"]).0, Some(2), "nothing is written over");
    assert_eq!(run(&["collection", "forget"]).0, Some(2), "not all by accident");
    let (code, _, notes) = run(&["collection", "forget", "--request", &id]);
    assert!(code == Some(0) && notes.contains("1 exchanges were forgotten"), "{notes}");
    let (_, _, notes) = run(&["collection", "list"]);
    assert!(notes.contains("Nothing was collected"), "{notes}");
}

/// Answers that go on without their clients end with them as far as this is concerned.
/// What a job began with it goes on with, also when its worker is killed and what was collected is forgotten meanwhile.
#[cfg(feature = "embedded")]
#[tokio::test]
async fn a_job_keeps_to_what_it_began_with_and_learns_from_pairs() {
    let yard = taught().await;
    let base = crate::finetuning::tiny(yard.data.path());
    for name in ["config.json", "tokenizer.json", "tokenizer_config.json", "model.safetensors"] {
        yard.put(&format!("tiny/{name}"), std::fs::read(base.join(name)).expect("there"));
    }
    let pairs = json!({"sources": [{"collected": {"preferences": true}}], "split": {"validation": 0.0, "test": 0.0}});
    let input = json!({"base": "files/tiny", "device": "cpu", "adapter": {"rank": 2}, "data": pairs,
        "training": {"method": {"dpo": {"beta": 0.1}}, "sequence_tokens": 128, "batch_tokens": 512, "max_steps": 2}});
    let id = yard.submit(json!({"kind": "finetune", "input": input})).await;
    let child = a_child(&yard).await;
    eventually("that it has read the base", async || yard.job(&id).await["steps_ended"].as_u64() >= Some(1)).await;
    let (_, gone) = yard.ask(Method::DELETE, "/collection?all=true", None).await;
    assert_eq!(gone["forgotten"], 20);
    kill(child, "-KILL");
    // Unoptimised, and beside others, it takes its time.
    let over = |job: &Value| ["succeeded", "failed", "cancelled"].iter().any(|end| job["state"] == *end);
    let begun = std::time::Instant::now();
    let job = loop {
        let job = yard.job(&id).await;
        if over(&job) || begun.elapsed() > Duration::from_mins(2) {
            break job;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    };
    assert_eq!((&job["state"], &job["result"]["steps"]), (&json!("succeeded"), &json!(2)), "{job}");
    let rows = String::from_utf8(yard.artifact(&id, "train.jsonl").await).expect("text");
    assert_eq!(rows.matches("The right answer to").count(), 4);
}

#[cfg(feature = "embedded")]
#[tokio::test]
async fn a_command_trains_a_model_on_what_was_collected() {
    let yard = taught().await;
    let place = tempfile::tempdir().expect("a folder");
    let base = crate::finetuning::tiny(place.path());
    let base = base.to_str().expect("UTF-8");
    let usual =
        ["finetune", "--base", base, "--data", "collected", "--out", "taught", "--device", "cpu", "--rank", "2", "--max-steps", "2"];
    let small = ["--sequence-tokens", "128", "--batch-tokens", "256", "--no-library"];
    let plan = arriero(place.path(), yard.data.path(), &[&usual[..], &small, &["--plan"]].concat());
    assert!(plan.status.success() && told(&plan).0.contains("MEMORY"), "{}", told(&plan).1);
    let made = arriero(place.path(), yard.data.path(), &[&usual[..], &small, &["--json"]].concat());
    let (out, notes) = told(&made);
    assert!(made.status.success(), "{notes}");
    let made: Value = serde_json::from_str(&out).expect("JSON");
    assert!(made["model"]["sha256"].is_string(), "{made}");
}
