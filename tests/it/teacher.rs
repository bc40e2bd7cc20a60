//! Answers that a model of the gateway writes for a data set: by the real binary, in front of a fake server that is slow, busy or missing.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use arriero_bench::fake::{FakeOllama, Fault, Plan, Text};
use serde_json::{Value, json};

use crate::jobs::{Yard, a_child, kill};
use crate::keys;
use crate::support::{eventually, fake, prompts};

const QUESTIONS: usize = 12;

/// Rows that only ask, two of them the same, and one that has its answer.
fn rows() -> String {
    let ask = |n: usize| json!({"prompt": format!("Where does caravan number {n} rest, and who leads it? Ask a{n}@example.com.")});
    let own = json!({"prompt": "What do mules eat?", "completion": "Hay, oats and whatever grows beside the road, if nobody looks."});
    (0..QUESTIONS).map(ask).chain([ask(0), own]).map(|row| row.to_string() + "\n").collect()
}

/// Answers in words that are not those of other answers: what is too much alike is left out.
fn clean() -> Value {
    json!({"near_duplicates": null, "quality": {"max_repetition": null}})
}

fn lines(path: &Path) -> usize {
    std::fs::read_to_string(path).map_or(0, |text| text.lines().count())
}

/// What a fake was asked, but for what gateways ask to see whether a server works.
pub fn questions_in(fake: &FakeOllama) -> Vec<String> {
    prompts(fake).into_iter().filter(|prompt| prompt.contains("caravan")).collect()
}

async fn json_of(yard: &Yard, id: &str, name: &str) -> Value {
    serde_json::from_slice(&yard.artifact(id, name).await).expect("JSON")
}

#[tokio::test]
async fn a_job_asks_the_gateway_that_it_belongs_to() {
    let yard = Yard::new().await;
    yard.put("rows.jsonl", rows());
    let input = json!({"sources": [{"path": "files/rows.jsonl"}], "clean": clean(), "teacher": {"model": "gemma3:270m", "max_tokens": 64}});
    let id = yard.submit(json!({"kind": "dataset", "input": input})).await;
    let job = yard.until(&id, "succeeded").await;
    assert_eq!(questions_in(&yard.fake).len(), QUESTIONS, "each question once");
    assert!(questions_in(&yard.fake).iter().all(|prompt| prompt.contains("[EMAIL]") && !prompt.contains('@')), "masked before it is asked");
    let report = json_of(&yard, &id, "report.json").await;
    assert_eq!((&report["taught"]["questions"], &report["taught"]["answered"]), (&json!(QUESTIONS), &json!(QUESTIONS + 1)), "{report}");
    assert_eq!(report["taught"]["teacher"]["model"], "gemma3:270m");
    let train = String::from_utf8(yard.artifact(&id, "train.jsonl").await).expect("text");
    assert!(train.lines().all(|line| line.contains("\"assistant\"")), "{train}");
    assert!(String::from_utf8(yard.artifact(&id, "report.md").await).expect("text").contains("gemma3:270m answered 12 questions"));

    // Another seed asks anew and makes another version; what was answered can be had as an artifact.
    let answers = String::from_utf8(yard.artifact(&id, "answers.jsonl").await).expect("text");
    assert_eq!(answers.lines().count(), QUESTIONS);
    let mut other = input.clone();
    other["teacher"]["seed"] = 5.into();
    let other = yard.submit(json!({"kind": "dataset", "input": other})).await;
    let other = yard.until(&other, "succeeded").await;
    assert_ne!(other["result"]["version"], job["result"]["version"]);
}

#[tokio::test]
async fn a_job_that_is_killed_goes_on_with_the_answers_that_it_has() {
    let yard = Yard::with(&[("ARRIERO_JOBS__TEACHER__REQUESTS_AT_ONCE", "2")]).await;
    yard.fake.adjust(|script| script.token_gap = Duration::from_millis(5));
    yard.put("rows.jsonl", rows());
    let input = json!({"sources": [{"path": "files/rows.jsonl"}], "clean": clean(), "teacher": {"model": "gemma3:270m", "max_tokens": 64}});
    let id = yard.submit(json!({"kind": "dataset", "input": input})).await;
    let child = a_child(&yard).await;
    eventually("that some answers come", async || questions_in(&yard.fake).len() >= 5).await;
    kill(child, "-KILL");
    yard.until(&id, "succeeded").await;
    let (all, different) = (questions_in(&yard.fake), questions_in(&yard.fake).into_iter().collect::<BTreeSet<_>>());
    assert_eq!(different.len(), QUESTIONS);
    assert!(all.len() <= QUESTIONS + 2, "only what was being answered is asked again: {}", all.len());
    let report = json_of(&yard, &id, "report.json").await;
    assert_eq!(report["taught"]["answered"], QUESTIONS + 1, "{report}");
}

