//! From a configuration to a running process.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::backends::{self, Built};
use super::engine::Engine;
use super::error::Error;
use super::summary::Summary;
use super::supervisor::Supervisor;
use crate::api::listener::Listener;
use crate::api::{self, Readiness};
use crate::backends::Health;
use crate::config::Config;
use crate::domain::clock::Clock;
use crate::gateway::{Gateway, Ledger};
use crate::models::Registry;
use crate::monitor::Sensors;
use crate::storage::Storage;
use crate::telemetry::metrics::Metrics;
use crate::usage::{self, Retention, UsageLog};

/// How often the backends are asked for their models.
const REFRESH_INTERVAL: Duration = Duration::from_secs(5);
/// How often metrics that nobody reads are condensed.
const UPKEEP_INTERVAL: Duration = Duration::from_secs(5);

/// A running process.
pub struct App {
    pub(super) address: SocketAddr,
    pub(super) summary: Summary,
    pub(super) config: Config,
    pub(super) supervisor: Supervisor,
    /// The accept loop, alone in its set so that it can be waited for apart from the rest.
    pub(super) server: JoinSet<()>,
    pub(super) readiness: Readiness,
    pub(super) engine: Option<Engine>,
    pub(super) storage: Storage,
    /// Cancelled in this order.
    pub(super) stop_accepting: CancellationToken,
    pub(super) end_answers: CancellationToken,
    pub(super) flush: CancellationToken,
}

/// Builds everything and begins to serve. On an error nothing is left behind.
///
/// # Errors
/// Why the process cannot start.
pub async fn start(config: Config, clock: Clock) -> Result<App, Error> {
    let listener = bind(&config)?;
    let address = listener.address().map_err(|source| Error::Bind { address: config.server.listen, source })?;
    let metrics = Metrics::new(&config.metrics);
    let storage = Storage::open(&config.data_dir, &config.storage).await?;
    let Built { backends, ollamas, engine } = backends::build(&config).await?;
    let registry = Registry::new(backends);
    registry.refresh().await;

    let mut supervisor = Supervisor::new();
    let flush = CancellationToken::new();
    let usage = keep_usage(&mut supervisor, &config, &storage, &metrics, &clock, &flush);
    for ollama in ollamas {
        supervisor.spawn_forever("check a backend", ollama.watch());
    }
    supervisor.spawn_forever("list models", list_models(registry.clone(), metrics.clone()));
    supervisor.spawn_forever("condense metrics", condense(metrics.clone()));

    let ledger = Ledger { metrics: metrics.clone(), usage, clock: clock.clone() };
    let gateway = Gateway::new(config.generation.clone(), registry.clone(), ledger);
    let readiness = Readiness::default();
    let end_answers = CancellationToken::new();
    let state = api::State {
        config: Arc::new(config.api.clone()),
        gateway,
        metrics: metrics.clone(),
        clock,
        sensors: Arc::new(Sensors::new()),
        readiness: readiness.clone(),
        ending: end_answers.clone(),
    };
    let stop_accepting = CancellationToken::new();
    let mut server = JoinSet::new();
    server.spawn(listener.serve(api::router(state), metrics, stop_accepting.clone()));
    readiness.ready();
    let summary = Summary::of(address, &registry);
    Ok(App { address, summary, config, supervisor, server, readiness, engine, storage, stop_accepting, end_answers, flush })
}

fn bind(config: &Config) -> Result<Listener, Error> {
    let address = config.server.listen;
    if !address.ip().is_loopback() && !config.server.insecure_public_bind {
        return Err(Error::PublicBind { address });
    }
    Listener::bind(&config.server).map_err(|source| match source.kind() {
        std::io::ErrorKind::AddrInUse => Error::AddressInUse { address },
        _ => Error::Bind { address, source },
    })
}

fn keep_usage(
    supervisor: &mut Supervisor,
    config: &Config,
    storage: &Storage,
    metrics: &Metrics,
    clock: &Clock,
    flush: &CancellationToken,
) -> UsageLog {
    let (log, writer) = usage::usage_log(&config.usage, storage, metrics.clone(), clock.clone());
    let until = flush.clone();
    supervisor.spawn("write the request log", async move {
        writer.run(until).await;
        Ok::<_, std::convert::Infallible>(())
    });
    let retention = Retention::new(&config.usage, storage, clock.clone());
    let stopping = supervisor.stopping();
    supervisor.spawn("prune the request log", async move {
        retention.run(stopping).await;
        Ok::<_, std::convert::Infallible>(())
    });
    log
}

async fn list_models(registry: Registry, metrics: Metrics) {
    loop {
        for entry in registry.entries().iter() {
            metrics.backend_up(entry.backend.name(), entry.backend.health() == Health::Up);
        }
        tokio::time::sleep(REFRESH_INTERVAL).await;
        registry.refresh().await;
    }
}

async fn condense(metrics: Metrics) {
    loop {
        tokio::time::sleep(UPKEEP_INTERVAL).await;
        metrics.run_upkeep();
    }
}

impl App {
    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// What serves what, for people.
    pub fn summary(&self) -> &Summary {
        &self.summary
    }

    pub fn config(&self) -> &Config {
        &self.config
    }
}
