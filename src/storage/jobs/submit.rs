//! Putting jobs into the queue, once for each idempotency key.

use sqlx::SqliteConnection;

use super::read::{json, rank, signed};
use super::{Job, JobTable, Order, Standing};
use crate::storage::Error;

/// A client's word for a submission, by which it is known again when it is sent a second time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Key {
    pub tenant: String,
    pub key: String,
    /// Of what was submitted.
    pub body_hash: String,
    pub created_at_ms: i64,
}

/// What became of a submission.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Submitted {
    New,
    /// It was made before, as the job (or the schedule) of this id.
    Before(String),
    /// The key was used for something else.
    OtherBody,
    /// As many jobs wait as may.
    Full,
    /// One of the jobs it is to come after is not there.
    Missing(String),
}

impl JobTable {
    /// Puts a job into the queue unless its key was used before. It has not been lost once this returns.
    pub async fn submit(&self, order: &Order, standing: &Standing, key: Option<&Key>, most_waiting: u64) -> Result<Submitted, Error> {
        const DOING: &str = "submitting a job";
        let failed = |error| self.storage.failed(DOING, error);
        let mut transaction = self.storage.write_durably(DOING).await?;
        if let Some(before) = remembered(&mut transaction, key, &order.id).await.map_err(failed)? {
            return Ok(before);
        }
        let waiting: i64 =
            sqlx::query_scalar("SELECT count(*) FROM jobs WHERE state = 'queued'").fetch_one(&mut *transaction).await.map_err(failed)?;
        if waiting >= signed(most_waiting) {
            return Ok(Submitted::Full);
        }
        if let Some(missing) = missing(&mut transaction, order).await.map_err(failed)? {
            return Ok(Submitted::Missing(missing));
        }
        insert(&mut transaction, order, standing).await.map_err(failed)?;
        transaction.commit().await.map_err(failed)?;
        Ok(Submitted::New)
    }
}

/// What the key was used for before; notes that it is used now where it was not.
pub(super) async fn remembered(
    connection: &mut SqliteConnection,
    key: Option<&Key>,
    makes: &str,
) -> Result<Option<Submitted>, sqlx::Error> {
    let Some(key) = key else { return Ok(None) };
    let before: Option<(String, String)> = sqlx::query_as("SELECT body_hash, made FROM job_keys WHERE tenant = ? AND key = ?")
        .bind(key.tenant.clone())
        .bind(key.key.clone())
        .fetch_optional(&mut *connection)
        .await?;
    if let Some((body_hash, made)) = before
        && exists(connection, &made).await?
    {
        return Ok(Some(if body_hash == key.body_hash { Submitted::Before(made) } else { Submitted::OtherBody }));
    }
    // What was made and is forgotten by now can be made again.
    sqlx::query("INSERT OR REPLACE INTO job_keys (tenant, key, body_hash, made, created_at_ms) VALUES (?, ?, ?, ?, ?)")
        .bind(key.tenant.clone())
        .bind(key.key.clone())
        .bind(key.body_hash.clone())
        .bind(makes.to_owned())
        .bind(key.created_at_ms)
        .execute(connection)
        .await?;
    Ok(None)
}

async fn exists(connection: &mut SqliteConnection, made: &str) -> Result<bool, sqlx::Error> {
    sqlx::query_scalar("SELECT EXISTS (SELECT 1 FROM jobs WHERE id = ?1) OR EXISTS (SELECT 1 FROM job_schedules WHERE id = ?1)")
        .bind(made.to_owned())
        .fetch_one(connection)
        .await
}

/// The first of the jobs it is to come after that its tenant does not have.
async fn missing(connection: &mut SqliteConnection, order: &Order) -> Result<Option<String>, sqlx::Error> {
    for needed in &order.after {
        let there: i64 = sqlx::query_scalar("SELECT count(*) FROM jobs WHERE id = ? AND tenant = ?")
            .bind(needed.clone())
            .bind(order.tenant.clone())
            .fetch_one(&mut *connection)
            .await?;
        if there == 0 {
            return Ok(Some(needed.clone()));
        }
    }
    Ok(None)
}

pub(super) async fn insert(connection: &mut SqliteConnection, order: &Order, standing: &Standing) -> Result<(), sqlx::Error> {
    sqlx::query(
        "INSERT INTO jobs (id, kind, name, tenant, priority, input, labels, steps, schedule, cpu_threads, gpus, memory_bytes, disk_bytes, \
         created_at_ms, state, epoch, owner, lease_until_ms, attempts, max_attempts, not_before_ms, cancel_requested, step, started_at_ms, events) \
         VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, 1)",
    )
    .bind(order.id.clone())
    .bind(order.kind.clone())
    .bind(order.name.clone())
    .bind(order.tenant.clone())
    .bind(rank(order.priority))
    .bind(json(&order.input))
    .bind(json(&order.labels))
    .bind(json(&order.steps))
    .bind(order.schedule.clone())
    .bind(order.needs.cpu_threads)
    .bind(order.needs.gpus)
    .bind(signed(order.needs.memory_bytes))
    .bind(signed(order.needs.disk_bytes))
    .bind(order.created_at_ms)
    .bind(standing.state.as_str())
    .bind(standing.epoch)
    .bind(standing.owner.clone())
    .bind(standing.lease_until_ms)
    .bind(standing.attempts)
    .bind(standing.max_attempts)
    .bind(standing.not_before_ms)
    .bind(standing.cancel_requested)
    .bind(standing.step)
    .bind(standing.started_at_ms)
    .execute(&mut *connection)
    .await?;
    sqlx::query("INSERT INTO job_events (job, number, at_ms, kind, data) VALUES (?, 0, ?, 'state', ?)")
        .bind(order.id.clone())
        .bind(order.created_at_ms)
        .bind(json(&serde_json::json!({"state": standing.state.as_str()})))
        .execute(&mut *connection)
        .await?;
    for needed in &order.after {
        sqlx::query("INSERT OR IGNORE INTO job_needs (job, needs) VALUES (?, ?)")
            .bind(order.id.clone())
            .bind(needed.clone())
            .execute(&mut *connection)
            .await?;
    }
    Ok(())
}

impl Job {
    /// A job as it is before anything happened to it.
    #[must_use]
    pub fn new(order: Order, standing: Standing) -> Self {
        Self { order, standing, events: 1 }
    }
}
