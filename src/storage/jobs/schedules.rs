//! Schedules: jobs that are made again and again.

use serde::{Deserialize, Serialize};
use serde_json::Value;
use sqlx::Row as _;
use sqlx::sqlite::SqliteRow;

use super::read::{json, parsed, signed};
use super::submit::{insert, remembered};
use super::{JobTable, Key, Order, Standing, Submitted};
use crate::storage::Error;

/// What becomes of runs for which nobody was there.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Missed {
    /// They are left out.
    Skip,
    /// One job stands for all of them.
    #[default]
    Once,
    /// Each is made up for, up to a bound.
    All,
}

impl Missed {
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Skip => "skip",
            Self::Once => "once",
            Self::All => "all",
        }
    }
}

#[derive(Debug, Clone, PartialEq)]
pub struct Schedule {
    pub id: String,
    pub name: String,
    pub tenant: String,
    /// In UTC.
    pub cron: String,
    pub missed: Missed,
    /// What each of its jobs is made from.
    pub job: Value,
    /// None: never again.
    pub next_at_ms: Option<i64>,
    pub last_at_ms: Option<i64>,
    pub created_at_ms: i64,
}

const COLUMNS: &str = "id, name, tenant, cron, missed, job, next_at_ms, last_at_ms, created_at_ms";

impl JobTable {
    pub async fn add_schedule(&self, schedule: &Schedule, key: Option<&Key>, most: u64) -> Result<Submitted, Error> {
        const DOING: &str = "adding a schedule";
        let failed = |error| self.storage.failed(DOING, error);
        let mut transaction = self.storage.write_durably(DOING).await?;
        if let Some(before) = remembered(&mut transaction, key, &schedule.id).await.map_err(failed)? {
            return Ok(before);
        }
        let there: i64 = sqlx::query_scalar("SELECT count(*) FROM job_schedules").fetch_one(&mut *transaction).await.map_err(failed)?;
        if there >= signed(most) {
            return Ok(Submitted::Full);
        }
        sqlx::query(sqlx::AssertSqlSafe(format!("INSERT INTO job_schedules ({COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)")))
            .bind(schedule.id.clone())
            .bind(schedule.name.clone())
            .bind(schedule.tenant.clone())
            .bind(schedule.cron.clone())
            .bind(schedule.missed.as_str())
            .bind(json(&schedule.job))
            .bind(schedule.next_at_ms)
            .bind(schedule.last_at_ms)
            .bind(schedule.created_at_ms)
            .execute(&mut *transaction)
            .await
            .map_err(failed)?;
        transaction.commit().await.map_err(failed)?;
        Ok(Submitted::New)
    }

    /// All schedules, or a tenant's, oldest first.
    pub async fn schedules(&self, tenant: Option<&str>) -> Result<Vec<Schedule>, Error> {
        let query = format!("SELECT {COLUMNS} FROM job_schedules WHERE ?1 IS NULL OR tenant = ?1 ORDER BY id");
        sqlx::query(sqlx::AssertSqlSafe(query))
            .bind(tenant.map(str::to_owned))
            .try_map(|row: SqliteRow| read(&row))
            .fetch_all(self.storage.readers())
            .await
            .map_err(|error| self.storage.failed("listing schedules", error))
    }

    /// Schedules whose time has come; at most so many.
    pub async fn due_schedules(&self, now_ms: i64, most: i64) -> Result<Vec<Schedule>, Error> {
        let query = format!("SELECT {COLUMNS} FROM job_schedules WHERE next_at_ms <= ? ORDER BY next_at_ms LIMIT ?");
        sqlx::query(sqlx::AssertSqlSafe(query))
            .bind(now_ms)
            .bind(most)
            .try_map(|row: SqliteRow| read(&row))
            .fetch_all(self.storage.readers())
            .await
            .map_err(|error| self.storage.failed("looking for schedules", error))
    }

    /// Makes the jobs of a schedule whose time has come, and says when it comes next: once, whoever else does the same. Tells whether
    /// it was this time.
    pub async fn fire(&self, schedule: &Schedule, next_at_ms: Option<i64>, jobs: &[(Order, Standing)]) -> Result<bool, Error> {
        const DOING: &str = "making the jobs of a schedule";
        let failed = |error| self.storage.failed(DOING, error);
        let mut transaction = self.storage.write_durably(DOING).await?;
        let moved = sqlx::query("UPDATE job_schedules SET next_at_ms = ?, last_at_ms = next_at_ms WHERE id = ? AND next_at_ms IS ?")
            .bind(next_at_ms)
            .bind(schedule.id.clone())
            .bind(schedule.next_at_ms)
            .execute(&mut *transaction)
            .await
            .map_err(failed)?;
        if moved.rows_affected() == 0 {
            return Ok(false);
        }
        for (order, standing) in jobs {
            insert(&mut transaction, order, standing).await.map_err(failed)?;
        }
        transaction.commit().await.map_err(failed)?;
        Ok(true)
    }

    /// Tells whether there was one. Jobs that it has made stay.
    pub async fn remove_schedule(&self, id: &str, tenant: Option<&str>) -> Result<bool, Error> {
        const DOING: &str = "removing a schedule";
        let failed = |error| self.storage.failed(DOING, error);
        let mut transaction = self.storage.write_durably(DOING).await?;
        let removed = sqlx::query("DELETE FROM job_schedules WHERE id = ?1 AND (?2 IS NULL OR tenant = ?2)")
            .bind(id.to_owned())
            .bind(tenant.map(str::to_owned))
            .execute(&mut *transaction)
            .await
            .map_err(failed)?;
        transaction.commit().await.map_err(failed)?;
        Ok(removed.rows_affected() > 0)
    }
}

fn read(row: &SqliteRow) -> Result<Schedule, sqlx::Error> {
    let missed = match row.try_get("missed")? {
        "skip" => Missed::Skip,
        "all" => Missed::All,
        _ => Missed::Once,
    };
    Ok(Schedule {
        id: row.try_get("id")?,
        name: row.try_get("name")?,
        tenant: row.try_get("tenant")?,
        cron: row.try_get("cron")?,
        missed,
        job: parsed(row.try_get("job")?)?,
        next_at_ms: row.try_get("next_at_ms")?,
        last_at_ms: row.try_get("last_at_ms")?,
        created_at_ms: row.try_get("created_at_ms")?,
    })
}
