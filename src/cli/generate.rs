//! `arriero generate`: one prompt, one answer.

use std::io::{IsTerminal, Read};

use serde_json::Value;

use super::args::Generate;
use super::asking::{self, Ended};
use super::client::Client;
use super::exit::{Exit, Failure};
use super::terminal::{self, Output};
use crate::config::Variables;

/// Longest prompt taken from standard input, in bytes.
const MAX_PROMPT_BYTES: u64 = 64 << 20;

/// # Errors
/// When there is no prompt, or the gateway refuses or fails.
pub async fn run(args: Generate, variables: &Variables) -> Result<Exit, Failure> {
    let client = Client::new(args.target.url.as_deref(), variables)?;
    let mut body = asking::body(&args.asking);
    body.insert("prompt".to_owned(), Value::String(prompt(&args.prompt)?));
    if args.raw {
        body.insert("raw".to_owned(), Value::Bool(true));
    }
    if let Some(format) = &args.format {
        body.insert("format".to_owned(), format_of(format)?);
    }
    let mut output = if args.json { Output::quiet() } else { Output::standard() };
    match asking::ask(&client, body, &mut output).await {
        Ok(Ended::Done { last, text }) => {
            if args.asking.verbose {
                terminal::note(&asking::summary(&last));
            }
            if args.json {
                terminal::print(&format!("{:#}", asking::whole(last, &text)))?;
            }
            Ok(Exit::Ok)
        }
        Ok(Ended::Stopped) => {
            output.end()?;
            Ok(Exit::Interrupted)
        }
        Err(failure) => {
            output.end()?;
            Err(failure)
        }
    }
}

/// The words of the command line, with standard input for `-`, or standard input alone when there are none.
fn prompt(words: &[String]) -> Result<String, Failure> {
    let piped = !std::io::stdin().is_terminal();
    let nothing = || Failure::new(Exit::Usage, "there is no prompt", "write one: arriero generate \"Why is the sky blue?\"");
    if words.is_empty() && !piped {
        return Err(nothing());
    }
    let input = if words.is_empty() || words.iter().any(|word| word == "-") { read_input()? } else { String::new() };
    let prompt = if words.is_empty() { input } else { joined(words, &input) };
    if prompt.trim().is_empty() { Err(nothing()) } else { Ok(prompt) }
}

fn joined(words: &[String], input: &str) -> String {
    words.iter().map(|word| if word == "-" { input } else { word.as_str() }).collect::<Vec<_>>().join(" ")
}

fn read_input() -> Result<String, Failure> {
    let mut bytes = Vec::new();
    std::io::stdin().lock().take(MAX_PROMPT_BYTES + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > MAX_PROMPT_BYTES {
        return Err(Failure::new(Exit::Usage, format!("standard input is longer than {MAX_PROMPT_BYTES} bytes"), "send less"));
    }
    String::from_utf8(bytes).map_err(|_| Failure::new(Exit::Usage, "standard input is no UTF-8 text", "convert it first"))
}

fn format_of(format: &str) -> Result<Value, Failure> {
    if format == "json" {
        return Ok(Value::String(format.to_owned()));
    }
    let wrong =
        |why: String| Failure::new(Exit::Usage, format!("--format: `{format}` {why}"), "write json, or name a file with a JSON Schema");
    let text = std::fs::read_to_string(format).map_err(|error| wrong(format!("cannot be read: {error}")))?;
    serde_json::from_str(&text).map_err(|error| wrong(format!("is no JSON: {error}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn standard_input_stands_where_the_dash_is() {
        let words = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
        assert_eq!(joined(&words(&["Sum", "up:", "-"]), "text"), "Sum up: text");
        assert_eq!(joined(&words(&["a", "b"]), ""), "a b");
    }
}
