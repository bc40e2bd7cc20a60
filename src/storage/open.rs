//! Opening the file: lock, look, copy, migrate.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use sqlx::migrate::Migrator;
use sqlx::sqlite::{SqliteAutoVacuum, SqliteConnectOptions, SqliteJournalMode, SqlitePool, SqlitePoolOptions, SqliteSynchronous};
use sqlx::{ConnectOptions, Connection, SqliteConnection};

use super::lock::{Form, Lock};
use super::{Config, Error, Inner, Storage};

pub(super) const FILE_NAME: &str = "arriero.db";

/// Files up to this size are read through for damage at start; beyond it that would take seconds.
const CHECKED_UP_TO_BYTES: u64 = 64 << 20;

/// How long to wait for a free connection before giving up: several writes' time, so that only a stuck disk reaches it.
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(30);

pub(super) async fn open(data_dir: &Path, config: &Config, migrator: &Migrator) -> Result<Storage, Error> {
    let lock = Lock::take(data_dir)?;
    let path = data_dir.join(FILE_NAME);
    let found = look(&path, config).await?;
    let known = known(migrator);
    // Whoever else has the file open relies on its form.
    let form = if found == Some(known) { Form::rely_on(data_dir)? } else { Form::change(data_dir)? };
    if let Some(found) = found.filter(|found| *found > known) {
        return Err(Error::Newer { path, found, known });
    }
    let writer = connect(&path, writer_options(&path, config), 1).await?;
    if let Err(error) = migrate(&writer, &path, found.filter(|found| *found < known), migrator).await {
        writer.close().await; // before the lock goes
        return Err(error);
    }
    let form = form.settled()?;
    pools(path, config, writer, (Some(lock), form)).await
}

pub(super) async fn join(data_dir: &Path, config: &Config, migrator: &Migrator) -> Result<Storage, Error> {
    let path = data_dir.join(FILE_NAME);
    let form = Form::rely_on(data_dir)?;
    let (found, known) = (look(&path, config).await?, known(migrator));
    match found {
        Some(found) if found == known => {}
        Some(found) if found > known => return Err(Error::Newer { path, found, known }),
        found => return Err(Error::Older { path, found: found.unwrap_or_default(), known }),
    }
    let writer = connect(&path, writer_options(&path, config).create_if_missing(false), 1).await?;
    pools(path, config, writer, (None, form)).await
}

/// The newest form that this program knows.
fn known(migrator: &Migrator) -> i64 {
    migrator.iter().map(|migration| migration.version).max().unwrap_or(0)
}

async fn pools(path: PathBuf, config: &Config, writer: SqlitePool, locks: (Option<Lock>, Form)) -> Result<Storage, Error> {
    let readers = connect(&path, reader_options(&path, config), config.max_readers.max(1)).await?;
    // Opened when it is first needed: many processes never write a job.
    let durable = pool_options(1, 0).connect_lazy_with(writer_options(&path, config).synchronous(SqliteSynchronous::Full));
    let discreet = pool_options(1, 0).connect_lazy_with(writer_options(&path, config).pragma("secure_delete", "ON"));
    Ok(Storage(Arc::new(Inner { path, writer, durable, discreet, readers, _locks: locks })))
}

/// Which form a file that is already there has, without changing a byte of it: it may be damaged or too new.
async fn look(path: &Path, config: &Config) -> Result<Option<i64>, Error> {
    let size_bytes = std::fs::metadata(path).map_or(0, |found| found.len());
    if size_bytes == 0 {
        return Ok(None);
    }
    let failed = |error| Error::from_sqlite(path, "looking at it", error);
    let mut connection = reader_options(path, config).connect().await.map_err(failed)?;
    if size_bytes <= CHECKED_UP_TO_BYTES {
        check(&mut connection, path).await?;
    }
    let found = version(&mut connection).await.map_err(failed)?;
    connection.close().await.map_err(failed)?;
    Ok(found)
}

