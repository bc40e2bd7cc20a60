//! Jobs and what belongs to them, as they are stored.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use sqlx::Row as _;
use sqlx::sqlite::SqliteRow;

use crate::domain::generation::Priority;

/// Where a job stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// Waits for its turn, for other jobs, or for the end of a pause after a failure.
    Queued,
    /// A worker has taken it.
    Leased,
    /// A worker works on its steps.
    Running,
    Succeeded,
    Failed,
    Cancelled,
}

impl State {
    pub const ALL: [Self; 6] = [Self::Queued, Self::Leased, Self::Running, Self::Succeeded, Self::Failed, Self::Cancelled];

    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::Leased => "leased",
            Self::Running => "running",
            Self::Succeeded => "succeeded",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
        }
    }

    /// Whether nothing more happens by itself.
    #[must_use]
    pub fn is_end(self) -> bool {
        matches!(self, Self::Succeeded | Self::Failed | Self::Cancelled)
    }

    /// Whether a worker has it.
    #[must_use]
    pub fn is_active(self) -> bool {
        matches!(self, Self::Leased | Self::Running)
    }
}

/// What a job takes while it runs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Needs {
    pub cpu_threads: u32,
    pub gpus: u32,
    /// At its peak.
    pub memory_bytes: u64,
    /// What it writes: its output, and what it needs on the way.
    pub disk_bytes: u64,
}

impl Needs {
    /// Both at the same time.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self {
            cpu_threads: self.cpu_threads.saturating_add(other.cpu_threads),
            gpus: self.gpus.saturating_add(other.gpus),
            memory_bytes: self.memory_bytes.saturating_add(other.memory_bytes),
            disk_bytes: self.disk_bytes.saturating_add(other.disk_bytes),
        }
    }
}

/// Why an attempt, and with its last attempt a job, has failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fault {
    /// A word from a closed set.
    pub kind: String,
    pub message: String,
}

/// The part of a job that changes. Whoever changes it names the state and the epoch that were read.
#[derive(Debug, Clone, PartialEq)]
pub struct Standing {
    pub state: State,
    /// Grows each time the right to write is given or taken; a worker whose epoch is an older one has lost it.
    pub epoch: i64,
    pub owner: Option<String>,
    pub lease_until_ms: Option<i64>,
    /// Attempts that were begun.
    pub attempts: u32,
    pub max_attempts: u32,
    pub not_before_ms: i64,
    pub cancel_requested: bool,
    /// How many steps have ended.
    pub step: u32,
    pub progress: Option<Value>,
    pub result: Option<Value>,
    pub error: Option<Fault>,
    pub started_at_ms: Option<i64>,
    pub finished_at_ms: Option<i64>,
}

/// The part of a job that stays.
#[derive(Debug, Clone, PartialEq)]
pub struct Order {
    pub id: String,
    pub kind: String,
    pub name: String,
    pub tenant: String,
    pub priority: Priority,
    pub input: Value,
    pub labels: BTreeMap<String, String>,
    /// Names of its steps.
    pub steps: Vec<String>,
    /// The jobs that must have succeeded before it starts.
    pub after: Vec<String>,
    pub schedule: Option<String>,
    pub needs: Needs,
    pub created_at_ms: i64,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Job {
    pub order: Order,
    pub standing: Standing,
    /// How many events it has had.
    pub events: i64,
}

/// Something that happened to a job.
#[derive(Debug, Clone, PartialEq)]
pub struct Event {
    /// From 0, without gaps.
    pub number: i64,
    pub at_ms: i64,
    pub kind: String,
    pub data: Value,
}

/// A step that has ended.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Step {
    pub number: u32,
    /// Of all that went into it.
    pub input_hash: String,
    pub output: Value,
}

/// Something a job made.
#[derive(Debug, Clone, PartialEq)]
pub struct Artifact {
    pub name: String,
    /// Below the folder of artifacts.
    pub path: String,
    pub size_bytes: u64,
    pub sha256: String,
    /// Inputs, options, version of the code.
    pub lineage: Value,
    pub created_at_ms: i64,
}

pub(super) const COLUMNS: &str = "id, kind, name, tenant, priority, input, labels, steps, schedule, cpu_threads, gpus, memory_bytes, \
    disk_bytes, created_at_ms, state, epoch, owner, lease_until_ms, attempts, max_attempts, not_before_ms, cancel_requested, step, \
    progress, result, error, started_at_ms, finished_at_ms, events, \
    (SELECT json_group_array(needs) FROM job_needs WHERE job_needs.job = jobs.id) AS after";

