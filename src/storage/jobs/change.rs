//! Changing one job.

use serde_json::Value;
use sqlx::SqliteConnection;
use sqlx::sqlite::SqliteRow;

use super::read::{self, COLUMNS, json, signed};
use super::{Artifact, Job, JobTable, Standing, Step};
use crate::storage::Error;

/// Events deleted at once when a job has too many: deleting each one as the next comes would write twice as much.
const TRIMMED_AT_ONCE: i64 = 64;

/// An event that has no number yet.
#[derive(Debug, Clone, PartialEq)]
pub struct News {
    pub kind: &'static str,
    pub data: Value,
}

/// What becomes of the row of an attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Attempt {
    Begins,
    /// The attempt of this epoch ended, in a word.
    Ended {
        epoch: i64,
        outcome: String,
    },
}

/// A change to a job: all of it or nothing.
#[derive(Debug, Clone, PartialEq)]
pub struct Change {
    pub standing: Standing,
    pub news: Vec<News>,
    pub step: Option<Step>,
    pub artifact: Option<Artifact>,
    pub attempt: Option<Attempt>,
}

impl Change {
    #[must_use]
    pub fn to(standing: Standing) -> Self {
        Self { standing, news: Vec::new(), step: None, artifact: None, attempt: None }
    }

    #[must_use]
    pub fn telling(mut self, kind: &'static str, data: Value) -> Self {
        self.news.push(News { kind, data });
        self
    }
}

impl JobTable {
    /// Reads a job, has `decide` say what becomes of it, and writes that, without anybody else in between. `None`: there is no such job.
    /// Of its events the newest `most_events` are kept. `lasting`: it must survive a power cut; progress need not.
    ///
    /// # Errors
    /// When the database fails; the inner error is `decide`'s, and then nothing was changed.
    pub async fn change<E>(
        &self,
        id: &str,
        lasting: bool,
        most_events: i64,
        at_ms: i64,
        decide: impl FnOnce(&Job) -> Result<Change, E>,
    ) -> Result<Option<Result<Job, E>>, Error> {
        const DOING: &str = "changing a job";
        let failed = |error| self.storage.failed(DOING, error);
        let mut transaction = if lasting { self.storage.write_durably(DOING).await? } else { self.storage.write(DOING).await? };
        let Some(job) = found(&mut transaction, id).await.map_err(failed)? else { return Ok(None) };
        let change = match decide(&job) {
            Ok(change) => change,
            Err(refused) => return Ok(Some(Err(refused))),
        };
        let changed = apply(&mut transaction, &job, change, most_events, at_ms).await.map_err(failed)?;
        transaction.commit().await.map_err(failed)?;
        Ok(Some(Ok(changed)))
    }
}

async fn found(connection: &mut SqliteConnection, id: &str) -> Result<Option<Job>, sqlx::Error> {
    let query = sqlx::AssertSqlSafe(format!("SELECT {COLUMNS} FROM jobs WHERE id = ?"));
    sqlx::query(query).bind(id.to_owned()).try_map(|row: SqliteRow| read::job(&row)).fetch_optional(connection).await
}

pub(super) async fn apply(
    connection: &mut SqliteConnection,
    job: &Job,
    change: Change,
    most_events: i64,
    at_ms: i64,
) -> Result<Job, sqlx::Error> {
    let id = job.order.id.as_str();
    let events = job.events.saturating_add(i64::try_from(change.news.len()).unwrap_or_default());
    compare_and_set(connection, job, &change.standing, events).await?;
    tell(connection, job, &change.news, most_events, at_ms).await?;
    if let Some(step) = &change.step {
        put_step(connection, id, step, at_ms).await?;
    }
    if let Some(artifact) = &change.artifact {
        put_artifact(connection, id, artifact).await?;
    }
    if let Some(attempt) = &change.attempt {
        note_attempt(connection, id, &change.standing, attempt, at_ms).await?;
    }
    Ok(Job { order: job.order.clone(), standing: change.standing, events })
}

