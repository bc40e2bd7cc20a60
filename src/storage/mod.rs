//! SQLite: the only folder that speaks SQL.
//!
//! One file, `arriero.db`, in the data folder. It promises: one service at a time (a lock held as long as the [`Storage`] lives), and
//! beside it only workers that know the very same form of the file; write-ahead logging; all writes through one connection, those
//! that must survive a power cut at once through another, and those that must leave nothing behind through a third, all of which take
//! the write lock at once, so that writers queue instead of failing; readers apart, who never wait for a writer; a copy of the file before it is brought to a newer form; a file that is
//! newer than this program, damaged, or not ours is left alone. One file here per family of tables.
//!
//! It does not batch, retry or decide what to keep: the services above do.

pub mod answers;
pub mod budgets;
pub mod collection;
mod error;
pub mod jobs;
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
    /// One connection as well; what it has committed survives a power cut.
    durable: SqlitePool,
    /// And one that overwrites what it deletes.
    discreet: SqlitePool,
    readers: SqlitePool,
    /// After the pools, so that they are let go last.
    _locks: (Option<lock::Lock>, lock::Form),
}

impl Storage {
    /// Opens the file in `data_dir`, making both if need be, and brings it to its present form.
    ///
    /// # Errors
    /// Each reason to refuse has its own variant of [`Error`].
    pub async fn open(data_dir: &Path, config: &Config) -> Result<Self, Error> {
        open::open(data_dir, config, &MIGRATOR).await
    }

    /// Opens the file in `data_dir` beside the service that may run on it, as a worker does. It must be there, in the form that this
    /// program knows; as long as the [`Storage`] lives nobody brings it to another one.
    ///
    /// # Errors
    /// Each reason to refuse has its own variant of [`Error`].
    pub async fn join(data_dir: &Path, config: &Config) -> Result<Self, Error> {
        open::join(data_dir, config, &MIGRATOR).await
    }

    /// The background jobs.
    #[must_use]
    pub fn jobs(&self) -> jobs::JobTable {
        jobs::JobTable::new(self.clone())
    }

    /// The kept answers.
    #[must_use]
    pub fn answers(&self) -> answers::AnswerTable {
        answers::AnswerTable::new(self.clone())
    }

    /// Exchanges that were collected, and what was said of them.
    #[must_use]
    pub fn collection(&self) -> collection::CollectionTable {
        collection::CollectionTable::new(self.clone())
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
        self.0.durable.close().await;
        self.0.discreet.close().await;
        self.0.writer.close().await;
    }

    /// A transaction that has the write lock from its first statement: one that begins by reading could be refused later.
    async fn write(&self, doing: &'static str) -> Result<Transaction<'static, Sqlite>, Error> {
        begin(&self.0.writer).await.map_err(|error| self.failed(doing, error))
    }

    /// The same; what it has committed survives a power cut.
    async fn write_durably(&self, doing: &'static str) -> Result<Transaction<'static, Sqlite>, Error> {
        begin(&self.0.durable).await.map_err(|error| self.failed(doing, error))
    }

    /// The same; what it deletes or replaces is overwritten in the file.
    async fn write_discreetly(&self, doing: &'static str) -> Result<Transaction<'static, Sqlite>, Error> {
        begin(&self.0.discreet).await.map_err(|error| self.failed(doing, error))
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

async fn begin(pool: &SqlitePool) -> Result<Transaction<'static, Sqlite>, sqlx::Error> {
    const BEGIN: &str = "BEGIN IMMEDIATE";
    match pool.begin_with(BEGIN).await {
        // SQLite ends a transaction by itself when the disk is full, but sqlx goes on counting it as open, for ever: only a
        // new connection helps.
        Err(sqlx::Error::InvalidSavePointStatement) => {
            pool.acquire().await?.close().await?;
            pool.begin_with(BEGIN).await
        }
        begun => begun,
    }
}

#[cfg(test)]
impl Storage {
    /// Makes the disk full at this many pages of 4 KiB.
    pub(crate) async fn limit_pages(&self, most: u32) {
        for pool in [&self.0.writer, &self.0.durable, &self.0.discreet] {
            let mut writer = pool.acquire().await.expect("a connection");
            let statement = sqlx::AssertSqlSafe(format!("PRAGMA max_page_count = {most}"));
            sqlx::query(statement).execute(&mut *writer).await.expect("a pragma");
        }
    }
}
