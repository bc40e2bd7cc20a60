//! Whether `make run` has to fetch the demo model before it starts the service.

use super::args::Serve;
use super::exit::{Exit, Failure};
use super::{inspect, terminal};
use crate::backends::ollama::Ollama;
use crate::backends::{Backend, Health, Probe};
use crate::config::{Config, Variables};

/// Prints the folder the demo model belongs in when it is needed and missing, else nothing.
///
/// # Errors
/// When the configuration does not hold.
pub async fn run(args: &Serve, variables: &Variables) -> Result<Exit, Failure> {
    let settings = &args.settings;
    let config = inspect::load(settings.config.as_deref(), variables, &settings.overrides())?.config;
    if let Some(folder) = config.demo_model.parent()
        && may_be_used(&config)
        && !config.demo_model.exists()
        && !ollama_answers(&config).await
    {
        terminal::print(&folder.to_string_lossy())?;
    }
    Ok(Exit::Ok)
}

#[cfg(feature = "embedded")]
fn may_be_used(config: &Config) -> bool {
    config.embedded.models.is_empty() && config.demo_model.file_name() == Some(crate::config::DEMO_MODEL_FILE.as_ref())
}

#[cfg(not(feature = "embedded"))]
fn may_be_used(_: &Config) -> bool {
    false
}

/// Whether any of the configured servers answers.
async fn ollama_answers(config: &Config) -> bool {
    let probes = config
        .ollama
        .iter()
        .filter_map(|server| Ollama::new(server.clone()).ok())
        .map(|ollama| async move { ollama.probe(Probe::Shallow).await == Health::Up });
    futures_util::future::join_all(probes).await.contains(&true)
}
