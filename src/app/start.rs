//! From a configuration to a running process.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::backends::{self, Built};
use super::background;
use super::engine::Engine;
use super::error::Error;
use super::listeners::{self, Listeners};
use super::reload::{Reloading, Source};
use super::services::{Ground, Services};
use super::summary::Summary;
use super::supervisor::Supervisor;
use crate::api::reload::Reloader;
use crate::api::{self, Readiness};
use crate::auth::Keys;
use crate::backends::Health;
use crate::collection::{self, Collection};
use crate::config::Config;
use crate::domain::clock::Clock;
use crate::gateway::Ledger;
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
    pub(super) addresses: Vec<SocketAddr>,
    pub(super) summary: Summary,
    pub(super) config: Config,
    pub(super) supervisor: Supervisor,
    /// The accept loops, alone in their set so that they can be waited for apart from the rest.
    pub(super) server: JoinSet<()>,
    pub(super) readiness: Readiness,
    pub(super) engine: Option<Engine>,
    pub(super) storage: Storage,
    /// Generations that go on without their clients.
    pub(super) tasks: TaskTracker,
    /// Cancelled in this order.
    pub(super) stop_accepting: CancellationToken,
    pub(super) end_answers: CancellationToken,
    pub(super) flush: CancellationToken,
}

/// [`start_from`] a configuration that stays what it is.
///
/// # Errors
/// Why the process cannot start.
pub async fn start(config: Config, clock: Clock) -> Result<App, Error> {
    let same = config.clone();
    Box::pin(start_from(config, Arc::new(move || Ok(same.clone())), clock)).await
}

/// Builds everything and begins to serve. On an error nothing is left behind. `source` is asked when the configuration is to be read
/// anew.
///
/// # Errors
/// Why the process cannot start.
pub async fn start_from(config: Config, source: Source, clock: Clock) -> Result<App, Error> {
    let listeners = Listeners::bind(&config.server)?;
    let addresses = listeners.addresses();
    let metrics = Metrics::new(&config.metrics);
    let storage = Storage::open(&config.data_dir, &config.storage).await?;
    let keys = Keys::open(&config.auth, &storage, clock.clone(), metrics.clone(), listeners::exposed(&config.server)).await?;
    listeners::refuse_strangers(&config.server, &keys)?;
    listeners::warn_of_identities(&config.server, &keys);
    let Built { registry, fleet, engine } = backends::build(&config, &metrics).await?;
    registry.refresh().await;

    let first_key = keys.bootstrap().await?;
    let mut supervisor = Supervisor::new();
    let flush = CancellationToken::new();
    let ground = Ground { config: &config, storage: &storage, metrics: &metrics, clock: &clock, flush: &flush };
    let usage = keep_usage(&mut supervisor, &ground);
    let collection = collect(&mut supervisor, &ground);
    let ledger = Ledger { metrics: metrics.clone(), usage, collection: collection.clone(), clock: clock.clone() };
    let services = Services::build(&ground, registry.clone(), ledger, &mut supervisor).await?;
    services.gateway.look().await;
    let (keeping, until) = (keys.clone(), flush.clone());
    supervisor.spawn("keep the keys", async move {
        keeping.run(until).await;
        Ok::<_, std::convert::Infallible>(())
    });
    supervisor.spawn_forever("list models", list_models(registry.clone(), metrics.clone()));
    supervisor.spawn_forever("condense metrics", condense(metrics.clone()));
    let (sensors, stop_accepting) = (Arc::new(Sensors::new()), CancellationToken::new());
    let jobs = background::jobs((&config, addresses[0]), &storage, &sensors, &metrics, &clock)?;
    let (reloader, asked) = Reloader::new();
    let (started_with, current) = (config.clone(), config.clone());
    let reloading = Reloading { source, started_with, current, services: services.clone(), jobs: jobs.clone(), fleet, asked };
    supervisor.spawn_until_stopped("take over configurations", reloading.run());

    background::work_within(&config, &jobs, &services, &stop_accepting, &mut supervisor)?;
    let readiness = Readiness::default();
    let end_answers = CancellationToken::new();
    let state = api::State::new(api::Parts {
        config: config.api.clone(),
        gateway: services.gateway.clone(),
        limits: services.limits.clone(),
        collection,
        keys: keys.clone(),
        reloader,
        metrics: metrics.clone(),
        clock,
        sensors,
        jobs,
        readiness: readiness.clone(),
        tasks: services.tasks.clone(),
        ending: end_answers.clone(),
    });
    let server = listeners.serve(&api::router(state), &metrics, &stop_accepting);
    readiness.ready();
    let summary = Summary { first_key, keys_required: keys.required(), ..Summary::of(addresses[0], &registry) };
    let tasks = services.tasks;
    Ok(App { addresses, summary, config, supervisor, server, readiness, engine, storage, tasks, stop_accepting, end_answers, flush })
}

fn keep_usage(supervisor: &mut Supervisor, ground: &Ground<'_>) -> UsageLog {
    let Ground { config, storage, metrics, clock, flush } = *ground;
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

fn collect(supervisor: &mut Supervisor, ground: &Ground<'_>) -> Collection {
    let Ground { config, storage, metrics, clock, flush } = *ground;
    let (collection, keeper) = collection::collection(&config.collection, storage, metrics, clock);
    let until = flush.clone();
    supervisor.spawn("collect exchanges", async move {
        keeper.run(until).await;
        Ok::<_, std::convert::Infallible>(())
    });
    collection
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
        self.addresses[0]
    }

    /// Where it listens for the identities, in the order of the configuration.
    pub fn identity_addresses(&self) -> &[SocketAddr] {
        &self.addresses[1..]
    }

    /// What serves what, for people.
    pub fn summary(&self) -> &Summary {
        &self.summary
    }

    pub fn config(&self) -> &Config {
        &self.config
    }
}
