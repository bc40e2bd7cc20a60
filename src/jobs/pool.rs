//! A worker: takes jobs as there is room for them, and sees to what nobody else does.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::admission::{Climate, Load, Pressure, choose};
use super::attempt::{self, Weather};
use super::machine;
use super::service::Jobs;
use super::sweep;
use crate::storage::Error;
use crate::storage::jobs::{Change, Job, PoolOrder};

/// Tells how busy live requests keep the machine now.
pub type Traffic = Arc<dyn Fn() -> Load + Send + Sync>;

/// Pause after the database has failed.
const TROUBLE: Duration = Duration::from_secs(2);

pub struct Pool {
    jobs: Jobs,
    /// What is started for each attempt.
    program: PathBuf,
    traffic: Traffic,
    owner: String,
    weather: watch::Sender<Weather>,
    pressure: Pressure,
    attempts: JoinSet<()>,
    swept_at_ms: Option<i64>,
}

impl Pool {
    #[must_use]
    pub fn new(jobs: Jobs, program: PathBuf, traffic: Traffic) -> Self {
        let owner = format!("{}-{}", std::process::id(), Uuid::new_v4().simple());
        let weather = watch::Sender::new(Weather::default());
        Self { jobs, program, traffic, owner, weather, pressure: Pressure::default(), attempts: JoinSet::new(), swept_at_ms: None }
    }

    /// Works until cancelled; then what runs is asked to stop at its next good place, and waits in the queue for another worker.
    pub async fn run(mut self, stopping: CancellationToken) {
        let interval = self.jobs.config().look_interval;
        while !stopping.is_cancelled() {
            let pause = match self.look().await {
                Ok(()) => interval,
                Err(error) => {
                    tracing::warn!(%error, "the worker cannot look for jobs");
                    TROUBLE
                }
            };
            tokio::select! {
                () = stopping.cancelled() => break,
                () = self.jobs.changed(pause) => {}
                Some(ended) = self.attempts.join_next() => report(ended),
            }
        }
        self.weather.send_modify(|weather| weather.stopping = true);
        while let Some(ended) = self.attempts.join_next().await {
            report(ended);
        }
    }

    async fn look(&mut self) -> Result<(), Error> {
        let (config, now_ms) = (self.jobs.config().clone(), self.jobs.0.clock.unix_ms());
        let order = self.jobs.0.table.pool_order().await?;
        let pressed = self.pressure.observe((self.traffic)(), config.pressure.waiting, config.pressure.calm, now_ms);
        self.weather.send_if_modified(|weather| {
            let next = Weather { order, pressed, ..*weather };
            std::mem::replace(weather, next) != next
        });
        sweep::jobs(&self.jobs).await?;
        let interval_ms = i64::try_from(config.retention.sweep_interval.as_millis()).unwrap_or(i64::MAX);
        if self.swept_at_ms.is_none_or(|at| now_ms.saturating_sub(at) >= interval_ms) {
            self.swept_at_ms = Some(now_ms);
            sweep::files(&self.jobs).await?;
        }
        while let Some(job) = self.take(Climate { order, yields: pressed.then_some(config.pressure.priority) }).await? {
            tracing::info!(job = job.order.id, kind = job.order.kind, attempt = job.standing.attempts, "a job starts");
            let (jobs, program, weather) = (self.jobs.clone(), self.program.clone(), self.weather.subscribe());
            self.attempts.spawn(attempt::run(jobs, job, program, weather));
        }
        Ok(())
    }

    /// The next job, leased to this worker.
    async fn take(&self, climate: Climate) -> Result<Option<Job>, Error> {
        let now_ms = self.jobs.0.clock.unix_ms();
        if climate.order != PoolOrder::Run || !self.jobs.0.table.anything_waits(now_ms).await? {
            return Ok(None);
        }
        let (capacity, lease) = (self.jobs.capacity(), self.jobs.config().lease);
        let choose = |waiting: &_| {
            let place = choose(waiting, &capacity, climate)?;
            let leased = machine::lease(&waiting.jobs.get(place)?.standing, &self.owner, now_ms, lease).ok()?;
            Some((place, Change::to(leased).telling("state", json!({"state": "leased"}))))
        };
        self.jobs.0.table.claim(now_ms, self.jobs.most_events(), choose).await
    }
}

fn report(ended: Result<(), tokio::task::JoinError>) {
    if let Err(error) = ended {
        tracing::error!(%error, "the work on a job failed in this process; its lease will run out");
    }
}
