//! From rows of the tables to values, and back.

use serde::Serialize;
use sqlx::Row as _;
use sqlx::sqlite::SqliteRow;

use super::{Artifact, AttemptMade, Event, Job, Needs, Order, Standing, State, Step};
use crate::domain::generation::Priority;

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

pub(super) fn attempt(row: &SqliteRow) -> Result<AttemptMade, sqlx::Error> {
    Ok(AttemptMade {
        owner: row.try_get("owner")?,
        started_at_ms: row.try_get("started_at_ms")?,
        ended_at_ms: row.try_get("ended_at_ms")?,
        outcome: row.try_get("outcome")?,
    })
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
