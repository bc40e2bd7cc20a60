//! Looking at jobs, and what operators want of the workers.

use serde::{Deserialize, Serialize};
use sqlx::sqlite::SqliteRow;
use sqlx::{QueryBuilder, Sqlite};

use super::read::{self, COLUMNS};
use super::{Artifact, AttemptMade, Event, Job, JobTable, State, Step};
use crate::storage::Error;

/// Which jobs are wanted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Page {
    /// Only of this tenant.
    pub tenant: Option<String>,
    pub state: Option<State>,
    pub kind: Option<String>,
    /// Only those that were submitted before the job of this id.
    pub before: Option<String>,
    pub most: u32,
}

/// What operators want of all workers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PoolOrder {
    #[default]
    Run,
    /// Start nothing new; what runs goes on.
    Pause,
    /// Start nothing new; what runs stops at its next good place and waits in the queue.
    Drain,
}

impl PoolOrder {
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Run => "run",
            Self::Pause => "pause",
            Self::Drain => "drain",
        }
    }
}

/// How many jobs stand how, and what is wanted of the workers.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Pool {
    pub order: PoolOrder,
    pub jobs: Vec<(String, u64)>,
}

impl JobTable {
    pub async fn get(&self, id: &str) -> Result<Option<Job>, Error> {
        let query = sqlx::AssertSqlSafe(format!("SELECT {COLUMNS} FROM jobs WHERE id = ?"));
        sqlx::query(query)
            .bind(id.to_owned())
            .try_map(|row: SqliteRow| read::job(&row))
            .fetch_optional(self.storage.readers())
            .await
            .map_err(|error| self.storage.failed("reading a job", error))
    }

    /// The newest first.
    pub async fn list(&self, page: &Page) -> Result<Vec<Job>, Error> {
        let mut query = QueryBuilder::<Sqlite>::new(format!("SELECT {COLUMNS} FROM jobs WHERE true"));
        if let Some(tenant) = &page.tenant {
            query.push(" AND tenant = ").push_bind(tenant.clone());
        }
        if let Some(state) = page.state {
            query.push(" AND state = ").push_bind(state.as_str());
        }
        if let Some(kind) = &page.kind {
            query.push(" AND kind = ").push_bind(kind.clone());
        }
        if let Some(before) = &page.before {
            query.push(" AND id < ").push_bind(before.clone());
        }
        query.push(" ORDER BY id DESC LIMIT ").push_bind(i64::from(page.most));
        let rows = query.build().try_map(|row: SqliteRow| read::job(&row));
        rows.fetch_all(self.storage.readers()).await.map_err(|error| self.storage.failed("listing jobs", error))
    }

    /// The events of a job from a number on; at most so many.
    pub async fn events(&self, id: &str, from: i64, most: i64) -> Result<Vec<Event>, Error> {
        sqlx::query("SELECT number, at_ms, kind, data FROM job_events WHERE job = ? AND number >= ? ORDER BY number LIMIT ?")
            .bind(id.to_owned())
            .bind(from)
            .bind(most)
            .try_map(|row: SqliteRow| read::event(&row))
            .fetch_all(self.storage.readers())
            .await
            .map_err(|error| self.storage.failed("reading the events of a job", error))
    }

    pub async fn artifacts(&self, id: &str) -> Result<Vec<Artifact>, Error> {
        sqlx::query("SELECT name, path, size_bytes, sha256, lineage, created_at_ms FROM job_artifacts WHERE job = ? ORDER BY name")
            .bind(id.to_owned())
            .try_map(|row: SqliteRow| read::artifact(&row))
            .fetch_all(self.storage.readers())
            .await
            .map_err(|error| self.storage.failed("reading the artifacts of a job", error))
    }

    /// The newest attempts, oldest first; at most so many.
    pub async fn attempts(&self, id: &str, most: i64) -> Result<Vec<AttemptMade>, Error> {
        const NEWEST: &str = "SELECT * FROM (SELECT epoch, owner, started_at_ms, ended_at_ms, outcome FROM job_attempts WHERE job = ? \
            ORDER BY epoch DESC LIMIT ?) ORDER BY epoch";
        sqlx::query(NEWEST)
            .bind(id.to_owned())
            .bind(most)
            .try_map(|row: SqliteRow| read::attempt(&row))
            .fetch_all(self.storage.readers())
            .await
            .map_err(|error| self.storage.failed("reading the attempts at a job", error))
    }

    /// The steps that have ended.
    pub async fn steps(&self, id: &str) -> Result<Vec<Step>, Error> {
        sqlx::query("SELECT number, input_hash, output FROM job_steps WHERE job = ? ORDER BY number")
            .bind(id.to_owned())
            .try_map(|row: SqliteRow| read::step(&row))
            .fetch_all(self.storage.readers())
            .await
            .map_err(|error| self.storage.failed("reading the steps of a job", error))
    }

    pub async fn pool(&self) -> Result<Pool, Error> {
        const DOING: &str = "looking at the workers";
        let failed = |error| self.storage.failed(DOING, error);
        let jobs: Vec<(String, i64)> =
            sqlx::query_as("SELECT state, count(*) FROM jobs GROUP BY state").fetch_all(self.storage.readers()).await.map_err(failed)?;
        let jobs = jobs.into_iter().map(|(state, count)| (state, read::unsigned(count))).collect();
        Ok(Pool { order: self.pool_order().await?, jobs })
    }

    pub async fn pool_order(&self) -> Result<PoolOrder, Error> {
        let failed = |error| self.storage.failed("looking at the workers", error);
        let word: String =
            sqlx::query_scalar("SELECT order_ FROM job_pool WHERE one = 1").fetch_one(self.storage.readers()).await.map_err(failed)?;
        Ok(match word.as_str() {
            "pause" => PoolOrder::Pause,
            "drain" => PoolOrder::Drain,
            _ => PoolOrder::Run,
        })
    }

    pub async fn order_pool(&self, order: PoolOrder) -> Result<(), Error> {
        let query = sqlx::query("UPDATE job_pool SET order_ = ? WHERE one = 1").bind(order.as_str());
        self.storage.write_through("ordering the workers", query).await
    }
}