pub(super) fn job(row: &SqliteRow) -> Result<Job, sqlx::Error> {
    let order = Order {
        id: row.try_get("id")?,
        kind: row.try_get("kind")?,
        name: row.try_get("name")?,
        tenant: row.try_get("tenant")?,
        priority: priority(row.try_get("priority")?),
        input: parsed(row.try_get("input")?)?,
        labels: parsed(row.try_get("labels")?)?,
        steps: parsed(row.try_get("steps")?)?,
        after: parsed(row.try_get("after")?)?,
        schedule: row.try_get("schedule")?,
        needs: Needs {
            cpu_threads: small(row.try_get("cpu_threads")?),
            gpus: small(row.try_get("gpus")?),
            memory_bytes: unsigned(row.try_get("memory_bytes")?),
            disk_bytes: unsigned(row.try_get("disk_bytes")?),
        },
        created_at_ms: row.try_get("created_at_ms")?,
    };
    Ok(Job { order, standing: standing(row)?, events: row.try_get("events")? })
}

fn standing(row: &SqliteRow) -> Result<Standing, sqlx::Error> {
    let optional = |column: &str| row.try_get::<Option<&str>, _>(column);
    Ok(Standing {
        state: state(row.try_get("state")?)?,
        epoch: row.try_get("epoch")?,
        owner: row.try_get("owner")?,
        lease_until_ms: row.try_get("lease_until_ms")?,
        attempts: small(row.try_get("attempts")?),
        max_attempts: small(row.try_get("max_attempts")?),
        not_before_ms: row.try_get("not_before_ms")?,
        cancel_requested: row.try_get("cancel_requested")?,
        step: small(row.try_get("step")?),
        progress: optional("progress")?.map(parsed).transpose()?,
        result: optional("result")?.map(parsed).transpose()?,
        error: optional("error")?.map(parsed).transpose()?,
        started_at_ms: row.try_get("started_at_ms")?,
        finished_at_ms: row.try_get("finished_at_ms")?,
    })
}

pub(super) fn event(row: &SqliteRow) -> Result<Event, sqlx::Error> {
    Ok(Event {
        number: row.try_get("number")?,
        at_ms: row.try_get("at_ms")?,
        kind: row.try_get("kind")?,
        data: parsed(row.try_get("data")?)?,
    })
}

pub(super) fn step(row: &SqliteRow) -> Result<Step, sqlx::Error> {
    Ok(Step { number: small(row.try_get("number")?), input_hash: row.try_get("input_hash")?, output: parsed(row.try_get("output")?)? })
}

pub(super) fn artifact(row: &SqliteRow) -> Result<Artifact, sqlx::Error> {
    Ok(Artifact {
        name: row.try_get("name")?,
        path: row.try_get("path")?,
        size_bytes: unsigned(row.try_get("size_bytes")?),
        sha256: row.try_get("sha256")?,
        lineage: parsed(row.try_get("lineage")?)?,
        created_at_ms: row.try_get("created_at_ms")?,
    })
}

/// Plain data with text for keys always has a JSON form.
pub(super) fn json(value: &impl Serialize) -> String {
    serde_json::to_string(value).unwrap_or_default()
}

pub(super) fn parsed<T: serde::de::DeserializeOwned>(text: &str) -> Result<T, sqlx::Error> {
    serde_json::from_str(text).map_err(|error| sqlx::Error::Decode(Box::new(error)))
}

pub(super) fn rank(priority: Priority) -> i64 {
    Priority::ALL.iter().position(|one| *one == priority).and_then(|rank| i64::try_from(rank).ok()).unwrap_or_default()
}

fn priority(rank: i64) -> Priority {
    usize::try_from(rank).ok().and_then(|rank| Priority::ALL.get(rank).copied()).unwrap_or_default()
}

fn state(word: &str) -> Result<State, sqlx::Error> {
    let known = State::ALL.into_iter().find(|state| state.as_str() == word);
    known.ok_or_else(|| sqlx::Error::Decode(format!("`{word}` is no state of a job").into()))
}

/// SQLite's numbers have a sign; what is stored here never has one.
pub(super) fn signed(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

pub(super) fn unsigned(value: i64) -> u64 {
    u64::try_from(value).unwrap_or_default()
}

fn small(value: i64) -> u32 {
    u32::try_from(value).unwrap_or_default()
}
