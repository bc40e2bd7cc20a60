//! `arriero finetune` and the kind of job `finetune`, on the real binary and a tiny model: what is made, refused, and left after a kill.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use arriero::domain::digest::Digest;
use arriero::gguf::Header;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use crate::jobs::{Yard, a_child, kill};
use crate::teacher::questions_in;

const ROWS: usize = 48;
const TEMPLATE: &str = "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}\
                        {% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}";

/// Numbers in ±0.1 that depend on the name alone.
fn numbers(name: &str, count: u64) -> Vec<f32> {
    let mut state = name.bytes().fold(0x9E37_79B9_u32, |state, byte| state.wrapping_mul(31).wrapping_add(u32::from(byte)));
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        f32::from((state >> 16) as u16) / 327_680.0 - 0.1
    };
    (0..count).map(|_| next()).collect()
}

/// A folder as Hugging Face has it, of a tiny Qwen 2 that reads ChatML.
pub fn tiny(place: &Path) -> PathBuf {
    let (golden, folder) = (Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/convert/tiny-qwen2"), place.join("tiny"));
    std::fs::create_dir_all(&folder).expect("made");
    for name in ["config.json", "tokenizer.json"] {
        std::fs::copy(golden.join(name), folder.join(name)).expect("copied");
    }
    let settings = json!({"eos_token": "<|im_end|>", "add_bos_token": false, "chat_template": TEMPLATE});
    std::fs::write(folder.join("tokenizer_config.json"), settings.to_string()).expect("written");
    let list = std::fs::read_to_string(golden.join("tensors.json")).expect("the list");
    let list: Vec<(String, String, String, Vec<u64>)> = serde_json::from_str(&list).expect("a list");
    let (mut header, mut data) = (serde_json::Map::new(), Vec::new());
    for (_, name, _, shape) in list {
        let start = data.len();
        let norm = if name.contains("norm") { 1.0 } else { 0.0 };
        data.extend(numbers(&name, shape.iter().product()).iter().flat_map(|number| (number + norm).to_le_bytes()));
        header.insert(name, json!({"dtype": "F32", "shape": shape, "data_offsets": [start, data.len()]}));
    }
    let header = Value::Object(header).to_string();
    let all = [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), &data].concat();
    std::fs::write(folder.join("model.safetensors"), all).expect("written");
    folder
}

/// Rows of a task that a model with random weights cannot do.
fn rows() -> String {
    let animals = ["mule", "llama", "horse", "goat", "ox", "camel"];
    let row = |n: usize| {
        let (animal, count) = (animals[n % animals.len()], n * 7 % 31);
        let say = format!("{} and {count}", ["low", "high"][usize::from(count > 15)]);
        json!({"messages": [{"role": "user", "content": format!("{count} of {animal}, trip {n}")}, {"role": "assistant", "content": say}]})
    };
    (0..ROWS).map(|n| row(n).to_string() + "\n").collect()
}

struct Place {
    folder: tempfile::TempDir,
    base: PathBuf,
    data: PathBuf,
}

impl Place {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let (base, data) = (tiny(folder.path()), folder.path().join("rows.jsonl"));
        std::fs::write(&data, rows()).expect("written");
        Self { folder, base, data }
    }

    fn command(&self, name: &str, more: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_arriero"));
        command.arg("finetune").arg("--base").arg(&self.base).arg("--data").arg(&self.data).args(["--out", name]);
        command.args(["--rank", "4", "--dropout", "0.1", "--sequence-tokens", "96", "--batch-tokens", "192", "--accumulation", "2"]);
        command.args(["--epochs", "2", "--learning-rate", "0.005", "--evaluate-every", "3", "--device", "cpu"]).args(more);
        let home = self.folder.path();
        command.env_clear().env("HOME", home).env("ARRIERO_DATA_DIR", home.join("state")).stdin(Stdio::null());
        command
    }

    fn run(&self, name: &str, more: &[&str]) -> Output {
        self.command(name, more).output().expect("the program runs")
    }

    fn made(&self, name: &str) -> PathBuf {
        self.folder.path().join("state/finetune").join(name)
    }
}

fn answer(output: &Output) -> Value {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).expect("JSON")
}

fn sha256(path: &Path) -> String {
    let bytes = std::fs::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    Digest::new(Sha256::digest(bytes).into()).hex()
}

