//! `arriero backends`: how the backends of a running gateway are doing, and what is stuck there.

use std::fmt::Write;

use http::Method;
use serde_json::Value;

use super::args::Backends;
use super::client::Client;
use super::exit::{Exit, Failure};
use super::terminal;
use super::values::{bytes, list, rows, span, text};
use crate::config::Variables;

/// # Errors
/// When the gateway cannot be reached or refuses.
pub async fn run(args: Backends, variables: &Variables) -> Result<Exit, Failure> {
    let answer = Client::of(&args.operating, variables)?.admin(Method::GET, "backends", None).await?;
    terminal::print(&if args.operating.json { format!("{answer:#}") } else { terminal::harmless(&page(&answer)) })?;
    Ok(Exit::Ok)
}

fn page(answer: &Value) -> String {
    let backends = list(&answer["backends"]);
    let mut page = terminal::table(&overview(backends));
    for part in [residents(backends), routes(backends)] {
        if part.len() > 1 {
            let _ = write!(page, "\n{}", terminal::table(&part));
        }
    }
    let bad: Vec<String> = backends.iter().flat_map(what_is_wrong).collect();
    if !bad.is_empty() {
        let _ = write!(page, "\n{}\n", bad.join("\n"));
    }
    page
}

fn overview(backends: &[Value]) -> Vec<Vec<String>> {
    let row = |backend: &Value| {
        let slots = backend["slots"].as_u64().map_or_else(|| "found out".to_owned(), |slots| slots.to_string());
        let routing = match &backend["routing"] {
            Value::Null => "-".to_owned(),
            routing => text(&routing["state"]),
        };
        let [name, kind, health, running, models] = ["name", "kind", "health", "in_flight", "models"].map(|field| text(&backend[field]));
        [name, kind, health, running, slots, models, routing]
    };
    rows(["BACKEND", "KIND", "HEALTH", "RUNNING", "SLOTS", "MODELS", "ROUTING"], backends.iter().map(row))
}

fn residents(backends: &[Value]) -> Vec<Vec<String>> {
    let row = |backend: &Value, model: &Value| {
        [
            text(&backend["name"]),
            text(&model["model"]),
            text(&model["context_length"]),
            bytes(&model["size_bytes"]),
            bytes(&model["size_vram_bytes"]),
        ]
    };
    let all = backends.iter().flat_map(|backend| list(&backend["resident"]).iter().map(move |model| row(backend, model)));
    rows(["BACKEND", "IN MEMORY", "CONTEXT", "SIZE", "ON ACCELERATOR"], all)
}

fn routes(backends: &[Value]) -> Vec<Vec<String>> {
    let row = |backend: &Value, model: &Value| {
        let breaker = match (&model["open_for_ms"], &model["why"]) {
            (Value::Null, _) => text(&model["breaker"]),
            (open_for, why) => format!("{} for {} ({})", text(&model["breaker"]), span(open_for), text(why)),
        };
        let times = ["first_token_ms", "load_ms", "answer_ms"].map(|field| span(&model[field]));
        let [first, load, answer] = times;
        [text(&backend["name"]), text(&model["model"]), breaker, first, load, answer]
    };
    let all = backends.iter().flat_map(|backend| list(&backend["routing"]["models"]).iter().map(move |model| row(backend, model)));
    rows(["BACKEND", "MODEL", "BREAKER", "FIRST TOKEN", "LOAD", "ANSWER"], all)
}

/// One line for everything that somebody should see to.
fn what_is_wrong(backend: &Value) -> Vec<String> {
    let name = text(&backend["name"]);
    let down = backend["why"].as_str().map(|why| format!("{name} is down: {why}"));
    let ejected = backend["routing"]["ejected_for_ms"].as_u64();
    let ejected = ejected.map(|_| {
        let failures = text(&backend["routing"]["failures_in_a_row"]);
        format!("{name} is left out for {}: {failures} failures in a row", span(&backend["routing"]["ejected_for_ms"]))
    });
    let stuck = list(&backend["troubles"]).iter().map(|trouble| {
        let [kind, model, why, cures, advice] = ["kind", "model", "why", "cures_tried", "advice"].map(|field| text(&trouble[field]));
        format!("{name}: {kind} on {model}: {why}; cures tried: {cures}; if it stays: {advice}")
    });
    down.into_iter().chain(ejected).chain(stuck).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn health_memory_and_routing_are_tables() {
        let answer = json!({"backends": [{
            "name": "a", "kind": "ollama", "health": "up", "why": null, "in_flight": 1, "slots": null, "models": 3,
            "resident": [{"model": "m:latest", "context_length": 4096, "size_bytes": 1_000_000_000_u64, "size_vram_bytes": 0}],
            "troubles": [],
            "routing": {"state": "ok", "models": [{"model": "m:latest", "breaker": "closed", "first_token_ms": 81.2}]},
        }]});
        let page = page(&answer);
        for line in [
            "a        ollama  up      1        found out  3       ok",
            "a        m:latest   4096     1.0 GB  0 B",
            "a        m:latest  closed   81 ms        -     -",
        ] {
            assert!(page.lines().any(|shown| shown == line), "{line}\n{page}");
        }
    }

    #[test]
    fn what_is_wrong_is_told_with_advice() {
        let backend = json!({
            "name": "a", "why": "connection refused",
            "routing": {"ejected_for_ms": 2_000, "failures_in_a_row": 4},
            "troubles": [{"kind": "leaked_slot", "model": "m", "why": "no first token for 9 s", "cures_tried": 1, "advice": "restart it"}],
        });
        assert_eq!(
            what_is_wrong(&backend),
            [
                "a is down: connection refused",
                "a is left out for 2.0 s: 4 failures in a row",
                "a: leaked_slot on m: no first token for 9 s; cures tried: 1; if it stays: restart it",
            ]
        );
        assert!(what_is_wrong(&json!({"name": "a", "health": "up", "troubles": [], "routing": null})).is_empty());
    }

    #[test]
    fn an_open_breaker_says_for_how_long_and_why() {
        let backends =
            [json!({"name": "a", "routing": {"models": [{"model": "m", "breaker": "open", "open_for_ms": 800, "why": "failed"}]}})];
        assert_eq!(routes(&backends)[1][2], "open for 800 ms (failed)");
    }
}
