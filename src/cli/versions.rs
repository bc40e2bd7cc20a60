//! `arriero versions`: what was published under each name from this data folder, and how a name goes to another version.

use serde_json::{Value, json};

use super::args::{Settings, Versions, VersionsCommand};
use super::convert::Published;
use super::exit::{Exit, Failure};
use super::watching::Watching;
use super::{inspect, terminal, values};
use crate::config::{self, Variables};
use crate::domain::id::ModelName;
use crate::jobs::make::steps;
use crate::jobs::make::{Impossible, Promotion, Server};
use crate::jobs::publish::library;
use crate::jobs::publish::versions::{self, History};

/// # Errors
/// When there is no such version, or it cannot be published again.
pub fn run(args: &Versions, variables: &Variables) -> Result<Exit, Failure> {
    let overrides = Settings { data_dir: args.data_dir.clone(), ..Settings::default() }.overrides();
    let settings = inspect::load(args.config.as_deref(), variables, &overrides)?.config;
    let as_json = args.json;
    match &args.command {
        None => list(&settings, None, as_json),
        Some(VersionsCommand::List { name }) => list(&settings, name.as_deref(), as_json),
        Some(VersionsCommand::Show { name, number }) => show(&settings, name, *number),
        Some(VersionsCommand::Promote { name, number, to }) => {
            promote(&settings, &Promotion { name: parsed(name)?, version: Some(*number), to: to.clone(), library: None }, as_json)
        }
        Some(VersionsCommand::Rollback { name }) => {
            promote(&settings, &Promotion { name: parsed(name)?, version: None, to: Vec::new(), library: None }, as_json)
        }
    }
}

fn parsed(name: &str) -> Result<ModelName, Failure> {
    ModelName::parse(name).map_err(|error| Failure::new(Exit::Usage, error.to_string(), ""))
}

fn refused(error: &Impossible) -> Failure {
    Failure::new(Exit::Refused, error.to_string(), "")
}

fn histories(settings: &config::Config, name: Option<&str>) -> Result<Vec<History>, Failure> {
    let folder = settings.data_dir.join(versions::FOLDER);
    let Some(name) = name else {
        return versions::all(&folder).map_err(|error| refused(&error.into()));
    };
    let name = parsed(name)?;
    let found = versions::Versions::of(&folder, &name).history().map_err(|error| refused(&error.into()))?;
    found.map(|history| vec![history]).ok_or_else(|| refused(&Impossible::Unknown(name)))
}

fn list(settings: &config::Config, name: Option<&str>, as_json: bool) -> Result<Exit, Failure> {
    let found = histories(settings, name)?;
    if as_json {
        terminal::print(&format!("{:#}", json!({"names": found})))?;
        return Ok(Exit::Ok);
    }
    if found.is_empty() {
        terminal::note("Nothing was published from here yet: `arriero convert --publish` and `arriero finetune` do.");
        return Ok(Exit::Ok);
    }
    let rows = found.iter().flat_map(lines);
    let table = values::rows(["NAME", "VERSION", "MADE", "SIZE", "WHERE", "TEST ACCURACY", ""], rows);
    terminal::print(&terminal::harmless(&terminal::table(&table)))?;
    Ok(Exit::Ok)
}

fn lines(history: &History) -> impl Iterator<Item = [String; 7]> + '_ {
    history.versions.iter().map(|version| {
        let number = Some(version.number);
        let word = if number == history.current {
            "has the name"
        } else if number == history.previous {
            "had it before"
        } else {
            ""
        };
        let mut places = version.to.clone();
        places.extend(version.library.then(|| "library".to_owned()));
        let accuracy = version.lineage["test"]["after"]["accuracy"].as_f64();
        [
            history.name.to_string(),
            version.number.to_string(),
            values::time(&json!(version.made_at_unix_ms)),
            values::bytes(&json!(version.size_bytes)),
            places.join(", "),
            accuracy.map_or_else(|| "-".to_owned(), |share| format!("{:.1} %", 100.0 * share)),
            word.to_owned(),
        ]
    })
}

fn show(settings: &config::Config, name: &str, number: Option<u32>) -> Result<Exit, Failure> {
    for history in histories(settings, Some(name))? {
        let number = number.or(history.current).unwrap_or_default();
        let known = history.versions.iter().map(|version| version.number).collect();
        let found = history.versions.into_iter().find(|version| version.number == number);
        let version = found.ok_or_else(|| refused(&Impossible::Number { name: history.name, number, known }))?;
        terminal::print(&format!("{:#}", json!(version)))?;
    }
    Ok(Exit::Ok)
}

fn promote(settings: &config::Config, promotion: &Promotion, as_json: bool) -> Result<Exit, Failure> {
    let servers: Vec<Server> = settings.ollama.iter().cloned().map(Server).collect();
    let [library, folder] = [library::FOLDER, versions::FOLDER].map(|name| settings.data_dir.join(name));
    let found = promotion.find(&folder, &servers).map_err(|error| refused(&error))?;
    let watching = Watching::new();
    watching.stop_on_interrupt();
    let shipment = found.shipment(&library, &folder, &settings.jobs.publish);
    let delivered = steps::publish(&shipment, &watching).map_err(|error| Failure::new(Exit::Refused, error.to_string(), ""))?;
    let mut published = Published::default();
    published.add(delivered, promotion.name.as_str(), &watching);
    let published: Vec<Value> = published.end(&watching, "the same command tries again")?;
    watching.clear();
    if as_json {
        terminal::print(&format!("{:#}", json!({"published": published})))?;
    }
    Ok(Exit::Ok)
}
