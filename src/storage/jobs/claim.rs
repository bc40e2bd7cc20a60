//! Taking the next job, and finding those whose worker is gone.

use sqlx::sqlite::SqliteRow;
use sqlx::{Row as _, SqliteConnection};

use super::change::apply;
use super::read::{self, COLUMNS, unsigned};
use super::{Change, Job, JobTable, Needs};
use crate::storage::Error;

/// Jobs that are looked at to find the next one: beyond these, none is chosen before one of them has gone.
const LOOKED_AT: i64 = 64;

/// What there is to choose from, at one moment.
#[derive(Debug, Clone, PartialEq)]
pub struct Waiting {
    /// Those that could start now, of higher priority and older first.
    pub jobs: Vec<Job>,
    /// What the active ones take, whoever works on them.
    pub used: Needs,
    /// How many are active.
    pub active: u64,
}

impl JobTable {
    /// Shows `choose` what waits, and makes the change that it names to one of those. Nobody else chooses meanwhile.
    pub async fn claim(
        &self,
        now_ms: i64,
        most_events: i64,
        choose: impl FnOnce(&Waiting) -> Option<(usize, Change)>,
    ) -> Result<Option<Job>, Error> {
        const DOING: &str = "taking a job";
        let failed = |error| self.storage.failed(DOING, error);
        let mut transaction = self.storage.write_durably(DOING).await?;
        let waiting = waiting(&mut transaction, now_ms).await.map_err(failed)?;
        let Some((chosen, change)) = choose(&waiting) else { return Ok(None) };
        let Some(job) = waiting.jobs.get(chosen) else { return Ok(None) };
        let taken = apply(&mut transaction, job, change, most_events, now_ms).await.map_err(failed)?;
        transaction.commit().await.map_err(failed)?;
        Ok(Some(taken))
    }

    /// Whether one could start now. Cheap, and takes no lock.
    pub async fn anything_waits(&self, now_ms: i64) -> Result<bool, Error> {
        let query = sqlx::AssertSqlSafe(format!("SELECT EXISTS (SELECT 1 FROM jobs WHERE {STARTABLE})"));
        sqlx::query_scalar(query)
            .bind(now_ms)
            .fetch_one(self.storage.readers())
            .await
            .map_err(|error| self.storage.failed("looking for jobs", error))
    }

    /// Active jobs whose lease has run out; at most so many.
    pub async fn expired(&self, now_ms: i64, most: i64) -> Result<Vec<String>, Error> {
        sqlx::query_scalar(
            "SELECT id FROM jobs WHERE state IN ('leased', 'running') AND lease_until_ms < ? ORDER BY lease_until_ms LIMIT ?",
        )
        .bind(now_ms)
        .bind(most)
        .fetch_all(self.storage.readers())
        .await
        .map_err(|error| self.storage.failed("looking for jobs without a worker", error))
    }

    /// Queued jobs that wait for one that will not succeed, with that one; at most so many.
    pub async fn hopeless(&self, most: i64) -> Result<Vec<(String, String)>, Error> {
        sqlx::query_as(
            "SELECT jobs.id, max(needs) FROM jobs JOIN job_needs ON job_needs.job = jobs.id LEFT JOIN jobs AS other ON other.id = needs \
             WHERE jobs.state = 'queued' AND (other.id IS NULL OR other.state IN ('failed', 'cancelled')) GROUP BY jobs.id LIMIT ?",
        )
        .bind(most)
        .fetch_all(self.storage.readers())
        .await
        .map_err(|error| self.storage.failed("looking for jobs that wait in vain", error))
    }
}

const STARTABLE: &str = "state = 'queued' AND not_before_ms <= ? AND NOT EXISTS (SELECT 1 FROM job_needs LEFT JOIN jobs AS other \
    ON other.id = needs WHERE job_needs.job = jobs.id AND other.state IS NOT 'succeeded')";

async fn waiting(connection: &mut SqliteConnection, now_ms: i64) -> Result<Waiting, sqlx::Error> {
    let query = format!("SELECT {COLUMNS} FROM jobs WHERE {STARTABLE} ORDER BY priority DESC, id LIMIT {LOOKED_AT}");
    let jobs =
        sqlx::query(sqlx::AssertSqlSafe(query)).bind(now_ms).try_map(|row: SqliteRow| read::job(&row)).fetch_all(&mut *connection).await?;
    // Each is cut before they are added up: a sum that is too large for SQLite would be an error, for all who claim.
    let active = sqlx::query(
        "SELECT count(*) AS active, coalesce(sum(cpu_threads), 0) AS cpu, coalesce(sum(gpus), 0) AS gpus, \
         coalesce(sum(min(memory_bytes, 1 << 52)), 0) AS memory, coalesce(sum(min(disk_bytes, 1 << 52)), 0) AS disk FROM jobs WHERE state IN ('leased', 'running')",
    )
    .fetch_one(connection)
    .await?;
    let number = |column: &str| active.try_get::<i64, _>(column).map(unsigned);
    let small = |column: &str| number(column).map(|value| u32::try_from(value).unwrap_or(u32::MAX));
    let used = Needs { cpu_threads: small("cpu")?, gpus: small("gpus")?, memory_bytes: number("memory")?, disk_bytes: number("disk")? };
    Ok(Waiting { jobs, used, active: number("active")? })
}
