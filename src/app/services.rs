//! The parts that decide about requests, built from a configuration, and kept in step with the next one.

use std::convert::Infallible;
use std::sync::Arc;

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::error::Error;
use super::supervisor::Supervisor;
use crate::cache::exact::Exact;
use crate::cache::prefix::Prefixes;
use crate::cache::semantic::Semantic;
use crate::cache::singleflight::Flights;
use crate::cache::warm_set::WarmSet;
use crate::config::Config;
use crate::domain::clock::Clock;
use crate::gateway::{Gateway, Kept, Ledger, Parts, Settings, Shares, TokenSizes};
use crate::limits::Limits;
use crate::models::{Normaliser, Registry};
use crate::routing::Router;
use crate::scheduler::Scheduler;
use crate::storage::Storage;
use crate::telemetry::metrics::Metrics;

/// What everything is built on.
pub struct Ground<'a> {
    pub config: &'a Config,
    pub storage: &'a Storage,
    pub metrics: &'a Metrics,
    pub clock: &'a Clock,
    /// Cancelled when all that is to be written must be written.
    pub flush: &'a CancellationToken,
}

/// The parts whose configuration can change while they run. Cheap to clone.
#[derive(Clone)]
pub struct Services {
    pub gateway: Gateway,
    pub limits: Limits,
    pub scheduler: Scheduler,
    pub router: Router,
    /// Generations that go on without their clients.
    pub tasks: TaskTracker,
}

impl Services {
    /// # Errors
    /// When the database cannot be read, or the fallback hierarchy makes no sense.
    pub async fn build(ground: &Ground<'_>, registry: Registry, ledger: Ledger, supervisor: &mut Supervisor) -> Result<Self, Error> {
        let Ground { config, metrics, clock, .. } = *ground;
        let limits = limits(ground, supervisor).await?;
        let exact = exact(ground, supervisor);
        let scheduler = Scheduler::new(config.queue.clone(), metrics.clone(), clock.clone());
        supervisor.spawn_forever("keep the queue moving", scheduler.clone().run());
        let router = Router::new(config.routing.clone(), metrics.clone(), clock.clone());
        let flights = Flights::new(config.cache.recording.clone(), clock.clone(), metrics.clone());
        let prefixes = Prefixes::new(config.cache.prefix.clone(), metrics.clone());
        let (kept, tasks) = (Kept::default(), TaskTracker::new());
        let parts = Parts {
            registry,
            scheduler: scheduler.clone(),
            router: router.clone(),
            limits: limits.clone(),
            exact,
            shares: Shares::new(flights),
            prefixes,
            semantic: Semantic::new(config.cache.semantic.clone(), metrics.clone()),
            warm: WarmSet::open(config.cache.warm.clone(), ground.storage, clock.clone()).await?,
            normaliser: Arc::new(Normaliser::new()),
            sizes: TokenSizes::default(),
            kept: kept.clone(),
            ledger,
            tasks: tasks.clone(),
        };
        let gateway = Gateway::new(settings(config)?, parts);
        supervisor.spawn_forever("look at the backends", gateway.clone().keep_up());
        supervisor.spawn_forever("tidy up", gateway.clone().tidy());
        supervisor.spawn_forever("keep prompts warm", gateway.clone().keep_warm());
        let settings = gateway.clone();
        supervisor.spawn_forever("forget old generations", kept.run(move || settings.config().kept));
        Ok(Self { gateway, limits, scheduler, router, tasks })
    }

    /// Puts another configuration in force, for what comes from now on; `settings` are those of it.
    pub fn reconfigure(&self, config: &Config, settings: Settings) {
        self.gateway.reconfigure(settings);
        self.limits.reconfigure(config.limits.clone());
        self.scheduler.reconfigure(config.queue.clone());
        self.router.reconfigure(config.routing.clone());
    }
}

/// # Errors
/// When the fallback hierarchy makes no sense.
pub fn settings(config: &Config) -> Result<Settings, Error> {
    Settings::new(config.generation.clone(), config.model.clone(), &config.routing).map_err(|wrong| Error::Routing {
        what: wrong.into_iter().map(|wrong| format!("routing.{} {}", wrong.place.join("."), wrong.what)).collect(),
    })
}

async fn limits(ground: &Ground<'_>, supervisor: &mut Supervisor) -> Result<Limits, Error> {
    let (limits, writer) = Limits::new(ground.config.limits.clone(), ground.storage, ground.metrics.clone(), ground.clock.clone()).await?;
    let until = ground.flush.clone();
    supervisor.spawn("write budgets", async move {
        writer.run(until).await;
        Ok::<_, Infallible>(())
    });
    Ok(limits)
}

fn exact(ground: &Ground<'_>, supervisor: &mut Supervisor) -> Exact {
    let (exact, keeper) = Exact::new(ground.config.cache.exact.clone(), ground.storage, ground.metrics.clone(), ground.clock.clone());
    let until = ground.flush.clone();
    supervisor.spawn("keep answers", async move {
        keeper.run(until).await;
        Ok::<_, Infallible>(())
    });
    exact
}