fn lines(path: &Path) -> usize {
    std::fs::read_to_string(path).map_or(0, |text| text.lines().count())
}

/// Lets a run come so far, and kills it.
fn kill_after(mut run: Child, metrics: &Path, count: usize) {
    let until = Instant::now() + Duration::from_mins(2);
    while lines(metrics) < count && run.try_wait().expect("a child").is_none() {
        assert!(Instant::now() < until, "it does not come to {count} lines");
        std::thread::sleep(Duration::from_millis(2));
    }
    run.kill().expect("killed");
    run.wait().expect("gone");
}

#[test]
fn one_command_leads_from_rows_to_a_model_that_is_served() {
    let place = Place::new();
    let more = ["--json", "--safetensors", "--adapter-gguf", "--sample", "3 of mule"];
    let made = answer(&place.run("tuned", &more));
    let (folder, report) = (place.made("tuned"), &made["report"]);
    let losses = report["summary"]["losses"].as_array().expect("losses");
    let loss = |at: usize| losses[at].as_f64().expect("a number");
    assert!(loss(losses.len() - 1) < 0.7 * loss(0), "{losses:?}");
    assert!(report["tested"]["after"]["perplexity"].as_f64() < report["tested"]["before"]["perplexity"].as_f64(), "{}", report["tested"]);
    assert_eq!(made["model"]["sha256"], sha256(&folder.join("tuned.gguf")));
    assert_eq!(made["published"][0]["to"], "library");
    assert_eq!(made["published"][1]["outcome"]["version"], 1);
    let adapter = Header::read_file(&folder.join("tuned-adapter.gguf")).expect("an adapter");
    assert_eq!(adapter.metadata.str("general.type"), Some("adapter"));
    assert_eq!(adapter.metadata.str("general.architecture"), Some("qwen2"));
    assert!(made["model"]["survival"].as_array().expect("a list").iter().all(|one| one["gain"].as_f64() > Some(0.95)));
    for name in ["adapter/adapter_model.safetensors", "adapter/adapter_config.json", "safetensors/config.json", "report.html", "loss.svg"] {
        assert!(folder.join(name).is_file(), "{name}");
    }
    let records = std::fs::read_to_string(folder.join("metrics.jsonl")).expect("there");
    let steps = records.lines().filter(|line| line.contains("\"kind\":\"step\"")).count();
    assert_eq!(steps, losses.len());
    let looks = report["summary"]["evaluations"].as_array().expect("looks");
    assert_eq!(looks.last().expect("one")["samples"][0]["prompt"], "3 of mule");

    // The same once more: there is nothing left to train.
    let again = answer(&place.run("tuned", &more));
    assert_eq!(again["model"]["sha256"], made["model"]["sha256"]);
    assert_eq!(std::fs::read_to_string(folder.join("metrics.jsonl")).expect("there"), records);
    // Other options do not go on from these checkpoints.
    let other = place.run("tuned", &["--max-steps", "3"]);
    assert!(String::from_utf8_lossy(&other.stderr).contains("other options"), "{}", String::from_utf8_lossy(&other.stderr));
}

#[test]
fn a_name_goes_back_to_the_version_before() {
    let place = Place::new();
    let versions = |more: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_arriero"));
        command.env_clear().env("HOME", place.folder.path()).env("ARRIERO_DATA_DIR", place.folder.path().join("state"));
        command.arg("versions").args(more).output().expect("the program runs")
    };
    let refused = |more: &[&str], word: &str| {
        let output = versions(more);
        assert!(!output.status.success() && String::from_utf8_lossy(&output.stderr).contains(word), "{output:?}");
    };
    refused(&["rollback", "helper"], "nothing was published under `helper`");
    let folder = place.folder.path().join("second");
    answer(&place.run("helper", &["--json", "--max-steps", "1"]));
    refused(&["rollback", "helper"], "nothing to go back to");
    answer(&place.run("helper", &["--json", "--max-steps", "2", "--folder", folder.to_str().expect("UTF-8")]));

    let list = || answer(&versions(&["--json"]))["names"][0].clone();
    let both = list();
    assert_eq!((both["name"].as_str(), both["current"].as_u64(), both["previous"].as_u64()), (Some("helper"), Some(2), Some(1)));
    let first = &both["versions"][0];
    assert_eq!(first["lineage"]["steps"], 1);
    assert_eq!(first["lineage"]["base"]["sha256"], sha256(&place.made("helper").join("base.gguf")));
    let served = || sha256(&place.folder.path().join("state/library/helper.gguf"));
    assert_eq!(both["versions"][1]["sha256"], served());
    answer(&versions(&["rollback", "helper", "--json"]));
    assert_eq!((first["sha256"].as_str(), list()["current"].as_u64()), (Some(served().as_str()), Some(1)));
    answer(&versions(&["promote", "helper", "2", "--json"]));
    assert_eq!((list()["current"].as_u64(), list()["previous"].as_u64()), (Some(2), Some(1)));
    refused(&["promote", "helper", "7"], "there are 1, 2");
    let shown = answer(&versions(&["show", "helper", "1"]));
    assert_eq!(shown["lineage"]["training"]["max_steps"], 1);
}

