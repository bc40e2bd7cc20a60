//! `arriero cache`: what is kept, forgetting it, and prompts that are kept warm.

use http::Method;
use serde_json::{Map, Value, json};

use super::args::{Cache, CacheCommand, Purge, WarmCommand};
use super::client::Client;
use super::exit::{Exit, Failure};
use super::terminal;
use super::values::{bytes, list, rows, text};
use crate::config::Variables;

/// # Errors
/// When the gateway cannot be reached or refuses.
pub async fn run(args: Cache, variables: &Variables) -> Result<Exit, Failure> {
    let client = Client::of(&args.operating, variables)?;
    let command = args.command.unwrap_or(CacheCommand::Stats);
    let answer = ask(&client, &command).await?;
    if !args.operating.json {
        show(&command, &answer)?;
    } else if !answer.is_null() {
        terminal::print(&format!("{answer:#}"))?;
    }
    Ok(Exit::Ok)
}

async fn ask(client: &Client, command: &CacheCommand) -> Result<Value, Failure> {
    match command {
        CacheCommand::Stats => client.admin(Method::GET, "cache", None).await,
        CacheCommand::Purge(purge) => client.admin_where(Method::DELETE, "cache", &[which(purge)], None).await,
        CacheCommand::Warm(WarmCommand::List) => client.admin(Method::GET, "cache/warm", None).await,
        CacheCommand::Warm(WarmCommand::Add { name, model, system, prompt }) => {
            let body = warm(name, model, system.as_deref(), &prompt.join(" "));
            client.admin(Method::POST, "cache/warm", Some(&body)).await
        }
        CacheCommand::Warm(WarmCommand::Remove { name }) => client.admin(Method::DELETE, &path(name)?, None).await,
    }
}

/// Which answers are to be forgotten; the command line lets exactly one through.
fn which(purge: &Purge) -> (&str, &str) {
    let given = [("model", &purge.model), ("tenant", &purge.tenant), ("key", &purge.answer)];
    given.into_iter().find_map(|(name, value)| Some((name, value.as_deref()?))).unwrap_or(("all", "true"))
}

fn warm(name: &str, model: &str, system: Option<&str>, prompt: &str) -> Value {
    let mut body = Map::from_iter([("name".to_owned(), json!(name)), ("model".to_owned(), json!(model))]);
    body.extend(system.map(|system| ("system".to_owned(), json!(system))));
    body.extend((!prompt.is_empty()).then(|| ("prompt".to_owned(), json!(prompt))));
    Value::Object(body)
}

/// The path of a prompt; a name that could lead elsewhere is none.
fn path(name: &str) -> Result<String, Failure> {
    let is_one = name.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b)) && name.bytes().any(|b| b != b'.');
    if is_one {
        return Ok(format!("cache/warm/{name}"));
    }
    Err(Failure::new(Exit::Usage, format!("`{name}` is no name of a prompt"), "`arriero cache warm list` lists them"))
}

fn show(command: &CacheCommand, answer: &Value) -> Result<(), Failure> {
    match command {
        CacheCommand::Stats => terminal::print(&stats(answer))?,
        CacheCommand::Purge(_) => terminal::note(&format!("{} answers were forgotten.", text(&answer["purged"]))),
        CacheCommand::Warm(WarmCommand::List) if list(&answer["prompts"]).is_empty() => terminal::note("No prompt is kept warm."),
        CacheCommand::Warm(WarmCommand::List) => terminal::print(&terminal::harmless(&terminal::table(&prompts(answer))))?,
        CacheCommand::Warm(WarmCommand::Add { name, .. }) => {
            terminal::note(&format!("{name} is kept warm on every backend that has its model."));
        }
        CacheCommand::Warm(WarmCommand::Remove { name }) => terminal::note(&format!("{name} is no longer kept warm.")),
    }
    Ok(())
}

fn stats(answer: &Value) -> String {
    let tiers = ["memory", "durable", "semantic"].into_iter();
    let row = |tier: &'static str| [tier.to_owned(), text(&answer[tier]["answers"]), bytes(&answer[tier]["bytes"])];
    let kept = text(&answer["kept_generations"]);
    format!("{}\n{kept} generations are kept for their clients\n", terminal::table(&rows(["TIER", "ANSWERS", "SIZE"], tiers.map(row))))
}

fn prompts(answer: &Value) -> Vec<Vec<String>> {
    let row =
        |prompt: &Value| [text(&prompt["name"]), text(&prompt["model"]), bytes(&prompt["system_bytes"]), bytes(&prompt["prompt_bytes"])];
    rows(["NAME", "MODEL", "SYSTEM", "PROMPT"], list(&answer["prompts"]).iter().map(row))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_to_be_forgotten_is_one_thing() {
        assert_eq!(which(&Purge { model: Some("m".into()), ..Purge::default() }), ("model", "m"));
        assert_eq!(which(&Purge { tenant: Some("t".into()), ..Purge::default() }), ("tenant", "t"));
        assert_eq!(which(&Purge { answer: Some("0f".into()), ..Purge::default() }), ("key", "0f"));
        assert_eq!(which(&Purge { all: true, ..Purge::default() }), ("all", "true"));
    }

    #[test]
    fn a_warm_prompt_has_what_was_given() {
        assert_eq!(warm("n", "m", None, ""), json!({"name": "n", "model": "m"}));
        assert_eq!(warm("n", "m", Some("s"), "p q"), json!({"name": "n", "model": "m", "system": "s", "prompt": "p q"}));
    }

    #[test]
    fn a_name_leads_nowhere_else() {
        assert_eq!(path("support-v1.2"), Ok("cache/warm/support-v1.2".into()));
        for wrong in ["", ".", "..", "a/b", "a?b", "ä"] {
            assert_eq!(path(wrong).expect_err(wrong).exit, Exit::Usage);
        }
    }

    #[test]
    fn sizes_are_a_table() {
        let answer = json!({"memory": {"answers": 2, "bytes": 1_500}, "durable": {"answers": 3, "bytes": 2_500},
            "semantic": {"answers": 0, "bytes": 0}, "kept_generations": 1});
        assert_eq!(
            stats(&answer),
            "TIER      ANSWERS  SIZE\nmemory    2        1.5 kB\ndurable   3        2.5 kB\nsemantic  0        0 B\n\n1 generations are kept for their clients\n"
        );
        let answer = json!({"prompts": [{"name": "n", "model": "m", "system_bytes": 0, "prompt_bytes": 12, "created_at_ms": 1}]});
        assert_eq!(prompts(&answer)[1], ["n", "m", "0 B", "12 B"]);
    }
}
