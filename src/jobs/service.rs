//! What clients and operators can do with jobs.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::sync::Notify;
use uuid::Uuid;

use super::admission::{Capacity, fits};
use super::config::Config;
use super::error::Error;
use super::files::Folders;
use super::kind::{Ground, Plan, REFERENCE, Registry};
use super::machine::{self, Wrong};
use super::make::Server;
use super::publish::{library, versions};
use super::roots::Roots;
use super::submission::{MAX_AFTER, Made, Submission};
use super::upload;
use crate::backends::ollama;
use crate::domain::clock::Clock;
use crate::storage::Storage;
use crate::storage::collection::CollectionTable;
use crate::storage::jobs::{Artifact, AttemptMade, Change, Event, Job, JobTable, Key, Page, Pool, PoolOrder, Standing, Submitted};
use crate::telemetry::metrics::Metrics;

/// Attempts that are shown of a job.
const ATTEMPTS_SHOWN: i64 = 50;

/// What the machine has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Machine {
    pub cpu_threads: u32,
    pub gpus: u32,
    pub memory_bytes: u64,
}

/// Whose jobs are seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope<'a> {
    All,
    Tenant(&'a str),
}

/// The jobs. Cheap to clone.
#[derive(Clone)]
pub struct Jobs(pub(super) Arc<Inner>);

pub struct Inner {
    pub config: Config,
    pub kinds: Registry,
    pub ground: ArcSwap<Ground>,
    pub folders: Folders,
    pub table: JobTable,
    pub collection: CollectionTable,
    pub clock: Clock,
    pub metrics: Metrics,
    machine: Machine,
    /// Something has changed that a worker of this process may want to look at.
    pub nudge: Notify,
    /// Something was written down that those who follow a job may want to see.
    pub told: Notify,
}

impl<'a> Scope<'a> {
    #[must_use]
    pub fn tenant(self) -> Option<&'a str> {
        match self {
            Self::All => None,
            Self::Tenant(tenant) => Some(tenant),
        }
    }

    fn sees(self, tenant: &str) -> bool {
        self.tenant().is_none_or(|own| own == tenant)
    }
}

/// What is configured, or else what the machine has.
fn or(configured: u32, found: u32) -> u32 {
    if configured == 0 { found } else { configured }
}

impl Jobs {
    /// # Errors
    /// When the folders of jobs cannot be made.
    pub fn new(
        config: Config,
        servers: Vec<ollama::Config>,
        storage: &Storage,
        machine: Machine,
        metrics: Metrics,
        clock: Clock,
    ) -> Result<Self, Error> {
        let data_dir = storage.path().parent().map(std::path::Path::to_owned).unwrap_or_default();
        let data_dir = std::path::absolute(&data_dir).unwrap_or(data_dir);
        let folders = Folders::new(&data_dir);
        folders.make().map_err(Error::io(format!("`{}` cannot be made", folders.root().display())))?;
        let roots = if config.roots.is_empty() { ["files", "models"].map(|name| data_dir.join(name)).into() } else { config.roots.clone() };
        for root in roots.iter().filter(|_| config.roots.is_empty()) {
            std::fs::create_dir_all(root).map_err(Error::io(format!("`{}` cannot be made", root.display())))?;
        }
        let ground = Ground {
            roots: Roots::new(roots),
            cpu_threads: or(config.resources.cpu_threads, machine.cpu_threads),
            gpus: or(config.resources.gpus, machine.gpus),
            unload: config.resources.unload_ollama,
            servers: servers.into_iter().map(Server).collect(),
            publish: config.publish.clone(),
            hub: config.hub.clone(),
            teacher: config.teacher.as_ref().clone(),
            library: data_dir.join(library::FOLDER),
            versions: data_dir.join(versions::FOLDER),
            installed: config.ollama_models.clone(),
            sizes: BTreeMap::new(),
        };
        let (kinds, ground) = (Registry::standard(config.trial), ArcSwap::from_pointee(ground));
        let (table, collection) = (storage.jobs(), storage.collection());
        Ok(Self(Arc::new(Inner {
            config,
            kinds,
            ground,
            folders,
            table,
            collection,
            clock,
            metrics,
            machine,
            nudge: Notify::new(),
            told: Notify::new(),
        })))
    }

    /// What was published under each name, and is still kept.
    ///
    /// # Errors
    /// A folder that cannot be read.
    pub async fn versions(&self) -> Result<Vec<versions::History>, Error> {
        let folder = self.ground().versions.clone();
        let read = tokio::task::spawn_blocking(move || versions::all(&folder)).await;
        let read = read.map_err(std::io::Error::other).and_then(|read| read.map_err(std::io::Error::other));
        read.map_err(Error::io("the versions cannot be read"))
    }

    /// What plans and attempts may look at and use, as it is now.
    pub(super) fn ground(&self) -> Arc<Ground> {
        self.0.ground.load_full()
    }

