//! SQLite: the only folder that speaks SQL.
//!
//! One file, `arriero.db`, in the data folder. It promises: one process at a time (a lock held as long as the [`Storage`] lives);
//! write-ahead logging; all writes through one connection that takes the write lock at once, so that writers queue instead of
//! failing; readers apart, who never wait for a writer; a copy of the file before it is brought to a newer form; a file that is
//! newer than this program, damaged, or not ours is left alone. One file here per family of tables.
//!
//! It does not batch, retry or decide what to keep: the services above do.

pub mod answers;
pub mod budgets;
mod error;
pub mod keys;
mod lock;
mod open;
pub mod usage;
pub mod warm;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use sqlx::sqlite::{Sqlite, SqliteArguments, SqlitePool};
use sqlx::{Transaction, migrate::Migrator};

pub use error::Error;

/// Every form the file has had, oldest first.
static MIGRATOR: Migrator = sqlx::migrate!();

/// How the file is used.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// How long to wait for another program that holds the file.
    #[serde(with = "crate::domain::span")]
    pub busy_timeout: Duration,
    /// Connections that read at the same time.
    pub max_readers: u32,
}

impl Default for Config {
    fn default() -> Self {
        Self { busy_timeout: Duration::from_secs(5), max_readers: 4 }
    }
}

type Statement<'q> = sqlx::query::Query<'q, Sqlite, SqliteArguments>;

/// The open file. Cheap to clone; the last clone lets go of the lock.
#[derive(Debug, Clone)]
pub struct Storage(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    path: PathBuf,
    writer: SqlitePool,
    readers: SqlitePool,
    /// After the pools, so that it is let go last.
    _lock: lock::Lock,
}

impl Storage {
    /// Opens the file in `data_dir`, making both if need be, and brings it to its present form.
    ///
    /// # Errors
    /// Each reason to refuse has its own variant of [`Error`].
    pub async fn open(data_dir: &Path, config: &Config) -> Result<Self, Error> {
        open::open(data_dir, config, &MIGRATOR).await
    }

    /// The kept answers.
    #[must_use]
    pub fn answers(&self) -> answers::AnswerTable {
        answers::AnswerTable::new(self.clone())
    }

    /// The request log.
    #[must_use]
    pub fn usage(&self) -> usage::UsageTable {
        usage::UsageTable::new(self.clone())
    }

    /// What was used of budgets.
    #[must_use]
    pub fn budgets(&self) -> budgets::BudgetsTable {
        budgets::BudgetsTable::new(self.clone())
    }

    /// The API keys.
    #[must_use]
    pub fn keys(&self) -> keys::KeyTable {
        keys::KeyTable::new(self.clone())
    }

    /// The prompts that are kept warm.
    #[must_use]
    pub fn warm(&self) -> warm::WarmTable {
        warm::WarmTable::new(self.clone())
    }

    /// Where the file is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.0.path
    }

    /// Finishes what is under way and folds the write-ahead log into the file. Later calls fail.
    pub async fn close(&self) {
        self.0.readers.close().await;
        self.0.writer.close().await;
    }

    /// A transaction that has the write lock from its first statement: one that begins by reading could be refused later.
    async fn write(&self, doing: &'static str) -> Result<Transaction<'static, Sqlite>, Error> {
        const BEGIN: &str = "BEGIN IMMEDIATE";
        let failed = |error| self.failed(doing, error);
        match self.0.writer.begin_with(BEGIN).await {
            // SQLite ends a transaction by itself when the disk is full, but sqlx goes on counting it as open, for ever: only a
            // new connection helps.
            Err(sqlx::Error::InvalidSavePointStatement) => {
                self.0.writer.acquire().await.map_err(failed)?.close().await.map_err(failed)?;
                self.0.writer.begin_with(BEGIN).await.map_err(failed)
            }
            begun => begun.map_err(failed),
        }
    }

    /// Runs one statement, a transaction of its own, whose effect survives a power cut once this has returned.
    async fn write_through(&self, doing: &'static str, statement: Statement<'_>) -> Result<(), Error> {
        let failed = |error| self.failed(doing, error);
        let mut writer = self.0.writer.acquire().await.map_err(failed)?;
        // Before the transaction: within one SQLite does not change it.
        sqlx::query("PRAGMA synchronous = FULL").execute(&mut *writer).await.map_err(failed)?;
        let done = statement.execute(&mut *writer).await;
        // Where this fails or is not reached, later writes are slower, not less safe.
        let _ = sqlx::query("PRAGMA synchronous = NORMAL").execute(&mut *writer).await;
        done.map(drop).map_err(failed)
    }

    fn readers(&self) -> &SqlitePool {
        &self.0.readers
    }

    fn failed(&self, doing: &'static str, error: sqlx::Error) -> Error {
        Error::from_sqlite(&self.0.path, doing, error)
    }
}

#[cfg(test)]
impl Storage {
    /// Makes the disk full at this many pages of 4 KiB.
    pub(crate) async fn limit_pages(&self, most: u32) {
        let mut writer = self.0.writer.acquire().await.expect("a connection");
        let statement = sqlx::AssertSqlSafe(format!("PRAGMA max_page_count = {most}"));
        sqlx::query(statement).execute(&mut *writer).await.expect("a pragma");
    }
}
