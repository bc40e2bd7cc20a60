//! `arriero limits`: what each key and tenant of a running gateway uses of what it may.

use http::Method;
use serde_json::Value;

use super::args::Limits;
use super::client::Client;
use super::exit::{Exit, Failure};
use super::terminal;
use crate::config::Variables;

/// # Errors
/// When the gateway cannot be reached.
pub async fn run(args: Limits, variables: &Variables) -> Result<Exit, Failure> {
    let list = Client::of(&args.operating, variables)?.admin(Method::GET, "limits", None).await?;
    if args.operating.json {
        terminal::print(&format!("{list:#}"))?;
        return Ok(Exit::Ok);
    }
    let accounts = list["accounts"].as_array().map(Vec::as_slice).unwrap_or_default();
    if accounts.is_empty() {
        terminal::note("Nobody has asked for anything yet.");
    } else {
        terminal::print(&terminal::harmless(&terminal::table(&rows(accounts))))?;
    }
    Ok(Exit::Ok)
}

fn rows(accounts: &[Value]) -> Vec<Vec<String>> {
    let heading = ["SCOPE", "NAME", "RUNNING", "RESERVED", "TODAY", "MONTH", "DEBT", "LEFT"];
    let mut rows = vec![heading.map(str::to_owned).to_vec()];
    for account in accounts {
        let text = |name: &str| account[name].as_str().unwrap_or("-").to_owned();
        let number = |name: &str| account[name].as_u64().map_or_else(|| "-".to_owned(), |number| number.to_string());
        let tokens = ["running", "reserved_tokens", "tokens_today", "tokens_this_month", "debt_tokens"].map(number);
        let limits = account["limits"].as_array().map(Vec::as_slice).unwrap_or_default();
        let left: Vec<String> = limits.iter().map(left).collect();
        let left = if left.is_empty() { "unbounded".to_owned() } else { left.join(", ") };
        rows.push([text("scope"), text("name")].into_iter().chain(tokens).chain([left]).collect());
    }
    rows
}

/// What is left of a bound: `59/60 requests-per-minute`.
fn left(limit: &Value) -> String {
    format!("{}/{} {}", limit["remaining"], limit["limit"], limit["measure"].as_str().unwrap_or("?"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_account_is_a_row_whatever_is_bounded() {
        let accounts = [
            json!({"scope": "key", "name": "ab12", "running": 1, "reserved_tokens": 30, "tokens_today": 5, "tokens_this_month": 7,
                "debt_tokens": 0, "limits": [
                    {"measure": "requests-per-minute", "limit": 60, "remaining": 59, "reset_seconds": 1},
                    {"measure": "tokens-per-day", "limit": 100, "remaining": 65, "reset_seconds": 9}]}),
            json!({"scope": "global", "name": "all"}),
        ];
        let rows = rows(&accounts);
        assert_eq!(rows[1], ["key", "ab12", "1", "30", "5", "7", "0", "59/60 requests-per-minute, 65/100 tokens-per-day"]);
        assert_eq!(rows[2], ["global", "all", "-", "-", "-", "-", "-", "unbounded"]);
    }
}