    /// Where the gateway is that these jobs belong to: teachers are asked there, unless the configuration names another one.
    pub fn set_gateway(&self, url: String) {
        let mut ground = self.ground().as_ref().clone();
        if self.0.config.teacher.url.is_empty() {
            ground.teacher.url = url;
        }
        self.0.ground.store(Arc::new(ground));
    }

    /// Publishes to other servers from now on.
    pub fn set_servers(&self, servers: Vec<ollama::Config>) {
        let servers = servers.into_iter().map(Server).collect();
        self.0.ground.store(Arc::new(Ground { servers, ..self.ground().as_ref().clone() }));
    }

    #[must_use]
    pub fn kinds(&self) -> &Registry {
        &self.0.kinds
    }

    #[must_use]
    pub fn config(&self) -> &Config {
        &self.0.config
    }

    /// Accepts a job, or a schedule of jobs. It is not lost once this returns. With a key, a second submission is the first one again.
    ///
    /// # Errors
    /// Why it is not accepted.
    pub async fn submit(&self, tenant: &str, submission: Submission, key: Option<&str>) -> Result<Made, Error> {
        let now_ms = self.0.clock.unix_ms();
        let key =
            key.map(|key| Key { tenant: tenant.to_owned(), key: key.to_owned(), body_hash: submission.hash(), created_at_ms: now_ms });
        let plan = self.plan(tenant, &submission).await?;
        fits(&plan.needs, &self.capacity()).map_err(Error::TooLarge)?;
        let made = match submission.schedule.clone() {
            Some(calendar) => self.add_schedule(tenant, submission, &calendar, key.as_ref()).await,
            None => self.add_job(tenant, submission, plan, key.as_ref()).await,
        };
        self.0.nudge.notify_one();
        made
    }

    /// Looks at the disk, so not on a thread that others wait for.
    pub(super) async fn plan(&self, tenant: &str, submission: &Submission) -> Result<Plan, Error> {
        let ground = Ground { sizes: self.sizes(tenant, &submission.after).await?, ..self.ground().as_ref().clone() };
        let (jobs, submission) = (self.clone(), submission.clone());
        let planned = tokio::task::spawn_blocking(move || submission.plan(&jobs.0.kinds, &ground)).await;
        planned.unwrap_or_else(|panic| std::panic::resume_unwind(panic.into_panic()))
    }

    /// What jobs of this tenant have made by now, by what inputs call it.
    async fn sizes(&self, tenant: &str, jobs: &[String]) -> Result<BTreeMap<String, u64>, Error> {
        let mut sizes = BTreeMap::new();
        for id in jobs.iter().take(MAX_AFTER) {
            if self.0.table.get(id).await?.is_none_or(|job| job.order.tenant != tenant) {
                continue;
            }
            let called = |artifact: Artifact| (format!("{REFERENCE}{id}/{}", artifact.name), artifact.size_bytes);
            sizes.extend(self.0.table.artifacts(id).await?.into_iter().map(called));
        }
        Ok(sizes)
    }

    async fn add_job(&self, tenant: &str, submission: Submission, plan: Plan, key: Option<&Key>) -> Result<Made, Error> {
        let now_ms = self.0.clock.unix_ms();
        let standing = machine::submitted(submission.max_attempts.unwrap_or(self.0.config.max_attempts), now_ms);
        let order = submission.order(Uuid::now_v7().to_string(), tenant.to_owned(), plan, now_ms);
        let most = self.0.config.max_queued;
        match self.0.table.submit(&order, &standing, key, most).await? {
            Submitted::New => {
                self.0.metrics.job_submitted();
                Ok(Made::Job { job: Box::new(Job::new(order, standing)), before: false })
            }
            Submitted::Before(id) => Ok(Made::Job { job: Box::new(self.get(&id, Scope::Tenant(tenant)).await?), before: true }),
            Submitted::OtherBody => Err(Error::OtherBody),
            Submitted::Full => Err(Error::TooMany { most }),
            Submitted::Missing(id) => Err(Error::AfterNotFound(id)),
        }
    }

    /// What jobs may take, as far as is known now.
    #[must_use]
    pub fn capacity(&self) -> Capacity {
        let (resources, machine) = (&self.0.config.resources, self.0.machine);
        let memory_bytes = if resources.memory_bytes == 0 { machine.memory_bytes / 4 * 3 } else { resources.memory_bytes };
        let free_bytes = self.0.folders.free_bytes().unwrap_or(u64::MAX);
        Capacity {
            cpu_threads: or(resources.cpu_threads, machine.cpu_threads),
            gpus: or(resources.gpus, machine.gpus),
            memory_bytes,
            disk_bytes: free_bytes.saturating_sub(resources.disk_reserve_bytes),
        }
    }

    /// # Errors
    /// When there is none that may be seen.
    pub async fn get(&self, id: &str, scope: Scope<'_>) -> Result<Job, Error> {
        let job = self.0.table.get(id).await?;
        job.filter(|job| scope.sees(&job.order.tenant)).ok_or_else(|| Error::NotFound(id.to_owned()))
    }

