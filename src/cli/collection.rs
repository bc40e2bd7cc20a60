//! `arriero collection` and `arriero feedback`: what a gateway collected to learn from, and what people say of its answers.

use std::fs::File;
use std::io::{BufWriter, Read as _, Write};

use http::Method;
use serde_json::{Map, Value, json};

use super::args::{Collected, Collection, CollectionCommand, Feedback, Forget};
use super::client::Client;
use super::exit::{Exit, Failure};
use super::terminal;
use super::values::{list, rows, text};
use crate::config::Variables;
use crate::jobs::dataset;
use crate::storage::{self, Storage};

/// Exchanges that are asked for at once.
const ON_A_PAGE: u32 = 500;
/// Characters of a text that a list shows.
const SHOWN: usize = 40;

/// # Errors
/// When the gateway cannot be reached or refuses.
pub async fn run(args: Collection, variables: &Variables) -> Result<Exit, Failure> {
    let client = Client::of(&args.operating, variables)?;
    match &args.command {
        CollectionCommand::List { which, limit } => {
            let mut exchanges = Vec::new();
            every(&client, which, *limit, |exchange| {
                exchanges.push(exchange.clone());
                Ok(())
            })
            .await?;
            show(&exchanges, args.operating.json)?;
        }
        CollectionCommand::Export { which, out } => {
            let mut file: Box<dyn Write> = match out {
                Some(path) => Box::new(File::create_new(path).map_err(|error| {
                    Failure::new(Exit::Usage, format!("{} cannot be written: {error}", path.display()), "name a file that is not there yet")
                })?),
                None => Box::new(std::io::stdout()),
            };
            let mut buffered = BufWriter::new(&mut file);
            let count = every(&client, which, u32::MAX, |exchange| Ok(writeln!(buffered, "{exchange}")?)).await?;
            buffered.flush()?;
            terminal::note(&format!("{count} exchanges were written."));
        }
        CollectionCommand::Forget(forget) => {
            let query = forgetting(forget);
            let query: Vec<(&str, &str)> = query.iter().map(|(name, value)| (*name, value.as_str())).collect();
            let answer = client.ask(Method::DELETE, "collection", &query, &[], None).await?;
            if args.operating.json {
                terminal::print(&format!("{answer:#}"))?;
            } else {
                terminal::note(&format!("{} exchanges were forgotten.", text(&answer["forgotten"])));
                if answer["overwritten"] == json!(false) {
                    terminal::note("Somebody is reading the database: they leave its write-ahead log a little later.");
                }
            }
        }
    }
    Ok(Exit::Ok)
}

/// # Errors
/// When the gateway cannot be reached or refuses.
pub async fn feedback(args: Feedback, variables: &Variables) -> Result<Exit, Failure> {
    let client = Client::of(&args.operating, variables)?;
    let body = said(&args)?;
    let answer = client.ask(Method::POST, "feedback", &[], &[], Some(&body)).await?;
    if args.operating.json {
        terminal::print(&format!("{answer:#}"))?;
    } else {
        let corrected = if answer["corrected"] == json!(true) { ", with a correction" } else { "" };
        terminal::note(&terminal::harmless(&format!("{} is {}{corrected}.", text(&answer["request_id"]), text(&answer["rating"]))));
    }
    Ok(Exit::Ok)
}

fn said(args: &Feedback) -> Result<Value, Failure> {
    let mut body = Map::from_iter([("request_id".to_owned(), json!(args.request_id)), ("rating".to_owned(), json!(args.rating))]);
    let correction = match args.correction.as_deref() {
        Some("-") => {
            let mut whole = String::new();
            std::io::stdin().read_to_string(&mut whole)?;
            Some(whole.trim_end().to_owned())
        }
        given => given.map(str::to_owned),
    };
    let more = [("correction", &correction), ("comment", &args.comment), ("key", &args.of)];
    body.extend(more.into_iter().filter_map(|(name, value)| Some((name.to_owned(), json!(value.as_ref()?)))));
    Ok(Value::Object(body))
}

/// Hands over at most so many exchanges, page by page; tells how many.
async fn every(client: &Client, which: &Collected, most: u32, mut take: impl FnMut(&Value) -> Result<(), Failure>) -> Result<u32, Failure> {
    let (mut count, mut cursor) = (0, None);
    while count < most {
        let query = looking(which, (most - count).min(ON_A_PAGE), cursor);
        let query: Vec<(&str, &str)> = query.iter().map(|(name, value)| (*name, value.as_str())).collect();
        let page = client.ask(Method::GET, "collection", &query, &[], None).await?;
        for exchange in list(&page["exchanges"]) {
            take(exchange)?;
            count += 1;
        }
        cursor = page["next"].as_i64();
        if cursor.is_none() {
            break;
        }
    }
    Ok(count)
}

fn looking(which: &Collected, limit: u32, cursor: Option<i64>) -> Vec<(&'static str, String)> {
    let given = [("model", &which.model), ("rating", &which.rating), ("key", &which.of), ("since", &which.since), ("until", &which.until)];
    let mut query: Vec<_> = given.into_iter().filter_map(|(name, value)| Some((name, value.clone()?))).collect();
    query.push(("limit", limit.to_string()));
    query.extend(cursor.map(|cursor| ("cursor", cursor.to_string())));
    query
}

fn forgetting(forget: &Forget) -> Vec<(&'static str, String)> {
    let given = [("key", &forget.of), ("request_id", &forget.request), ("model", &forget.model), ("until", &forget.before)];
    let mut query: Vec<_> = given.into_iter().filter_map(|(name, value)| Some((name, value.clone()?))).collect();
    query.extend(forget.all.then(|| ("all", "true".to_owned())));
    query
}

