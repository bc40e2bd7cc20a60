//! The shape of the program: which folder may import which, and which outside crates are whose.
//!
//! The table here is the one in `docs/ARCHITECTURE.md`. The last tests are about the checker itself: on small wrong sources it
//! must find what is wrong, or a green run would mean nothing.

mod reader;
mod rules;

use std::path::{Path, PathBuf};

use arriero::telemetry::metrics::ALL;
use reader::{Files, files_below, read};
use rules::{Fence, Row, Rules, allowed_in, table_in, violations};

/// Top to bottom: a folder may name only folders above it. A row for a folder within a folder replaces the outer row there.
const TABLE: &[(&str, &str)] = &[
    ("domain", "–"),
    ("telemetry", "domain"),
    ("storage", "domain, telemetry"),
    ("gguf", "domain"),
    ("auth", "domain, telemetry, storage"),
    ("limits", "domain, telemetry, storage"),
    ("cache", "domain, telemetry, storage"),
    ("usage", "domain, telemetry, storage"),
    ("collection", "domain, telemetry, storage"),
    ("monitor", "domain, telemetry, storage"),
    ("lm", "domain, telemetry, gguf"),
    ("backends", "domain, telemetry, lm"),
    ("backends/embedded", "domain, telemetry, gguf, lm"),
    ("scheduler", "domain, telemetry"),
    ("routing", "domain, telemetry, backends"),
    ("models", "domain, telemetry, storage, backends"),
    ("jobs", "domain, telemetry, storage, gguf, lm, backends, models"),
    ("gateway", "domain, telemetry, limits, cache, usage, collection, backends, scheduler, routing, models"),
    ("api", "domain, telemetry, auth, limits, cache, usage, collection, monitor, models, jobs, gateway"),
    ("config", "the Config types of everything above"),
    ("app", "everything above"),
    ("cli", "everything above"),
    ("main", "cli"),
];

const FENCES: &[Fence] = &[
    Fence { paths: &["axum", "tower", "tower_http", "utoipa", "utoipa_axum", "utoipa_swagger_ui"], only_in: &["api", "app"] },
    Fence { paths: &["sqlx", "libsqlite3_sys"], only_in: &["storage"] },
    Fence { paths: &["hyper::client", "hyper_util::client", "hyper_rustls"], only_in: &["backends/ollama"] },
    Fence { paths: &["reqwest"], only_in: &["cli/client", "jobs/download", "jobs/dataset/teacher"] },
    Fence { paths: &["candle_core", "candle_nn"], only_in: &["lm", "backends/embedded", "jobs/finetune"] },
    Fence { paths: &["std::env"], only_in: &["config"] },
    Fence { paths: &["clap", "clap_complete"], only_in: &["cli", "main"] },
    Fence { paths: &["metrics", "metrics_exporter_prometheus", "metrics_util"], only_in: &["telemetry"] },
];

fn table() -> Vec<Row> {
    let mut rows = Vec::new();
    for (folder, allowed) in TABLE {
        let allowed = allowed_in(allowed, &rows);
        rows.push(((*folder).to_owned(), allowed));
    }
    rows
}

fn rules() -> Rules {
    let names = ALL.iter().map(|spec| spec.name.to_owned()).collect();
    Rules { table: table(), fences: FENCES, names, names_only_in: "telemetry/metrics.rs" }
}