#[test]
fn a_run_that_is_killed_again_and_again_ends_with_the_same_bits_as_on_one_thread() {
    let place = Place::new();
    answer(&place.run("whole", &["--json", "--threads", "2"]));
    let adapter = |name: &str| sha256(&place.made(name).join("adapter/adapter_model.safetensors"));
    answer(&place.run("single", &["--json", "--threads", "1"]));
    assert_eq!(adapter("single"), adapter("whole"));
    for count in [1, 4, 6, 9] {
        let metrics = place.made("killed").join("metrics.jsonl");
        let run = place.command("killed", &[]).stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("it runs");
        kill_after(run, &metrics, count);
    }
    answer(&place.run("killed", &["--json"]));
    assert_eq!(adapter("killed"), adapter("whole"));
    let records = |name: &str| lines(&place.made(name).join("metrics.jsonl"));
    assert_eq!(records("killed"), records("whole"), "no step is told twice");
}

/// The flags of a run that learns from the logits of a model that was made before.
fn taught_by(teacher: &Path) -> Vec<String> {
    ["--teacher", &teacher.display().to_string(), "--distill-alpha", "0.7", "--distill-temperature", "1.5"].map(str::to_owned).to_vec()
}

#[test]
fn a_model_learns_from_the_logits_of_another_however_often_it_is_killed() {
    let place = Place::new();
    answer(&place.run("teacher", &["--json"]));
    let options = place.folder.path().join("options.json");
    std::fs::write(&options, json!({"evaluate": {"max_items": 1, "max_tokens": 2}}).to_string()).expect("written");
    let mut flags = taught_by(&place.made("teacher").join("teacher.gguf"));
    flags.extend(["--options".to_owned(), options.display().to_string()]);
    let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
    let made = answer(&place.run("pupil", &[&["--json", "--threads", "2"], flags.as_slice()].concat()));
    let report = &made["report"];
    assert_eq!(report["teacher"]["digest"], format!("sha256:{}", sha256(&place.made("teacher").join("teacher.gguf"))));
    assert_eq!(report["options"]["method"]["distill"], json!({"alpha": 0.7, "temperature": 1.5}));
    let looks = |report: &Value| -> Vec<f64> {
        report["summary"]["evaluations"].as_array().expect("looks").iter().map(|look| look["loss"].as_f64().expect("a loss")).collect()
    };
    let (first, last) = (looks(report)[0], *looks(report).last().expect("one"));
    assert!(last < first, "the rows' own loss falls: {first} {last}");
    let header = std::fs::read(place.made("pupil").join("pupil.gguf")).expect("there");
    let key = b"arriero.finetune.teacher.sha256";
    assert!(header.windows(key.len()).any(|bytes| bytes == key), "the teacher is in the lineage");

    let adapter = |name: &str| sha256(&place.made(name).join("adapter/adapter_model.safetensors"));
    for count in [1, 5] {
        let metrics = place.made("killed").join("metrics.jsonl");
        let run = place.command("killed", &flags).stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("it runs");
        kill_after(run, &metrics, count);
    }
    answer(&place.run("killed", &[&["--json", "--threads", "1"], flags.as_slice()].concat()));
    assert_eq!(adapter("killed"), adapter("pupil"));
    // Another teacher is another run.
    let base = place.base.display().to_string();
    let other = place.run("pupil", &["--teacher", &base, "--distill-alpha", "0.7", "--distill-temperature", "1.5"]);
    assert!(String::from_utf8_lossy(&other.stderr).contains("other"), "{}", String::from_utf8_lossy(&other.stderr));
}

