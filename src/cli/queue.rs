//! `arriero queue`: who waits in a running gateway, and for what.

use std::fmt::Write;
use std::io::IsTerminal;
use std::time::Duration;

use http::Method;
use serde_json::Value;

use super::args::Queue;
use super::client::Client;
use super::exit::{Exit, Failure};
use super::terminal;
use super::values::{bytes, list, rows, span, text};
use crate::config::Variables;

/// Time between two looks with `--watch`.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);

/// # Errors
/// When the gateway cannot be reached or refuses.
pub async fn run(args: Queue, variables: &Variables) -> Result<Exit, Failure> {
    let client = Client::of(&args.operating, variables)?;
    if !args.watch {
        look(&client, args.operating.json, "").await?;
        return Ok(Exit::Ok);
    }
    let between = if std::io::stdout().is_terminal() && !args.operating.json { terminal::SCREEN_AWAY } else { "" };
    let watch = async {
        loop {
            look(&client, args.operating.json, between).await?;
            tokio::time::sleep(LOOK_INTERVAL).await;
        }
    };
    tokio::select! {
        biased;
        _ = tokio::signal::ctrl_c() => Ok(Exit::Ok),
        failed = watch => failed,
    }
}

async fn look(client: &Client, as_json: bool, before: &str) -> Result<(), Failure> {
    let queue = client.admin(Method::GET, "queue", None).await?;
    let shown = if as_json { queue.to_string() } else { terminal::harmless(&page(&queue)) };
    terminal::print(&format!("{before}{shown}"))?;
    Ok(())
}

/// The whole queue; parts that say nothing are left out.
fn page(queue: &Value) -> String {
    let mut page = format!("{} wait ({}), {} run\n", text(&queue["waiting"]), bytes(&queue["waiting_bytes"]), text(&queue["in_flight"]));
    for part in [runners(queue), classes(queue), tenants(queue), requests(queue)] {
        if part.len() > 1 {
            let _ = write!(page, "\n{}", terminal::table(&part));
        }
    }
    page
}

fn runners(queue: &Value) -> Vec<Vec<String>> {
    let row = |backend: &Value, runner: &Value| {
        let state = match (&runner["draining"], &runner["resident"]) {
            (Value::Bool(true), _) => "held back for another model",
            (_, Value::Bool(true)) => "loaded",
            _ => "not loaded",
        };
        let state = if backend["available"] == false { "backend down" } else { state };
        let slots = format!("{}{}", text(&runner["slots"]), if runner["learnt"] == true { " (found out)" } else { "" });
        let [name, model, running, booked] = [&backend["backend"], &runner["model"], &runner["in_flight"], &runner["booked"]].map(text);
        [name, model, slots, running, booked, span(&runner["load_ms"]), state.to_owned()]
    };
    let all = list(&queue["backends"]).iter().flat_map(|backend| list(&backend["runners"]).iter().map(move |runner| row(backend, runner)));
    rows(["BACKEND", "MODEL", "SLOTS", "RUNNING", "BOOKED", "LOADS IN", "STATE"], all)
}

fn classes(queue: &Value) -> Vec<Vec<String>> {
    let waiting = list(&queue["classes"]).iter().filter(|class| class["waiting"] != 0);
    rows(["CLASS", "WAITING"], waiting.map(|class| [text(&class["class"]), text(&class["waiting"])]))
}

fn tenants(queue: &Value) -> Vec<Vec<String>> {
    let row = |tenant: &Value| [text(&tenant["tenant"]), text(&tenant["waiting"]), text(&tenant["in_flight"])];
    rows(["TENANT", "WAITING", "RUNNING"], list(&queue["tenants"]).iter().map(row))
}

fn requests(queue: &Value) -> Vec<Vec<String>> {
    let row = |request: &Value| {
        let position = request["ahead"].as_u64().map_or_else(|| "-".to_owned(), |ahead| (ahead + 1).to_string());
        let [id, model, class, tenant, reason] = ["request", "model", "class", "tenant", "reason"].map(|field| text(&request[field]));
        [position, id, model, class, tenant, reason, span(&request["waited_ms"]), span(&request["eta_ms"])]
    };
    rows(["#", "REQUEST", "MODEL", "CLASS", "TENANT", "REASON", "WAITED", "GOES IN"], list(&queue["requests"]).iter().map(row))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_queue_is_a_page() {
        let queue = json!({
            "waiting": 1, "waiting_bytes": 1200, "in_flight": 2,
            "classes": [{"class": "urgent", "waiting": 0}, {"class": "normal", "waiting": 1}],
            "tenants": [{"tenant": "lab", "waiting": 1, "in_flight": 2}],
            "backends": [{"backend": "b", "available": true, "runners": [
                {"model": "m", "shape": "", "slots": 2, "learnt": true, "in_flight": 2, "booked": 0, "resident": true, "draining": false, "load_ms": 1300}]}],
            "requests": [{"request": "r1", "model": "m", "class": "normal", "tenant": "lab", "ahead": 0, "reason": "busy", "waited_ms": 900, "eta_ms": null}],
        });
        let page = page(&queue);
        for line in [
            "1 wait (1.2 kB), 2 run",
            "b        m      2 (found out)  2        0       1.3 s     loaded",
            "normal  1",
            "lab     1        2",
            "1  r1       m      normal  lab     busy    900 ms  -",
        ] {
            assert!(page.lines().any(|shown| shown == line), "{line}\n{page}");
        }
        assert!(!page.contains("urgent"), "classes in which nobody waits are left out");
    }

    #[test]
    fn an_empty_queue_is_one_line() {
        assert_eq!(super::page(&json!({"waiting": 0, "waiting_bytes": 0, "in_flight": 0})), "0 wait (0 B), 0 run\n");
    }

    #[test]
    fn what_keeps_a_model_waiting_is_told() {
        let runner = |draining: bool, available: bool| {
            let queue =
                json!({"backends": [{"backend": "b", "available": available, "runners": [{"resident": false, "draining": draining}]}]});
            runners(&queue)[1][6].clone()
        };
        assert_eq!(runner(true, true), "held back for another model");
        assert_eq!(runner(false, false), "backend down");
        assert_eq!(runner(false, true), "not loaded");
    }
}