/// Brings the file to its present form, after copying one that has an `older` form.
async fn migrate(writer: &SqlitePool, path: &Path, older: Option<i64>, migrator: &Migrator) -> Result<(), Error> {
    let mut connection = writer.acquire().await.map_err(|error| Error::from_sqlite(path, "opening it", error))?;
    if let Some(form) = older {
        backup(&mut connection, path, form).await?;
    }
    migrator.run(&mut *connection).await.map_err(|error| Error::from_migration(path, error))
}

/// Looks for damage.
async fn check(connection: &mut SqliteConnection, path: &Path) -> Result<(), Error> {
    let verdict: String = sqlx::query_scalar("PRAGMA quick_check(1)")
        .fetch_one(connection)
        .await
        .map_err(|error| Error::from_sqlite(path, "checking it", error))?;
    if verdict == "ok" { Ok(()) } else { Err(Error::Corrupt { path: path.to_owned(), why: verdict }) }
}

/// The newest migration that the file has seen; none for a new file.
async fn version(connection: &mut SqliteConnection) -> Result<Option<i64>, sqlx::Error> {
    let migrated: i64 =
        sqlx::query_scalar("SELECT count(*) FROM sqlite_schema WHERE name = '_sqlx_migrations'").fetch_one(&mut *connection).await?;
    if migrated == 0 {
        return Ok(None);
    }
    sqlx::query_scalar("SELECT max(version) FROM _sqlx_migrations").fetch_one(connection).await
}

/// Copies the file aside. An older copy of the same form is replaced only once the new one is whole.
async fn backup(connection: &mut SqliteConnection, path: &Path, form: i64) -> Result<(), Error> {
    let failed = |why: String| Error::Backup { path: path.to_owned(), why };
    let copy = path.with_file_name(format!("{FILE_NAME}.form-{form}.bak"));
    let unfinished = copy.with_extension("tmp");
    match std::fs::remove_file(&unfinished) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(failed(error.to_string())),
        _ => {}
    }
    let name = unfinished.to_str().ok_or_else(|| failed("the path is not UTF-8".to_owned()))?;
    sqlx::query("VACUUM INTO ?").bind(name).execute(connection).await.map_err(|error| failed(error.to_string()))?;
    std::fs::rename(&unfinished, &copy).map_err(|error| failed(error.to_string()))?;
    tracing::info!(copy = %copy.display(), "copied the database before bringing it to its new form");
    Ok(())
}

async fn connect(path: &Path, options: SqliteConnectOptions, most: u32) -> Result<SqlitePool, Error> {
    pool_options(most, 1).connect_with(options).await.map_err(|error| Error::from_sqlite(path, "opening it", error))
}

fn pool_options(most: u32, least: u32) -> SqlitePoolOptions {
    SqlitePoolOptions::new()
        .max_connections(most)
        .min_connections(least)
        .acquire_timeout(ACQUIRE_TIMEOUT)
        .idle_timeout(None)
        .max_lifetime(None)
}

fn writer_options(path: &Path, config: &Config) -> SqliteConnectOptions {
    options(path, config)
        .create_if_missing(true)
        .auto_vacuum(SqliteAutoVacuum::Incremental)
        .journal_mode(SqliteJournalMode::Wal)
        // With a write-ahead log this loses no more than the last moments before a power cut, and never the file. Rows
        // that must not be lost (keys, jobs) are written with FULL.
        .synchronous(SqliteSynchronous::Normal)
        .optimize_on_close(true, 400)
}

fn reader_options(path: &Path, config: &Config) -> SqliteConnectOptions {
    options(path, config).read_only(true)
}

fn options(path: &Path, config: &Config) -> SqliteConnectOptions {
    // Statements are not logged: some bear what clients sent.
    SqliteConnectOptions::new().filename(path).busy_timeout(config.busy_timeout).foreign_keys(true).disable_statement_logging()
}

#[cfg(test)]
#[path = "open_tests.rs"]
mod tests;
