//! Background jobs: the service, and the worker that runs within `serve` or as a process of its own.

use std::convert::Infallible;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use super::error::Error;
use super::services::Services;
use super::shutdown::{End, Signals};
use super::supervisor::Supervisor;
use crate::config::{self, Config};
use crate::domain::clock::Clock;
use crate::jobs::{Jobs, Load, Machine, Pool, Traffic};
use crate::monitor::Sensors;
use crate::storage::Storage;
use crate::telemetry::metrics::Metrics;

/// # Errors
/// When the folders of jobs cannot be made.
pub fn jobs(
    (config, address): (&Config, SocketAddr),
    storage: &Storage,
    sensors: &Sensors,
    metrics: &Metrics,
    clock: &Clock,
) -> Result<Jobs, Error> {
    let jobs = Jobs::new(config.jobs.clone(), config.ollama.clone(), storage, machine(sensors, config), metrics.clone(), clock.clone())?;
    jobs.set_gateway(format!("http://{}", reached_here(address)));
    Ok(jobs)
}

/// An address that stands for all of the machine's is none that can be connected to everywhere.
fn reached_here(mut address: SocketAddr) -> SocketAddr {
    if address.ip().is_unspecified() {
        address.set_ip(if address.is_ipv4() { Ipv4Addr::LOCALHOST.into() } else { Ipv6Addr::LOCALHOST.into() });
    }
    address
}

/// Begins to work on jobs, where that is wanted, until `stopping`.
///
/// # Errors
/// When this program cannot be found, which is started for each attempt.
pub fn work_within(
    config: &Config,
    jobs: &Jobs,
    services: &Services,
    stopping: &CancellationToken,
    supervisor: &mut Supervisor,
) -> Result<(), Error> {
    if !config.jobs.workers {
        return Ok(());
    }
    let scheduler = services.scheduler.clone();
    let traffic: Traffic = Arc::new(move || Load { waiting: scheduler.waiting() as u64 });
    let (pool, until) = (Pool::new(jobs.clone(), program(config)?, traffic), stopping.clone());
    supervisor.spawn("work on jobs", async move {
        pool.run(until).await;
        Ok::<_, Infallible>(())
    });
    Ok(())
}

/// Works on the jobs of a data folder until a signal comes, beside the service that may run on it.
///
/// # Errors
/// Why it cannot.
pub async fn work(config: Config, clock: Clock) -> Result<End, Error> {
    let mut signals = Signals::listen()?;
    let metrics = Metrics::new(&config.metrics);
    let storage = Storage::join(&config.data_dir, &config.storage).await?;
    let jobs = jobs((&config, config.server.listen), &storage, &Sensors::new(), &metrics, &clock)?;
    let pool = Pool::new(jobs, program(&config)?, Arc::new(Load::default));
    let stopping = CancellationToken::new();
    tracing::info!(data_dir = %config.data_dir.display(), "working on jobs");
    let mut working = Box::pin(pool.run(stopping.clone()));
    tokio::select! {
        () = &mut working => {}
        () = signals.next() => stopping.cancel(),
    }
    let end = tokio::select! {
        () = working => End::InOrder,
        () = signals.next() => End::AtOnce,
    };
    storage.close().await;
    Ok(end)
}

fn program(config: &Config) -> Result<PathBuf, Error> {
    if config.jobs.program.as_os_str().is_empty() { config::program().map_err(Error::Program) } else { Ok(config.jobs.program.clone()) }
}

fn machine(sensors: &Sensors, config: &Config) -> Machine {
    let found = sensors.snapshot(&config.data_dir);
    Machine {
        cpu_threads: u32::try_from(found.cpu.usable).unwrap_or(u32::MAX),
        gpus: u32::try_from(found.accelerators.found.len()).unwrap_or(u32::MAX),
        memory_bytes: found.memory.map_or(u64::MAX, |memory| memory.total_bytes),
    }
}
