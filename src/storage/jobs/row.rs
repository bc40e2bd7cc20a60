//! Jobs and what belongs to them, as they are stored.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

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

/// One time that a worker took a job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AttemptMade {
    pub owner: String,
    pub started_at_ms: i64,
    /// None: it runs.
    pub ended_at_ms: Option<i64>,
    /// In a word.
    pub outcome: Option<String>,
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