#[test]
fn all_weights_learn_from_the_logits_of_a_folder_too() {
    let place = Place::new();
    let base = place.base.display().to_string();
    let flags = ["--json", "--method", "full", "--max-steps", "3", "--teacher", &base, "--distill-alpha", "0.5"];
    let mut command = Command::new(env!("CARGO_BIN_EXE_arriero"));
    command.arg("finetune").arg("--base").arg(&place.base).arg("--data").arg(&place.data).args(["--out", "full", "--device", "cpu"]);
    command.args(["--sequence-tokens", "96", "--batch-tokens", "192", "--learning-rate", "0.001"]).args(flags);
    let home = place.folder.path();
    let made = answer(&command.env_clear().env("HOME", home).env("ARRIERO_DATA_DIR", home.join("state")).output().expect("it runs"));
    // At the first step it is its own teacher, and half of the loss is nothing.
    let losses = made["report"]["summary"]["losses"].as_array().expect("losses");
    let plain = made["report"]["tested"]["before"]["perplexity"].as_f64().expect("a number").ln();
    assert!((losses[0].as_f64().expect("a loss") - plain / 2.0).abs() < 0.1 * plain, "{losses:?} {plain}");
}

#[test]
fn a_teacher_that_cannot_teach_is_refused_with_what_to_do() {
    let place = Place::new();
    let refused = |more: &[&str], code: i32, words: [&str; 2]| {
        let output = place.run("x", more);
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(code), "{text}");
        assert!(words.iter().all(|word| text.contains(word)), "{text}");
    };
    let base = place.base.display().to_string();
    refused(&["--teacher", &base, "--distill-alpha", "1.5"], 2, ["method.distill.alpha", "at most 1"]);
    refused(&["--teacher", &base, "--distill-temperature", "0"], 2, ["method.distill.temperature", "0.05"]);
    refused(&["--teacher", "/nowhere.gguf", "--distill-alpha", "0.5"], 1, ["/nowhere.gguf", "cannot"]);
    refused(&["--distill-alpha", "0.5"], 2, ["distill", "teacher"]);
    let other = place.folder.path().join("other");
    std::fs::create_dir(&other).expect("made");
    for name in ["config.json", "tokenizer_config.json", "model.safetensors"] {
        std::fs::copy(place.base.join(name), other.join(name)).expect("copied");
    }
    let vocabulary = std::fs::read_to_string(place.base.join("tokenizer.json")).expect("there");
    std::fs::write(other.join("tokenizer.json"), vocabulary.replace("<|im_start|>", "<|im_begin|>")).expect("written");
    let other = other.display().to_string();
    refused(&["--teacher", &other, "--distill-alpha", "0.5"], 2, ["<|im_begin|>", "name a teacher of the same family"]);
}

/// Rows of which most only ask.
fn questions() -> String {
    let ask =
        |n: usize| json!({"prompt": format!("How many of number {n} walk with the caravan on day {}?", n * 13 % 7)}).to_string() + "\n";
    (0..30).map(ask).collect()
}

#[tokio::test]
async fn a_model_learns_what_a_model_of_the_gateway_writes_and_nothing_is_asked_twice() {
    let place = Place::new();
    std::fs::write(&place.data, questions()).expect("written");
    let yard = Yard::new().await;
    let options = place.folder.path().join("options.json");
    let clean = json!({"near_duplicates": null, "quality": {"max_repetition": null}});
    std::fs::write(
        &options,
        json!({"data": {"clean": clean}, "evaluate": {"max_items": 1, "max_tokens": 2}, "training": {"max_steps": 2}}).to_string(),
    )
    .expect("written");
    let url = yard.process.url.clone();
    let flags =
        ["--json", "--teacher", "gemma3:270m", "--url", &url, "--options", options.to_str().expect("a path"), "--teacher-max-tokens", "64"];
    let run = async |name: &'static str| {
        let mut command = place.command(name, &flags);
        answer(&tokio::task::spawn_blocking(move || command.output().expect("it runs")).await.expect("ran"))
    };
    let whole = run("whole").await;
    assert_eq!(questions_in(&yard.fake).len(), 30);
    let lineage = std::fs::read(place.made("whole").join("whole.gguf")).expect("there");
    let key = b"arriero.finetune.data.teacher";
    assert!(lineage.windows(key.len()).any(|bytes| bytes == key), "who wrote the answers is in the lineage");

    yard.fake.adjust(|script| script.token_gap = Duration::from_millis(4));
    let kept = place.made("killed").join("data/answers.jsonl");
    let killed = place.command("killed", &flags).stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("it runs");
    let waiting = kept.clone();
    tokio::task::spawn_blocking(move || kill_after(killed, &waiting, 6)).await.expect("killed");
    let there = lines(&kept);
    assert!((6..30).contains(&there), "{there} answers");
    let again = run("killed").await;
    assert_eq!(lines(&kept), 30);
    assert!(questions_in(&yard.fake).len() <= 60 + 4, "only what was being answered is asked again");
    assert_eq!(again["report"]["data"]["hash"], whole["report"]["data"]["hash"]);
    let adapter = |name: &str| sha256(&place.made(name).join("adapter/adapter_model.safetensors"));
    assert_eq!(adapter("killed"), adapter("whole"));

    // What a file writes is had without anybody: here its answers do not end.
    std::fs::remove_dir_all(place.made("killed")).expect("removed");
    let file = place.made("whole").join("whole.gguf").display().to_string();
    let output = place.run("killed", &["--teacher", &file, "--teacher-max-tokens", "2"]);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.code() == Some(1) && said.contains("30 answer cut off"), "{said}");
}

