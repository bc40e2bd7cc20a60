//! `arriero config reload`: has a running gateway read its configuration anew.

use serde_json::{Value, json};

use super::args::Operating;
use super::client::Client;
use super::exit::{Exit, Failure};
use super::terminal;
use super::values::{list, text};
use crate::config::Variables;

/// Ends with [`Exit::Configuration`] when the new configuration is refused; the old one stays in force then.
///
/// # Errors
/// When the gateway cannot be reached or refuses to try.
pub async fn run(operating: Operating, variables: &Variables) -> Result<Exit, Failure> {
    let outcome = Client::of(&operating, variables)?.reload().await?;
    match (outcome, operating.json) {
        (Ok(applied), true) => terminal::print(&format!("{applied:#}"))?,
        (Ok(applied), false) => terminal::print(&terminal::harmless(&changes(&applied)))?,
        (Err(problems), as_json) => {
            if as_json {
                terminal::print(&format!("{:#}", json!({"problems": problems})))?;
            }
            for problem in problems.iter().filter(|_| !as_json) {
                terminal::note(&terminal::harmless(&format!("arriero: configuration: {problem}")));
            }
            return Ok(Exit::Configuration);
        }
    }
    Ok(Exit::Ok)
}

/// One line for each kind of change.
fn changes(applied: &Value) -> String {
    let said = [
        ("changed", "in force"),
        ("needs_restart", "in force from the next start on"),
        ("backends_added", "backends added"),
        ("backends_removed", "backends removed"),
    ];
    let line = |(field, words): (&str, &str)| {
        let names: Vec<String> = list(&applied[field]).iter().map(text).collect();
        (!names.is_empty()).then(|| format!("{words}: {}", names.join(", ")))
    };
    let lines: Vec<String> = said.into_iter().filter_map(line).collect();
    if lines.is_empty() { "Nothing has changed.".to_owned() } else { lines.join("\n") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_changed_is_told() {
        let applied = json!({"changed": ["limits", "queue"], "needs_restart": ["server"], "backends_added": [], "backends_removed": ["b"]});
        assert_eq!(changes(&applied), "in force: limits, queue\nin force from the next start on: server\nbackends removed: b");
        assert_eq!(changes(&json!({"changed": []})), "Nothing has changed.");
    }
}
