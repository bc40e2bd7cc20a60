//! What is no longer needed.

use std::collections::HashSet;

use super::JobTable;
use super::read::{signed, unsigned};
use crate::storage::Error;

/// How much of what has ended is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Kept {
    /// Jobs that ended before this go.
    pub since_ms: i64,
    pub most_jobs: u64,
    /// Of all artifacts together.
    pub most_bytes: u64,
}

/// What became of a job that was to be forgotten.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Forgotten {
    Gone,
    /// It has not ended.
    Unfinished,
    /// The job of this id comes after it, and has not ended.
    Needed(String),
}

/// Jobs that have ended, newest first, with what they and all newer ones take. Those that others still wait for are not among them.
const OVER: &str = "SELECT id FROM (SELECT id, finished_at_ms, row_number() OVER newest AS place, \
    sum((SELECT coalesce(sum(size_bytes), 0) FROM job_artifacts WHERE job = jobs.id)) OVER newest AS bytes FROM jobs \
    WHERE state IN ('succeeded', 'failed', 'cancelled') AND NOT EXISTS (SELECT 1 FROM job_needs JOIN jobs AS other ON other.id = job_needs.job \
    WHERE needs = jobs.id AND other.state IN ('queued', 'leased', 'running')) WINDOW newest AS (ORDER BY finished_at_ms DESC, id DESC)) \
    WHERE finished_at_ms < ? OR place > ? OR bytes > ? LIMIT ?";

impl JobTable {
    /// Forgets jobs that have ended and are beyond what is kept, with all that belongs to them; at most so many. Tells which: their
    /// files are to be deleted after this.
    pub async fn forget(&self, kept: Kept, most: i64) -> Result<Vec<String>, Error> {
        const DOING: &str = "forgetting old jobs";
        let failed = |error| self.storage.failed(DOING, error);
        let mut transaction = self.storage.write(DOING).await?;
        let over: Vec<String> = sqlx::query_scalar(OVER)
            .bind(kept.since_ms)
            .bind(signed(kept.most_jobs))
            .bind(signed(kept.most_bytes))
            .bind(most)
            .fetch_all(&mut *transaction)
            .await
            .map_err(failed)?;
        for id in &over {
            sqlx::query("DELETE FROM jobs WHERE id = ?").bind(id.clone()).execute(&mut *transaction).await.map_err(failed)?;
        }
        sqlx::query(
            "DELETE FROM job_keys WHERE created_at_ms < ? AND NOT EXISTS (SELECT 1 FROM jobs WHERE id = made) \
             AND NOT EXISTS (SELECT 1 FROM job_schedules WHERE id = made)",
        )
        .bind(kept.since_ms)
        .execute(&mut *transaction)
        .await
        .map_err(failed)?;
        transaction.commit().await.map_err(failed)?;
        Ok(over)
    }

    /// Forgets one job that has ended, with all that belongs to it, unless another one that has not ended comes after it. Its files are to
    /// be deleted after this.
    pub async fn forget_one(&self, id: &str) -> Result<Forgotten, Error> {
        const DOING: &str = "forgetting a job";
        let failed = |error| self.storage.failed(DOING, error);
        let mut transaction = self.storage.write_durably(DOING).await?;
        let needed: Option<String> = sqlx::query_scalar(
            "SELECT job FROM job_needs JOIN jobs ON jobs.id = job_needs.job WHERE needs = ? AND state IN ('queued', 'leased', 'running') LIMIT 1",
        )
        .bind(id.to_owned())
        .fetch_optional(&mut *transaction)
        .await
        .map_err(failed)?;
        if let Some(by) = needed {
            return Ok(Forgotten::Needed(by));
        }
        let gone = sqlx::query("DELETE FROM jobs WHERE id = ? AND state IN ('succeeded', 'failed', 'cancelled')")
            .bind(id.to_owned())
            .execute(&mut *transaction)
            .await
            .map_err(failed)?;
        transaction.commit().await.map_err(failed)?;
        Ok(if gone.rows_affected() == 1 { Forgotten::Gone } else { Forgotten::Unfinished })
    }

    /// Of these ids those of jobs that have not ended: their files are in use.
    pub async fn unfinished(&self) -> Result<HashSet<String>, Error> {
        let query = sqlx::query_scalar("SELECT id FROM jobs WHERE state IN ('queued', 'leased', 'running')");
        let ids: Vec<String> =
            query.fetch_all(self.storage.readers()).await.map_err(|error| self.storage.failed("listing unfinished jobs", error))?;
        Ok(ids.into_iter().collect())
    }

    /// The paths of all artifacts.
    pub async fn artifact_paths(&self) -> Result<HashSet<String>, Error> {
        let query = sqlx::query_scalar("SELECT path FROM job_artifacts");
        let paths: Vec<String> =
            query.fetch_all(self.storage.readers()).await.map_err(|error| self.storage.failed("listing artifacts", error))?;
        Ok(paths.into_iter().collect())
    }

    /// Size of all artifacts.
    pub async fn artifact_bytes(&self) -> Result<u64, Error> {
        let query = sqlx::query_scalar("SELECT coalesce(sum(size_bytes), 0) FROM job_artifacts");
        let bytes: i64 =
            query.fetch_one(self.storage.readers()).await.map_err(|error| self.storage.failed("measuring artifacts", error))?;
        Ok(unsigned(bytes))
    }
}