#[tokio::test]
async fn a_teacher_that_nobody_has_fails_the_job_and_one_that_is_busy_does_not() {
    let yard = Yard::with(&[("ARRIERO_JOBS__TEACHER__RETRY_PAUSE", "20ms")]).await;
    yard.put("rows.jsonl", rows());
    let submit = async |model: &str, tokens: u32| {
        let teacher = json!({"model": model, "max_tokens": tokens});
        let input = json!({"sources": [{"path": "files/rows.jsonl"}], "clean": clean(), "teacher": teacher});
        yard.submit(json!({"kind": "dataset", "input": input})).await
    };
    let id = submit("nobody:7b", 64).await;
    let job = yard.until(&id, "failed").await;
    let why = job["error"].to_string();
    assert!(why.contains("the teacher `nobody:7b`") && why.contains("404"), "{job}");

    yard.fake.fail(Plan::next(3, Fault::status(429).retry_after(0)));
    let id = submit("gemma3:270m", 64).await;
    yard.until(&id, "succeeded").await;
    assert_eq!(json_of(&yard, &id, "report.json").await["taught"]["answered"], QUESTIONS + 1);

    // Thirty-two words do not fit into eight tokens.
    yard.fake.adjust(|script| script.text = Text::Words(32));
    let id = submit("gemma3:270m", 8).await;
    yard.until(&id, "succeeded").await;
    let report = json_of(&yard, &id, "report.json").await;
    assert_eq!(report["taught"]["left_out"]["answer cut off"]["count"], QUESTIONS + 1, "{report}");

    let (status, body) = yard
        .ask(
            reqwest::Method::POST,
            "/jobs",
            Some(json!({"kind": "dataset", "input": {"sources": [{"path": "files/rows.jsonl"}], "teacher": {"model": "m", "url": "http://169.254.169.254"}}})),
        )
        .await;
    assert!(status == 422 && body.to_string().contains("unknown field `url`"), "{status} {body}");
}

fn dataset(place: &Path, words: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_arriero"));
    command.arg("dataset").args(words).env_clear().env("HOME", place).current_dir(place).env("ARRIERO_JOBS__TEACHER__RETRIES", "1");
    command.env("ARRIERO_JOBS__TEACHER__RETRY_PAUSE", "10ms").stdin(Stdio::null()).output().expect("the program runs")
}

#[tokio::test]
async fn a_command_asks_with_its_key_and_is_refused_without() {
    let fake = fake(|_| {}).await;
    let (app, first) = keys::guarded(&fake, |_| {}).await;
    let place = tempfile::tempdir().expect("a folder");
    std::fs::write(place.path().join("rows.jsonl"), rows()).expect("written");
    std::fs::write(place.path().join("options.json"), json!({"clean": clean(), "teacher": {"model": "x", "max_tokens": 64}}).to_string())
        .expect("written");
    let (url, place) = (app.url.clone(), place.path());
    let run = |more: Vec<String>| {
        let place = place.to_owned();
        let mut words =
            ["rows.jsonl", "--options", "options.json", "--teacher", "gemma3:270m", "--overwrite", "--json"].map(str::to_owned).to_vec();
        words.extend(more);
        tokio::task::spawn_blocking(move || dataset(&place, &words.iter().map(String::as_str).collect::<Vec<_>>()))
    };
    let refused = run(vec!["--url".to_owned(), url.clone()]).await.expect("ran");
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(refused.status.code() == Some(1) && said.contains("401") && said.contains("ARRIERO_KEY"), "{said}");

    let made = run(vec!["--url".to_owned(), url.clone(), "--key".to_owned(), first]).await.expect("ran");
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let report: Value = serde_json::from_slice(&made.stdout).expect("JSON");
    assert_eq!(report["taught"]["answered"], QUESTIONS + 1, "{report}");
    assert_eq!(lines(&place.join("dataset/answers.jsonl")), QUESTIONS);

    // All is answered: nobody needs to be there any more.
    let again = run(vec!["--teacher-url".to_owned(), "http://127.0.0.1:9".to_owned()]).await.expect("ran");
    assert!(again.status.success(), "{}", String::from_utf8_lossy(&again.stderr));
    assert_eq!(serde_json::from_slice::<Value>(&again.stdout).expect("JSON"), report);
    std::fs::remove_file(place.join("dataset/answers.jsonl")).expect("removed");
    let nobody = run(vec!["--teacher-url".to_owned(), "http://127.0.0.1:9".to_owned()]).await.expect("ran");
    let said = String::from_utf8_lossy(&nobody.stderr).into_owned();
    assert!(nobody.status.code() == Some(1) && said.contains("http://127.0.0.1:9 does not answer"), "{said}");
}
