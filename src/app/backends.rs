//! Finds out what can serve: the configured Ollama servers, and the embedded engine where it is asked for or where no Ollama answers.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;

use super::engine::{self, Engine};
use super::error::Error;
use super::fleet::Fleet;
use crate::backends::ollama::{self, Ollama};
use crate::backends::{Backend, Health, Probe};
use crate::config::Config;
use crate::models::{Backends, Registry};
use crate::telemetry::metrics::Metrics;

/// How long a server may take to answer the question at start whether it is there.
const START_PROBE: Duration = Duration::from_secs(2);

/// Everything that can serve.
pub struct Built {
    pub registry: Registry,
    pub fleet: Fleet,
    pub engine: Option<Engine>,
}

/// # Errors
/// A backend that is configured wrongly, a model that cannot be loaded, or nothing at all that could serve.
pub async fn build(config: &Config, metrics: &Metrics) -> Result<Built, Error> {
    let ollamas: Vec<Ollama> = config.ollama.iter().map(open).collect::<Result<_, _>>()?;
    for ollama in &ollamas {
        ollama.count_in(metrics);
    }
    let health = join_all(ollamas.iter().map(first_probe)).await;
    let answers = health.contains(&Health::Up);
    let engine = engine::load(config, answers).await?;
    if !answers && engine.is_none() && !config.server.start_without_backend {
        return Err(Error::NoBackend { reasons: reasons(&ollamas, &health) });
    }
    let servers: Vec<_> = config
        .ollama
        .iter()
        .cloned()
        .zip(ollamas)
        .map(|(config, ollama)| (config, ollama.clone(), Arc::new(ollama) as Arc<dyn Backend>))
        .collect();
    let embedded = engine.as_ref().map(Engine::backend);
    let backends: Backends = servers.iter().map(|(_, _, backend)| Arc::clone(backend)).chain(embedded.clone()).collect();
    unique(&backends)?;
    let registry = Registry::new(backends);
    let fleet = Fleet::new(registry.clone(), metrics.clone(), servers, embedded);
    Ok(Built { registry, fleet, engine })
}

/// # Errors
/// An address that is none, or certificates that cannot be read.
pub fn open(config: &ollama::Config) -> Result<Ollama, Error> {
    let name = || config.name.clone().unwrap_or_else(|| ollama::hide_credentials(&config.url));
    Ollama::new(config.clone()).map_err(|source| Error::Ollama { name: name(), source })
}

async fn first_probe(ollama: &Ollama) -> Health {
    let late = Health::Down(format!("it did not answer within {START_PROBE:?}"));
    tokio::time::timeout(START_PROBE, ollama.probe(Probe::Shallow)).await.unwrap_or(late)
}

fn reasons(ollamas: &[Ollama], health: &[Health]) -> Vec<String> {
    let reason = |(ollama, health): (&Ollama, &Health)| match health {
        Health::Down(why) => format!("{} does not answer ({why})", ollama.describe()),
        Health::Up | Health::Unknown => format!("{} was not asked", ollama.describe()),
    };
    let reasons: Vec<String> = ollamas.iter().zip(health).map(reason).collect();
    if reasons.is_empty() { vec!["no Ollama is configured".to_owned()] } else { reasons }
}

fn unique(backends: &Backends) -> Result<(), Error> {
    let mut names = HashSet::new();
    match backends.iter().find(|backend| !names.insert(backend.name().to_owned())) {
        Some(again) => Err(Error::SameName { name: again.name().to_owned() }),
        None => Ok(()),
    }
}
