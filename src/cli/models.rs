//! `arriero models`: what a running gateway serves.

use serde_json::Value;

use super::args::Models;
use super::client::Client;
use super::exit::{Exit, Failure};
use super::terminal;
use crate::config::Variables;

/// # Errors
/// When the gateway cannot be reached.
pub async fn run(args: Models, variables: &Variables) -> Result<Exit, Failure> {
    let client = Client::new(args.target.url.as_deref(), variables)?;
    let list = client.models().await?;
    if args.json {
        terminal::print(&format!("{list:#}"))?;
        return Ok(Exit::Ok);
    }
    let models = list["models"].as_array().map(Vec::as_slice).unwrap_or_default();
    if models.is_empty() {
        terminal::note("The gateway has no models now; `arriero doctor` says why.");
    } else {
        terminal::print(&terminal::harmless(&terminal::table(&rows(models))))?;
    }
    for alias in list["aliases"].as_array().into_iter().flatten() {
        terminal::print(&terminal::harmless(&meaning(alias)))?;
    }
    Ok(Exit::Ok)
}

fn rows(models: &[Value]) -> Vec<Vec<String>> {
    let heading = ["NAME", "BACKEND", "FAMILY", "WEIGHTS", "QUANTIZATION", "CONTEXT", "LOADED"];
    let mut rows = vec![heading.map(str::to_owned).to_vec()];
    for model in models {
        let text = |name: &str| model[name].as_str().unwrap_or("-").to_owned();
        let number = |name: &str| model[name].as_u64();
        rows.push(vec![
            text("name"),
            text("backend"),
            text("family"),
            number("parameters").map_or_else(|| text("parameters"), short),
            text("quantization"),
            number("context_length").map_or_else(|| "-".to_owned(), |tokens| tokens.to_string()),
            if model["loaded"] == true { "yes" } else { "no" }.to_owned(),
        ]);
    }
    rows
}

/// What an alias stands for.
fn meaning(alias: &Value) -> String {
    let models: Vec<&str> = alias["models"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    format!("{} stands for {}\n", alias["name"].as_str().unwrap_or("-"), models.join(", then "))
}

/// A number of weights as people say it: `270M`, `7.2B`.
#[expect(clippy::cast_precision_loss, reason = "shown with one digit")]
fn short(count: u64) -> String {
    match count {
        1_000_000_000.. => format!("{:.1}B", count as f64 / 1e9),
        1_000_000.. => format!("{:.0}M", count as f64 / 1e6),
        _ => count.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_alias_tells_its_order() {
        let alias = json!({"name": "smart:latest", "models": ["big", "small"]});
        assert_eq!(meaning(&alias), "smart:latest stands for big, then small\n");
    }

    #[test]
    fn a_model_is_a_row_whatever_is_known_of_it() {
        let models = [
            json!({"name": "a", "backend": "embedded", "parameters": 268_098_176_u64, "context_length": 32768, "loaded": true}),
            json!({"name": "b", "parameters": 7_241_732_096_u64}),
        ];
        let rows = rows(&models);
        assert_eq!(rows[1], ["a", "embedded", "-", "268M", "-", "32768", "yes"]);
        assert_eq!(rows[2], ["b", "-", "-", "7.2B", "-", "-", "no"]);
    }
}
