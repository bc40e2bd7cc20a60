//! What clients submit, looked at before it is accepted.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest as _, Sha256};

use super::error::Error;
use super::kind::{Fault, Ground, Plan, REFERENCE, Registry, references};
use super::worker::is_artifact_name;
use crate::domain::digest::Digest;
use crate::domain::generation::Priority;
use crate::storage::jobs::{Job, Missed, Order, Schedule};

/// Jobs that one may come after.
pub(super) const MAX_AFTER: usize = 100;

/// A job that somebody wants.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Submission {
    pub kind: String,
    pub input: Value,
    /// For people; empty: the kind's.
    #[serde(default)]
    pub name: String,
    #[serde(default)]
    pub priority: Priority,
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// Jobs that must have succeeded before it starts.
    #[serde(default)]
    pub after: Vec<String>,
    /// None: as configured.
    #[serde(default)]
    pub max_attempts: Option<u32>,
    /// Make it again and again, at these times.
    #[serde(default)]
    pub schedule: Option<Calendar>,
}

/// When a job is made again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Calendar {
    /// Minute, hour, day of the month, month, day of the week, in UTC.
    pub cron: String,
    #[serde(default)]
    pub missed: Missed,
}

/// What a submission became.
#[derive(Debug, Clone, PartialEq)]
pub enum Made {
    Job {
        job: Box<Job>,
        /// It was made by an earlier submission with the same key.
        before: bool,
    },
    Schedule {
        schedule: Box<Schedule>,
        before: bool,
    },
}

impl Submission {
    /// What the job is going to do and take.
    ///
    /// # Errors
    /// A submission that its kind does not take.
    pub fn plan(&self, kinds: &Registry, ground: &Ground) -> Result<Plan, Error> {
        let unknown = || Error::UnknownKind { kind: self.kind.clone(), known: kinds.names() };
        let kind = kinds.get(&self.kind).ok_or_else(unknown)?;
        if self.after.len() > MAX_AFTER {
            return Err(Error::Input { kind: self.kind.clone(), why: format!("a job comes after {MAX_AFTER} others at most") });
        }
        for (job, name) in references(&self.input) {
            if !self.after.contains(&job) || !is_artifact_name(&name) {
                return Err(Error::Reference(format!("{REFERENCE}{job}/{name}")));
            }
        }
        kind.plan(&self.input, ground).map_err(|fault| match fault {
            Fault::Path(path) => Error::Path(path),
            fault => Error::Input { kind: self.kind.clone(), why: fault.to_string() },
        })
    }

    #[must_use]
    pub fn order(self, id: String, tenant: String, plan: Plan, now_ms: i64) -> Order {
        let name = if self.name.is_empty() { self.kind.clone() } else { self.name };
        Order {
            id,
            kind: self.kind,
            name,
            tenant,
            priority: self.priority,
            input: self.input,
            labels: self.labels,
            steps: plan.steps,
            after: self.after,
            schedule: None,
            needs: plan.needs,
            created_at_ms: now_ms,
        }
    }

    /// By which a second submission of the same is known.
    #[must_use]
    pub fn hash(&self) -> String {
        Digest::new(Sha256::digest(serde_json::to_string(self).unwrap_or_default()).into()).hex()
    }
}