/// Writes where the job stands now, to the row with the state and the epoch that were read.
async fn compare_and_set(connection: &mut SqliteConnection, job: &Job, to: &Standing, events: i64) -> Result<(), sqlx::Error> {
    let written = sqlx::query(
        "UPDATE jobs SET state = ?, epoch = ?, owner = ?, lease_until_ms = ?, attempts = ?, max_attempts = ?, not_before_ms = ?, \
         cancel_requested = ?, step = ?, progress = ?, result = ?, error = ?, started_at_ms = ?, finished_at_ms = ?, events = ? \
         WHERE id = ? AND state = ? AND epoch = ?",
    )
    .bind(to.state.as_str())
    .bind(to.epoch)
    .bind(to.owner.clone())
    .bind(to.lease_until_ms)
    .bind(to.attempts)
    .bind(to.max_attempts)
    .bind(to.not_before_ms)
    .bind(to.cancel_requested)
    .bind(to.step)
    .bind(to.progress.as_ref().map(json))
    .bind(to.result.as_ref().map(json))
    .bind(to.error.as_ref().map(json))
    .bind(to.started_at_ms)
    .bind(to.finished_at_ms)
    .bind(events)
    .bind(job.order.id.clone())
    .bind(job.standing.state.as_str())
    .bind(job.standing.epoch)
    .execute(connection)
    .await?;
    if written.rows_affected() == 1 { Ok(()) } else { Err(sqlx::Error::RowNotFound) }
}

async fn tell(connection: &mut SqliteConnection, job: &Job, news: &[News], most: i64, at_ms: i64) -> Result<(), sqlx::Error> {
    let id = job.order.id.as_str();
    for (number, news) in (job.events..).zip(news) {
        sqlx::query("INSERT INTO job_events (job, number, at_ms, kind, data) VALUES (?, ?, ?, ?, ?)")
            .bind(id.to_owned())
            .bind(number)
            .bind(at_ms)
            .bind(news.kind)
            .bind(json(&news.data))
            .execute(&mut *connection)
            .await?;
    }
    let last = job.events.saturating_add(i64::try_from(news.len()).unwrap_or_default());
    if last / TRIMMED_AT_ONCE != job.events / TRIMMED_AT_ONCE && last > most {
        let query = sqlx::query("DELETE FROM job_events WHERE job = ? AND number < ?").bind(id.to_owned()).bind(last - most.max(1));
        query.execute(connection).await?;
    }
    Ok(())
}

async fn put_step(connection: &mut SqliteConnection, id: &str, step: &Step, at_ms: i64) -> Result<(), sqlx::Error> {
    let query = sqlx::query("INSERT OR REPLACE INTO job_steps (job, number, input_hash, output, finished_at_ms) VALUES (?, ?, ?, ?, ?)")
        .bind(id.to_owned())
        .bind(step.number)
        .bind(step.input_hash.clone())
        .bind(json(&step.output))
        .bind(at_ms);
    query.execute(connection).await.map(drop)
}

async fn put_artifact(connection: &mut SqliteConnection, id: &str, artifact: &Artifact) -> Result<(), sqlx::Error> {
    sqlx::query(
        "INSERT OR REPLACE INTO job_artifacts (job, name, path, size_bytes, sha256, lineage, created_at_ms) VALUES (?, ?, ?, ?, ?, ?, ?)",
    )
    .bind(id.to_owned())
    .bind(artifact.name.clone())
    .bind(artifact.path.clone())
    .bind(signed(artifact.size_bytes))
    .bind(artifact.sha256.clone())
    .bind(json(&artifact.lineage))
    .bind(artifact.created_at_ms)
    .execute(connection)
    .await
    .map(drop)
}

async fn note_attempt(
    connection: &mut SqliteConnection,
    id: &str,
    now: &Standing,
    attempt: &Attempt,
    at_ms: i64,
) -> Result<(), sqlx::Error> {
    let query = match attempt {
        Attempt::Begins => sqlx::query("INSERT OR REPLACE INTO job_attempts (job, epoch, owner, started_at_ms) VALUES (?, ?, ?, ?)")
            .bind(id.to_owned())
            .bind(now.epoch)
            .bind(now.owner.clone().unwrap_or_default())
            .bind(at_ms),
        Attempt::Ended { epoch, outcome } => {
            sqlx::query("UPDATE job_attempts SET ended_at_ms = ?, outcome = ? WHERE job = ? AND epoch = ? AND ended_at_ms IS NULL")
                .bind(at_ms)
                .bind(outcome.clone())
                .bind(id.to_owned())
                .bind(*epoch)
        }
    };
    query.execute(connection).await.map(drop)
}
