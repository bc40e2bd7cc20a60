//! What is said about jobs.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;

use crate::jobs::{Artifact, AttemptMade, Job, Kind, Schedule};

/// A job.
#[derive(Debug, Serialize, ToSchema)]
pub struct JobView {
    pub id: String,
    pub kind: String,
    pub name: String,
    pub tenant: String,
    /// `queued`, `leased`, `running`, `succeeded`, `failed` or `cancelled`.
    pub state: &'static str,
    /// `batch`, `low`, `normal`, `high` or `urgent`.
    pub priority: &'static str,
    #[schema(value_type = Object)]
    pub input: Value,
    pub labels: BTreeMap<String, String>,
    /// The jobs that must have succeeded before it starts.
    pub after: Vec<String>,
    /// The schedule that made it.
    pub schedule: Option<String>,
    /// Names of its steps.
    pub steps: Vec<String>,
    /// How many of them have ended.
    pub steps_ended: u32,
    /// Of the step that runs: `step`, `done`, `total`, `unit`, `eta_ms`.
    #[schema(value_type = Option<Object>)]
    pub progress: Option<Value>,
    pub attempts: u32,
    pub max_attempts: u32,
    /// The newest attempts, oldest first, those before a retry too; only where one job is shown.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub history: Option<Vec<AttemptView>>,
    /// When it may start, at the earliest.
    pub not_before_ms: i64,
    /// Somebody wants it to end, and its worker was asked.
    pub cancel_requested: bool,
    #[schema(value_type = Option<Object>)]
    pub result: Option<Value>,
    /// Why the last attempt failed.
    pub error: Option<JobFault>,
    pub needs: JobNeeds,
    /// Milliseconds since 1970.
    pub created_at_ms: i64,
    pub started_at_ms: Option<i64>,
    pub finished_at_ms: Option<i64>,
}

/// One time that a worker took a job.
#[derive(Debug, Serialize, ToSchema)]
pub struct AttemptView {
    /// The worker.
    pub owner: String,
    pub started_at_ms: i64,
    /// None: it runs.
    pub ended_at_ms: Option<i64>,
    /// `succeeded`, `stopped`, `failed`, `out_of_memory`, `hung`, `crashed` or `worker_lost`.
    pub outcome: Option<String>,
}

/// Why an attempt failed.
#[derive(Debug, Serialize, ToSchema)]
pub struct JobFault {
    /// `failed`, `input`, `out_of_memory`, `hung`, `crashed`, `worker_lost`, `dependency`, …
    pub kind: String,
    pub message: String,
}

/// What a job takes while it runs.
#[derive(Debug, Serialize, ToSchema)]
pub struct JobNeeds {
    pub cpu_threads: u32,
    pub gpus: u32,
    pub memory_bytes: u64,
    pub disk_bytes: u64,
}

#[derive(Debug, Serialize, ToSchema)]
pub struct JobList {
    /// The newest first.
    pub jobs: Vec<JobView>,
    /// What `cursor` takes for the next page; absent on the last one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
}

/// A job that is to be done.
#[derive(ToSchema)]
#[expect(dead_code, reason = "only its schema is used")]
pub struct NewJob {
    /// One of GET /jobs/kinds.
    pub kind: String,
    /// What its kind takes.
    #[schema(value_type = Object)]
    pub input: Value,
    /// For people; without it the kind's.
    pub name: Option<String>,
    /// `batch`, `low`, `normal`, `high` or `urgent`; a key may be held to less.
    pub priority: Option<String>,
    /// Ids of jobs that must have succeeded before it starts. `artifact:JOB/NAME` in its input stands for what one of them made.
    pub after: Option<Vec<String>>,
    pub labels: Option<BTreeMap<String, String>>,
    /// From 1 to 100.
    pub max_attempts: Option<u32>,
    /// Make it again and again.
    pub schedule: Option<NewSchedule>,
}

#[derive(ToSchema)]
#[expect(dead_code, reason = "only its schema is used")]
pub struct NewSchedule {
    /// Minute, hour, day of the month, month, day of the week, in UTC.
    pub cron: String,
    /// What becomes of runs for which no worker was there: `skip`, `once` (one job stands for all; the default) or `all`.
    pub missed: Option<String>,
}

