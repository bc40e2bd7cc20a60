//! What can go wrong with the file. A start that fails tells these apart by its exit code, so each has its own variant.

use std::path::{Path, PathBuf};

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("the data folder `{}` cannot be used: {why}; make it writable or choose another", path.display())]
    Unwritable { path: PathBuf, why: String },
    #[error("the data folder `{}` is in use by {}; stop that first or choose another folder", path.display(), holder_words(*holder))]
    InUse { path: PathBuf, holder: Option<u32> },
    #[error(
        "the database `{}` was written by a newer version (form {found}, this program knows up to {known}); start that version, or put back a copy from before",
        path.display()
    )]
    Newer { path: PathBuf, found: i64, known: i64 },
    #[error(
        "the database `{}` is not there or has an older form ({found}, this program works on {known}); start `arriero serve` of this version first",
        path.display()
    )]
    Older { path: PathBuf, found: i64, known: i64 },
    #[error(
        "the database in `{}` is to be brought to another form, and a worker (`arriero worker`) still relies on the present one; stop that first",
        path.display()
    )]
    Relied { path: PathBuf },
    #[error("the database in `{}` is being brought to another form; start the worker again when that is done", path.display())]
    Changing { path: PathBuf },
    #[error("the database `{}` is damaged or not a database ({why}); move it away to start afresh, or put back a copy", path.display())]
    Corrupt { path: PathBuf, why: String },
    #[error("the disk that holds `{}` is full", path.display())]
    Full { path: PathBuf },
    #[error("the database `{}` could not be copied before bringing it to its new form: {why}", path.display())]
    Backup { path: PathBuf, why: String },
    #[error("the database `{}` could not be brought to its present form: {source}", path.display())]
    Migrate { path: PathBuf, source: sqlx::migrate::MigrateError },
    #[error("the database failed while {doing}: {source}")]
    Query { doing: &'static str, source: sqlx::Error },
}

impl Error {
    /// Sorts what SQLite says into the variants above.
    pub(super) fn from_sqlite(path: &Path, doing: &'static str, error: sqlx::Error) -> Self {
        let path_buf = || path.to_owned();
        match primary_code(&error) {
            Some(SQLITE_CORRUPT | SQLITE_NOTADB) => Self::Corrupt { path: path_buf(), why: error.to_string() },
            Some(SQLITE_FULL) => Self::Full { path: path_buf() },
            Some(SQLITE_BUSY | SQLITE_LOCKED) => Self::InUse { path: path_buf(), holder: None },
            Some(SQLITE_PERM | SQLITE_READONLY | SQLITE_CANTOPEN) => Self::Unwritable { path: path_buf(), why: error.to_string() },
            _ => Self::Query { doing, source: error },
        }
    }

    pub(super) fn from_migration(path: &Path, error: sqlx::migrate::MigrateError) -> Self {
        use sqlx::migrate::MigrateError::{Execute, ExecuteMigration};
        match error {
            Execute(source) if primary_code(&source).is_some() => match Self::from_sqlite(path, "migrating", source) {
                Self::Query { source, .. } => Self::Migrate { path: path.to_owned(), source: Execute(source) },
                sorted => sorted,
            },
            ExecuteMigration(source, _) if primary_code(&source) == Some(SQLITE_FULL) => Self::Full { path: path.to_owned() },
            source => Self::Migrate { path: path.to_owned(), source },
        }
    }
}

// From sqlite.org/rescode.html.
const SQLITE_PERM: i32 = 3;
const SQLITE_BUSY: i32 = 5;
const SQLITE_LOCKED: i32 = 6;
const SQLITE_READONLY: i32 = 8;
const SQLITE_CORRUPT: i32 = 11;
const SQLITE_FULL: i32 = 13;
const SQLITE_CANTOPEN: i32 = 14;
const SQLITE_NOTADB: i32 = 26;

/// The low byte of SQLite's extended code says what went wrong, the rest only where.
fn primary_code(error: &sqlx::Error) -> Option<i32> {
    let code: i32 = error.as_database_error()?.code()?.parse().ok()?;
    Some(code & 0xff)
}

fn holder_words(holder: Option<u32>) -> String {
    holder.map_or_else(|| "another program".to_owned(), |pid| format!("another arriero (process {pid})"))
}
