//! The built program: each reason to end has its own exit code and one line that says what to do.

use std::net::TcpListener;
use std::path::Path;
use std::process::{Command, Output, Stdio};

/// Runs the program with an environment of its own.
fn arriero(data_dir: &Path, words: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_arriero"));
    command.args(words).env_clear().env("HOME", data_dir).env("ARRIERO_DATA_DIR", data_dir).stdin(Stdio::null());
    command.output().expect("the program runs")
}

/// Runs it and expects this exit code and exactly one line of complaint, which is returned.
fn refused(data_dir: &Path, words: &[&str], code: i32) -> String {
    let output = arriero(data_dir, words);
    let complaint = String::from_utf8(output.stderr).expect("text");
    assert_eq!(output.status.code(), Some(code), "{words:?}: {complaint}");
    assert_eq!(complaint.lines().count(), 1, "{words:?}: {complaint}");
    complaint
}

/// Where nothing listens.
const NOWHERE: &str = "http://127.0.0.1:1";

#[test]
fn every_reason_not_to_start_has_its_code_and_its_line() {
    let place = tempfile::tempdir().expect("a folder");
    let folder = place.path();
    let taken = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = taken.local_addr().expect("bound").to_string();
    let file = folder.join("file");
    std::fs::write(&file, b"no folder, no model").expect("writable");
    let inside_file = file.join("x").display().to_string();
    let file = file.display().to_string();

    assert!(refused(folder, &["serve", "--listen", &address, "--ollama", NOWHERE], 5).contains("--listen"));
    assert!(refused(folder, &["serve", "--listen", "0.0.0.0:0", "--ollama", NOWHERE], 9).contains("--insecure-public-bind"));
    assert!(refused(folder, &["serve", "--listen", "nonsense"], 3).contains("server.listen"));
    let free = ["--listen", "127.0.0.1:0", "--ollama", NOWHERE];
    let serve = |more: &[&'static str]| [&["serve"], &free[..], more].concat();
    assert!(refused(folder, &serve(&[]), 7).contains("--ollama"));
    assert!(refused(folder, &[&serve(&["--data-dir"])[..], &[inside_file.as_str()]].concat(), 6).contains("data folder"));
    if cfg!(feature = "embedded") {
        refused(folder, &[&serve(&["--model"])[..], &[file.as_str()]].concat(), 4);
        refused(folder, &serve(&["--model", "/nowhere.gguf"]), 4);
    }
}

#[test]
fn a_client_without_a_gateway_says_so() {
    let place = tempfile::tempdir().expect("a folder");
    for words in [["generate", "hello"], ["models", "--json"], ["health", "--url=127.0.0.1:1"]] {
        let words = [&words[..], &["--url", NOWHERE][..usize::from(words[0] != "health") * 2]].concat();
        assert!(refused(place.path(), &words, 10).contains("arriero serve"));
    }
    assert!(refused(place.path(), &["generate"], 2).contains("prompt"));
}

#[test]
fn a_configuration_is_checked_as_a_whole() {
    let place = tempfile::tempdir().expect("a folder");
    let file = place.path().join("a.toml");
    std::fs::write(&file, "lsten = 1\n[server]\nmax_connections = \"many\"\n").expect("writable");
    let path = file.display().to_string();
    let output = arriero(place.path(), &["config", "check", &path]);
    let complaint = String::from_utf8(output.stderr).expect("text");
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(complaint.lines().count(), 2, "{complaint}");
    assert!(complaint.contains("a.toml:1") && complaint.contains("a.toml:3"), "{complaint}");
    assert_eq!(arriero(place.path(), &["config", "check"]).status.code(), Some(0));
    assert_eq!(arriero(place.path(), &["config", "show", "--json"]).status.code(), Some(0));
}

#[test]
fn the_doctor_fails_where_nothing_could_answer() {
    let place = tempfile::tempdir().expect("a folder");
    let output = arriero(place.path(), &["doctor", "--json", "--ollama", NOWHERE, "--listen", "127.0.0.1:0"]);
    assert_eq!(output.status.code(), Some(1));
    let told: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let failed: Vec<&str> = told["findings"]
        .as_array()
        .expect("a list")
        .iter()
        .filter(|finding| finding["level"] == "fail")
        .filter_map(|finding| finding["check"].as_str())
        .collect();
    assert_eq!(failed, ["ollama"], "{told:#}");
}