/// Jobs that are made again and again.
#[derive(Debug, Serialize, ToSchema)]
pub struct ScheduleView {
    pub id: String,
    pub name: String,
    pub tenant: String,
    pub cron: String,
    pub missed: &'static str,
    /// What each of its jobs is made from.
    #[schema(value_type = Object)]
    pub job: Value,
    /// None: never again.
    pub next_at_ms: Option<i64>,
    pub last_at_ms: Option<i64>,
    pub created_at_ms: i64,
}

#[derive(Debug, Serialize, ToSchema)]
pub struct ScheduleList {
    pub schedules: Vec<ScheduleView>,
}

#[derive(Debug, Serialize, ToSchema)]
pub struct KindView {
    pub kind: String,
    pub about: String,
    pub version: u32,
    /// JSON Schema of its input.
    #[schema(value_type = Object)]
    pub input: Value,
}

#[derive(Debug, Serialize, ToSchema)]
pub struct KindList {
    pub kinds: Vec<KindView>,
}

/// Something a job made.
#[derive(Debug, Serialize, ToSchema)]
pub struct ArtifactView {
    pub name: String,
    pub size_bytes: u64,
    pub sha256: String,
    /// Where it is downloaded.
    pub url: String,
    /// Kind, input, hashes of what it was made from, options, version of the code.
    #[schema(value_type = Object)]
    pub lineage: Value,
    pub created_at_ms: i64,
}

#[derive(Debug, Serialize, ToSchema)]
pub struct ArtifactList {
    pub artifacts: Vec<ArtifactView>,
}

/// What is wanted of the workers, and how many jobs stand how.
#[derive(Debug, Serialize, ToSchema)]
pub struct PoolView {
    /// `run`, `pause` or `drain`.
    pub order: &'static str,
    /// How many jobs there are, by state.
    pub jobs: BTreeMap<String, u64>,
    /// What all jobs together may take now.
    pub capacity: JobNeeds,
}

#[derive(ToSchema)]
#[expect(dead_code, reason = "only its schema is used")]
pub struct PoolWish {
    /// `run`, `pause` (start nothing new) or `drain` (what runs stops at its next good place, and waits in the queue).
    pub order: String,
}

impl From<Job> for JobView {
    fn from(job: Job) -> Self {
        let (order, now) = (job.order, job.standing);
        let needs = order.needs;
        Self {
            id: order.id,
            kind: order.kind,
            name: order.name,
            tenant: order.tenant,
            state: now.state.as_str(),
            priority: order.priority.as_str(),
            input: order.input,
            labels: order.labels,
            after: order.after,
            schedule: order.schedule,
            steps: order.steps,
            steps_ended: now.step,
            progress: now.progress,
            attempts: now.attempts,
            max_attempts: now.max_attempts,
            history: None,
            not_before_ms: now.not_before_ms,
            cancel_requested: now.cancel_requested,
            result: now.result,
            error: now.error.map(|fault| JobFault { kind: fault.kind, message: fault.message }),
            needs: JobNeeds {
                cpu_threads: needs.cpu_threads,
                gpus: needs.gpus,
                memory_bytes: needs.memory_bytes,
                disk_bytes: needs.disk_bytes,
            },
            created_at_ms: order.created_at_ms,
            started_at_ms: now.started_at_ms,
            finished_at_ms: now.finished_at_ms,
        }
    }
}

impl From<AttemptMade> for AttemptView {
    fn from(made: AttemptMade) -> Self {
        Self { owner: made.owner, started_at_ms: made.started_at_ms, ended_at_ms: made.ended_at_ms, outcome: made.outcome }
    }
}

impl From<Schedule> for ScheduleView {
    fn from(schedule: Schedule) -> Self {
        Self {
            id: schedule.id,
            name: schedule.name,
            tenant: schedule.tenant,
            cron: schedule.cron,
            missed: schedule.missed.as_str(),
            job: schedule.job,
            next_at_ms: schedule.next_at_ms,
            last_at_ms: schedule.last_at_ms,
            created_at_ms: schedule.created_at_ms,
        }
    }
}

impl From<&dyn Kind> for KindView {
    fn from(kind: &dyn Kind) -> Self {
        Self { kind: kind.name().to_owned(), about: kind.about().to_owned(), version: kind.version(), input: kind.schema() }
    }
}

impl ArtifactView {
    pub fn new(job: &str, artifact: Artifact) -> Self {
        Self {
            url: format!("/jobs/{job}/artifacts/{}", artifact.name),
            name: artifact.name,
            size_bytes: artifact.size_bytes,
            sha256: artifact.sha256,
            lineage: artifact.lineage,
            created_at_ms: artifact.created_at_ms,
        }
    }
}