    /// The newest first.
    pub async fn list(&self, page: &Page) -> Result<Vec<Job>, Error> {
        Ok(self.0.table.list(page).await?)
    }

    /// Ends a job: at once where nobody works on it, else its worker is asked to stop.
    ///
    /// # Errors
    /// When it has ended.
    pub async fn cancel(&self, id: &str, scope: Scope<'_>) -> Result<Job, Error> {
        let now_ms = self.0.clock.unix_ms();
        self.change(id, scope, |job| {
            let next = machine::cancel(&job.standing, now_ms)?;
            let told = if next.state == job.standing.state { "cancelling" } else { next.state.as_str() };
            Ok(Change::to(next).telling("state", serde_json::json!({"state": told})))
        })
        .await
    }

    /// Tries a job again that failed or was cancelled.
    ///
    /// # Errors
    /// When it did neither.
    pub async fn retry(&self, id: &str, scope: Scope<'_>) -> Result<Job, Error> {
        if self.get(id, scope).await?.order.kind == upload::KIND {
            return Err(Error::UploadAgain);
        }
        let now_ms = self.0.clock.unix_ms();
        self.change(id, scope, |job| {
            let next = machine::retry(&job.standing, now_ms)?;
            Ok(Change::to(next).telling("state", serde_json::json!({"state": "queued", "why": "retry"})))
        })
        .await
    }

    async fn change(&self, id: &str, scope: Scope<'_>, decide: impl FnOnce(&Job) -> Result<Change, Wrong>) -> Result<Job, Error> {
        self.get(id, scope).await?;
        let changed = self.apply(id, true, decide).await?;
        self.0.nudge.notify_one();
        Ok(changed)
    }

    /// Changes a job, whosever it is, and has those look who follow it. `lasting`: the change must survive a power cut.
    pub(super) async fn apply(&self, id: &str, lasting: bool, decide: impl FnOnce(&Job) -> Result<Change, Wrong>) -> Result<Job, Error> {
        let changed = self.0.table.change(id, lasting, self.most_events(), self.0.clock.unix_ms(), decide).await?;
        let changed = changed.ok_or_else(|| Error::NotFound(id.to_owned()))??;
        self.0.told.notify_waiters();
        Ok(changed)
    }

    pub(super) fn most_events(&self) -> i64 {
        i64::from(self.0.config.max_events)
    }

    /// Events from a number on; at most so many.
    pub async fn events(&self, id: &str, from: i64, most: i64) -> Result<Vec<Event>, Error> {
        Ok(self.0.table.events(id, from, most).await?)
    }

    /// The newest attempts at a job, oldest first.
    pub async fn attempts(&self, id: &str) -> Result<Vec<AttemptMade>, Error> {
        Ok(self.0.table.attempts(id, ATTEMPTS_SHOWN).await?)
    }

    pub async fn artifacts(&self, id: &str) -> Result<Vec<Artifact>, Error> {
        Ok(self.0.table.artifacts(id).await?)
    }

    /// An artifact, and where its file is.
    ///
    /// # Errors
    /// When there is none of this name.
    pub async fn artifact(&self, id: &str, name: &str) -> Result<(Artifact, PathBuf), Error> {
        let found = self.0.table.artifacts(id).await?.into_iter().find(|artifact| artifact.name == name);
        let artifact = found.ok_or_else(|| Error::ArtifactNotFound(name.to_owned()))?;
        let path = self.0.folders.artifacts().join(&artifact.path);
        Ok((artifact, path))
    }

    /// How many jobs stand how, and what is wanted of the workers.
    pub async fn pool(&self) -> Result<Pool, Error> {
        Ok(self.0.table.pool().await?)
    }

    /// Tells all workers on this database what is wanted of them.
    pub async fn order_pool(&self, order: PoolOrder) -> Result<(), Error> {
        self.0.table.order_pool(order).await?;
        self.0.nudge.notify_one();
        Ok(())
    }

    /// Waits until there may be something for a worker to do; no longer than so long.
    pub(super) async fn changed(&self, most: Duration) {
        let _ = tokio::time::timeout(most, self.0.nudge.notified()).await;
    }

    /// Waits until there may be events that were not seen yet. Those that other processes write are seen a little later.
    pub async fn told(&self) {
        let _ = tokio::time::timeout(self.0.config.look_interval, self.0.told.notified()).await;
    }

    /// The pause before the next attempt.
    pub(super) fn pause(&self, standing: &Standing) -> Duration {
        let config = &self.0.config;
        machine::pause(standing.attempts, config.retry_after, config.max_retry_after, dice())
    }
}

/// From 0 to 1.
fn dice() -> f64 {
    let (high, _) = Uuid::new_v4().as_u64_pair();
    f64::from(u32::try_from(high >> 32).unwrap_or_default()) / f64::from(u32::MAX)
}