fn show(exchanges: &[Value], as_json: bool) -> Result<(), Failure> {
    if as_json {
        terminal::print(&format!("{:#}", json!({"exchanges": exchanges})))?;
    } else if exchanges.is_empty() {
        terminal::note("Nothing was collected that is meant.");
    } else {
        terminal::print(&terminal::harmless(&terminal::table(&table(exchanges))))?;
    }
    Ok(())
}

fn table(exchanges: &[Value]) -> Vec<Vec<String>> {
    let row = |exchange: &Value| {
        let asked = list(&exchange["messages"]).last().map(|message| begun(&message["content"])).unwrap_or_default();
        let judged =
            if exchange["correction"].is_null() { text(&exchange["rating"]) } else { format!("{}, corrected", text(&exchange["rating"])) };
        let [at, id, key, model] = ["at", "request_id", "key", "model"].map(|field| text(&exchange[field]));
        [at, id, key, model, judged, asked, begun(&exchange["answer"])]
    };
    rows(["ASKED AT", "REQUEST", "KEY", "MODEL", "RATING", "PROMPT", "ANSWER"], exchanges.iter().map(row))
}

/// The beginning of a text, on one line.
fn begun(value: &Value) -> String {
    let whole = text(value);
    let short: String = whole.chars().take(SHOWN).collect();
    if short.len() < whole.len() { format!("{short}…") } else { short }
}

/// Files of what data sets want of what was collected, read from a data folder, beside the gateway that may run on it. They go with this.
#[derive(Debug, Default)]
pub struct Brought {
    files: Vec<(String, File)>,
}

impl Brought {
    /// # Errors
    /// When the data folder cannot be used.
    pub fn of(sources: &[dataset::Source], config: impl FnOnce() -> Result<crate::config::Config, Failure>) -> Result<Self, Failure> {
        let wanted: Vec<&dataset::Collected> = sources.iter().filter_map(|source| source.collected.as_ref()).collect();
        if wanted.is_empty() {
            return Ok(Self::default());
        }
        let config = config()?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(Self::read(&wanted, &config))
    }

    async fn read(wanted: &[&dataset::Collected], config: &crate::config::Config) -> Result<Self, Failure> {
        let unusable = |error: storage::Error| {
            Failure::new(Exit::DataDir, error.to_string(), "name the data folder of the gateway with --data-dir or ARRIERO_DATA_DIR")
        };
        if !config.data_dir.is_dir() {
            let what = format!("there is no data folder {}", config.data_dir.display());
            return Err(Failure::new(Exit::DataDir, what, "name the gateway's with --data-dir or ARRIERO_DATA_DIR"));
        }
        let storage = Storage::join(&config.data_dir, &config.storage).await.map_err(unusable)?;
        let mut files = Vec::new();
        for (number, collected) in wanted.iter().enumerate() {
            let path = config.data_dir.join(format!("collected-{}-{number}.jsonl", std::process::id()));
            let file = File::options().read(true).write(true).create_new(true).open(&path)?;
            // Open, it can be written and read; nobody else finds it, and nothing is left of it whatever happens now.
            std::fs::remove_file(&path)?;
            let written = collected.write(&storage.collection(), file.try_clone()?).await;
            written.map_err(|error| Failure::new(Exit::Failure, error.to_string(), ""))?;
            files.push((collected.name(), file));
        }
        storage.close().await;
        Ok(Self { files })
    }

    /// The file of a source, from its beginning; `None`: it is another one.
    ///
    /// # Errors
    /// Those of the system.
    pub fn open(&self, name: &str) -> Option<std::io::Result<File>> {
        let (_, file) = self.files.iter().find(|(known, _)| known == name)?;
        Some(file.try_clone().and_then(|mut file| std::io::Seek::rewind(&mut file).map(|()| file)))
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::cli::args::{Cli, Command};

    fn forget(flags: &[&str]) -> Result<Vec<(&'static str, String)>, String> {
        let cli = Cli::try_parse_from(["arriero", "collection", "forget"].iter().chain(flags)).map_err(|error| error.to_string())?;
        let Command::Collection(Collection { command: CollectionCommand::Forget(forget), .. }) = cli.command else { panic!("another") };
        Ok(forgetting(&forget))
    }

    #[test]
    fn what_is_to_be_forgotten_is_said() {
        assert_eq!(forget(&["--all"]), Ok(vec![("all", "true".to_owned())]));
        let some = forget(&["--of", "0f", "--before", "2030-01-31T00:00:00Z"]).expect("right");
        assert_eq!(some, [("key", "0f".to_owned()), ("until", "2030-01-31T00:00:00Z".to_owned())]);
        assert_eq!(forget(&["--request", "r"]), Ok(vec![("request_id", "r".to_owned())]));
        assert!(forget(&[]).is_err() && forget(&["--all", "--of", "0f"]).is_err());
    }

    #[test]
    fn an_exchange_is_a_row() {
        let long = "word\n".repeat(20);
        let exchange = json!({"at": "t", "request_id": "r", "key": "anonymous", "model": "m", "rating": "bad", "correction": "c",
            "messages": [{"role": "user", "content": long}], "answer": "a"});
        let rows = table(&[exchange]);
        assert_eq!(rows[1][..5], ["t", "r", "anonymous", "m", "bad, corrected"]);
        assert!(rows[1][5].ends_with('…') && rows[1][5].chars().count() == SHOWN + 1 && !rows[1][5].contains('\n'));
    }
}