fn here(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

#[test]
fn the_sources_keep_to_the_table_and_the_fences() {
    let reading = read(&files_below(&here("src")));
    let found = violations(&reading, &rules());
    assert!(found.is_empty(), "\n{}\n", found.join("\n"));
    // Were nothing read, nothing would be wrong: these are known to be there.
    let sees =
        |place: &str, path: &[&str]| reading.references.iter().any(|r| r.module.join("/") == place && r.path.starts_with(&owned(path)));
    assert!(sees("storage/usage", &["crate", "telemetry"]), "a `use`");
    assert!(sees("storage/usage", &["sqlx", "Error"]), "a path in the code");
    assert!(sees("storage", &["crate", "domain", "span"]), "a path in an attribute");
    assert!(sees("storage", &["sqlx", "migrate"]), "the path of a macro");
}

#[test]
fn the_table_is_the_one_in_the_documentation() {
    // Until there is such a file there is nothing to compare with.
    let Ok(text) = std::fs::read_to_string(here("docs/ARCHITECTURE.md")) else { return };
    assert_eq!(table_in(&text).expect("docs/ARCHITECTURE.md has a table `| folder | may import |`"), table());
}

fn owned(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}

/// What the checker says of sources that have, besides these files, every folder of the table.
fn found_in(sources: &[(&str, &str)]) -> Vec<String> {
    let folders: Vec<_> = TABLE.iter().map(|(folder, _)| *folder).filter(|folder| !folder.contains('/') && *folder != "main").collect();
    let mut files: Files = folders.iter().map(|folder| (format!("{folder}/mod.rs").into(), String::new())).collect();
    files.insert("lib.rs".into(), folders.iter().map(|folder| ["mod ", folder, "; "].concat()).collect());
    files.insert("main.rs".into(), "fn main() { arriero::cli::run() }".to_owned());
    files.insert("backends/mod.rs".into(), "mod embedded;".to_owned());
    files.insert("backends/embedded.rs".into(), "use crate::lm::Decoder;".to_owned());
    for (file, text) in sources {
        files.insert(file.into(), (*text).to_owned());
    }
    violations(&read(&files), &rules())
}

#[track_caller]
fn assert_finds(sources: &[(&str, &str)], what: &[&str]) {
    let found = found_in(sources);
    assert_eq!(found.len(), what.len(), "{found:#?}");
    for (found, what) in found.iter().zip(what) {
        assert!(found.contains(what), "`{found}` does not say `{what}`");
    }
}

#[test]
fn the_checker_is_content_with_what_is_right() {
    assert_finds(
        &[
            (
                "usage/mod.rs",
                "use crate::{domain::id, storage::{self, Storage}}; use super::telemetry; fn f() { storage::go(); std::fs::read(id) }",
            ),
            ("telemetry/mod.rs", "pub mod metrics; use metrics::Config; fn f() { metrics::g(); }"),
            ("telemetry/metrics.rs", "const NAME: &str = \"arriero_connections\"; use ::metrics::Counter;"),
            ("config/mod.rs", "use crate::{storage, usage::Config as UsageConfig, domain::clock::Clock}; use std::env;"),
            ("api/mod.rs", "use axum::Router; #[utoipa::path(get)] fn f() {}"),
        ],
        &[],
    );
}

#[test]
fn the_checker_finds_imports_against_the_table_in_every_form() {
    let forbidden = "`storage` may not import `api`";
    for text in [
        "use crate::api;",
        "use crate::{domain, api::{self, Router}};",
        "use crate::api::*;",
        "use crate::api as other;",
        "use super::api::Router;",
        "pub use self::super::api;",
        "fn f() -> crate::api::Router { todo!() }",
        "fn f() { crate::api::go() }",
        "fn f() { let x: Vec<Box<dyn crate::api::Go>> = vec![]; }",
        "impl crate::api::Go for () {}",
        "fn f() { println!(\"{}\", crate::api::NAME) }",
        "fn f() { outer!(inner { x: [crate::api::NAME] }) }",
        "#[derive(crate::api::Go)] struct S;",
        "#[serde(with = \"crate::api::span\")] struct S;",
        "macro_rules! m { () => { crate::api::go() } }",
        "mod inner { fn f() { super::super::api::go() } }",
        "#[cfg(not(test))] use crate::api;",
        "#[cfg(feature = \"test\")] use crate::api;",
    ] {
        let found = found_in(&[("storage/mod.rs", text)]);
        assert!(!found.is_empty() && found.iter().all(|found| found.contains(forbidden)), "{text}: {found:#?}");
    }
    assert_finds(&[("storage/mod.rs", "mod deep;"), ("storage/deep.rs", "use crate::usage::Row;")], &["`storage` may not import `usage`"]);
    assert_finds(&[("storage/mod.rs", "use crate::*;")], &["names the whole crate"]);
    assert_finds(&[("main.rs", "fn main() { arriero::app::run(); arriero::cli::run() }")], &["`main` may not import `app`"]);
}

#[test]
fn the_checker_knows_the_rows_of_folders_within_folders() {
    assert_finds(&[("backends/embedded.rs", "use crate::gguf::Reader;")], &[]);
    assert_finds(
        &[("backends/mod.rs", "mod embedded; mod embedding;"), ("backends/embedding.rs", "use crate::gguf::Reader;")],
        &["`backends` may not import `gguf`"],
    );
}

#[test]
fn the_checker_lets_tests_import_what_they_need() {
    assert_finds(
        &[
            (
                "storage/mod.rs",
                "#[cfg(test)] mod tests { use crate::api::Router; } #[cfg(test)] #[path = \"odd.rs\"] mod more; #[cfg(all(test, unix))] use crate::api; \
                 struct S; impl S { #[cfg(test)] fn f() { crate::api::go() } }",
            ),
            ("storage/odd.rs", "mod under; use reqwest::Client;"),
            ("storage/odd/under.rs", "use crate::cli::Go;"),
        ],
        &[],
    );
}

#[test]
fn the_checker_reads_both_files_of_a_module_that_has_a_stand_in() {
    let both = "#[cfg_attr(not(feature = \"x\"), path = \"without.rs\")] mod engine;";
    for bad in ["usage/engine.rs", "usage/without.rs"] {
        let mut sources = vec![("usage/mod.rs", both), ("usage/engine.rs", ""), ("usage/without.rs", "")];
        sources.push((bad, "use crate::api;"));
        assert_finds(&sources, &["`usage` may not import `api`"]);
    }
}

#[test]
fn the_checker_finds_outside_crates_beyond_their_fences() {
    for (file, text, what) in [
        ("usage/mod.rs", "use sqlx::Row;", "`sqlx::Row` is only for storage"),
        ("usage/mod.rs", "use sqlx as database;", "`sqlx` is only for storage"),
        ("usage/mod.rs", "extern crate sqlx;", "`sqlx` is only for storage"),
        ("usage/mod.rs", "fn f() { ::sqlx::query(\"\"); }", "`sqlx::query` is only for storage"),
        ("gateway/mod.rs", "use {axum::http, std::fmt};", "`axum::http` is only for api, app"),
        ("gateway/mod.rs", "#[derive(utoipa::ToSchema)] struct S;", "`utoipa::ToSchema` is only for api, app"),
        ("app/mod.rs", "use hyper_util::{server, client::legacy::Client};", "only for backends/ollama"),
        ("cli/mod.rs", "fn f() { reqwest::get(\"\"); }", "only for cli/client"),
        ("models/mod.rs", "fn f() -> candle_core::Tensor {}", "only for lm, backends/embedded, jobs/finetune"),
        ("app/mod.rs", "use std::{env, fs};", "`std::env` is only for config"),
        ("app/mod.rs", "fn f() { let _ = (1, std::env::var(\"A\")); }", "`std::env::var` is only for config"),
        ("app/mod.rs", "use clap::Parser;", "only for cli, main"),
        ("usage/mod.rs", "fn f() { metrics::counter!(\"x\"); }", "only for telemetry"),
    ] {
        assert_finds(&[(file, text)], &[what]);
    }
    assert_finds(&[("app/mod.rs", "use hyper_util::server; const V: &str = env!(\"CARGO_PKG_VERSION\");")], &[]);
}

#[test]
fn the_checker_finds_metrics_named_elsewhere_and_config_that_takes_more_than_config() {
    assert_finds(&[("app/mod.rs", "const X: &str = \"arriero_connections\";")], &["names the metric `arriero_connections`"]);
    assert_finds(&[("app/mod.rs", "fn f() { log!(\"see arriero_connections\") }")], &["names the metric"]);
    assert_finds(&[("config/mod.rs", "use crate::storage::Storage;")], &["nothing but `Config` types"]);
}

#[test]
fn the_checker_finds_circles_even_where_the_table_would_allow_them() {
    let files: Files =
        [("lib.rs", "mod a; mod b; mod c;"), ("a.rs", "use crate::b::X;"), ("b.rs", "use crate::c::X;"), ("c.rs", "use crate::a::X;")]
            .map(|(file, text)| (file.into(), text.to_owned()))
            .into();
    let all = owned(&["a", "b", "c"]);
    let table = all.iter().map(|folder| (folder.clone(), all.clone())).collect();
    let found = violations(&read(&files), &Rules { table, ..rules() });
    assert!(found.iter().any(|found| found.contains("in a circle: a → b → c → a")), "{found:#?}");
    assert!(found.iter().any(|found| found.contains("lets `a` import `c`, which is not above it")), "{found:#?}");
}

#[test]
fn the_checker_finds_folders_rows_and_files_that_have_no_counterpart() {
    let mut files = Files::new();
    for (file, text) in [("lib.rs", "mod domain; mod shed;"), ("domain.rs", "mod gone;"), ("shed/mod.rs", ""), ("stray.rs", "")] {
        files.insert(file.into(), text.to_owned());
    }
    let table = vec![("domain".to_owned(), vec![]), ("attic".to_owned(), vec![])];
    let found = violations(&read(&files), &Rules { table, ..rules() });
    for what in [
        "`shed` is missing from the import table",
        "the import table has `attic`, which is not there",
        "stray.rs: no module declares this file",
        "domain.rs: no file for `mod gone`",
    ] {
        assert!(found.iter().any(|found| found == what), "{what}: {found:#?}");
    }
    assert_finds(&[("usage/mod.rs", "fn f( {")], &["usage/mod.rs: "]);
}

#[test]
fn the_table_is_read_from_markdown() {
    let text = "# T\n\n| other | x |\n|---|---|\n| a | b |\n\n| folder | may import |\n|---|---|\n| domain | – |\n| `a`, b | `domain` |\n\
                | config | the `Config` types of everything above |\n\nend | of | it";
    let row = |folder: &str, allowed: &[&str]| (folder.to_owned(), owned(allowed));
    let expected = vec![row("domain", &[]), row("a", &["domain"]), row("b", &["domain"]), row("config", &["domain", "a", "b"])];
    assert_eq!(table_in(text), Some(expected));
    assert_eq!(table_in("no table"), None);
}