#[test]
fn what_cannot_be_trained_is_refused_in_a_line_that_says_why() {
    let place = Place::new();
    let refused = |more: &[&str], code: i32, word: &str| {
        let output = place.run("x", more);
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(code), "{text}");
        assert!(text.contains(word), "{text}");
    };
    refused(&["--rank", "8"], 2, "cannot be used multiple times");
    refused(&["--targets", "attn_x"], 1, "attn_x");
    refused(&["--test-share", "1.5"], 2, "shares");
    refused(&["--alpha=-1"], 2, "alpha");
    refused(&["--data", "/nowhere.jsonl"], 2, "/nowhere.jsonl");
    std::fs::write(&place.data, "{\"messages\": []}\n{}\n").expect("written");
    refused(&[], 1, "rows cannot be used");
    std::fs::write(place.base.join("model.safetensors"), "garbage").expect("written");
    refused(&[], 4, "safetensors");
}

#[tokio::test]
async fn a_job_trains_what_the_command_trains_also_when_its_worker_is_killed() {
    let place = Place::new();
    answer(&place.run("whole", &["--json"]));
    let yard = Yard::new().await;
    yard.put("rows.jsonl", std::fs::read(&place.data).expect("rows"));
    for name in ["config.json", "tokenizer.json", "tokenizer_config.json", "model.safetensors"] {
        yard.put(&format!("tiny/{name}"), std::fs::read(place.base.join(name)).expect("there"));
    }
    let id = yard
        .submit(json!({"kind": "finetune", "input": {
            "base": "files/tiny", "device": "cpu", "adapter": {"rank": 4, "dropout": 0.1},
            "data": {"sources": [{"path": "files/rows.jsonl"}], "split": {"validation": 0.1, "test": 0.1}},
            "training": {"sequence_tokens": 96, "batch_tokens": 192, "accumulation": 2, "epochs": 2, "learning_rate": 0.005,
                "evaluate_every_steps": 3, "save_every_steps": 2}}}))
        .await;
    let child = a_child(&yard).await;
    yard.until_steps(&id, 3).await;
    kill(child, "-KILL");
    // It begins anew after a pause, and reads the base once more.
    let begun = Instant::now();
    let over = |job: &Value| ["succeeded", "failed", "cancelled"].iter().any(|end| job["state"] == *end);
    let job = loop {
        let job = yard.job(&id).await;
        if over(&job) || begun.elapsed() > Duration::from_mins(2) {
            break job;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    };
    assert_eq!(job["state"], "succeeded", "{job}");
    let weights = yard.artifact(&id, "adapter_model.safetensors").await;
    let expected = std::fs::read(place.made("whole").join("adapter/adapter_model.safetensors")).expect("there");
    // How often checkpoints are written is part of the options, and changes nothing of what is learnt.
    assert!(weights == expected, "the adapters differ");
    let report: Value = serde_json::from_slice(&yard.artifact(&id, "report.json").await).expect("JSON");
    assert!(report["summary"]["tokens_per_s"].as_f64() > Some(0.0), "{report}");
    assert!(!yard.artifact(&id, "metrics.jsonl").await.is_empty());
}
