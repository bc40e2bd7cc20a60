use super::*;
use crate::storage::MIGRATOR;
use sqlx::SqlSafeStr;
use sqlx::migrate::{Migration, MigrationType};
use tempfile::TempDir;

fn folder() -> TempDir {
    tempfile::tempdir().expect("a folder")
}

async fn reopened(folder: &TempDir) -> Result<Storage, Error> {
    Storage::open(folder.path(), &Config::default()).await
}

/// The real migrations and one more.
fn with_one_more(sql: &'static str) -> Migrator {
    let mut migrations: Vec<_> = MIGRATOR.iter().cloned().collect();
    migrations.push(Migration::new(9_000, "later".into(), MigrationType::Simple, sql.into_sql_str(), false));
    Migrator::with_migrations(migrations)
}

async fn text(storage: &Storage, sql: &'static str) -> String {
    sqlx::query_scalar(sql).fetch_one(&storage.0.writer).await.expect("a pragma")
}

async fn number(pool: &SqlitePool, sql: &'static str) -> i64 {
    sqlx::query_scalar(sql).fetch_one(pool).await.expect("a number")
}

#[test]
fn every_migration_file_is_in_the_binary() {
    // The macro is not run again for a new file alone; then this turns red.
    let files = std::fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/migrations")).expect("the folder").count();
    assert_eq!(MIGRATOR.iter().count(), files);
}

#[tokio::test]
async fn a_new_folder_gets_a_file_with_the_promised_settings() {
    let folder = folder();
    let data_dir = folder.path().join("deep/down");
    let storage = Storage::open(&data_dir, &Config::default()).await.expect("opened");
    assert_eq!(storage.path(), data_dir.join(FILE_NAME));
    assert_eq!(text(&storage, "PRAGMA journal_mode").await, "wal");
    assert_eq!(number(&storage.0.writer, "PRAGMA foreign_keys").await, 1);
    assert_eq!(number(&storage.0.writer, "PRAGMA synchronous").await, 1);
    assert_eq!(number(&storage.0.writer, "PRAGMA busy_timeout").await, 5_000);
    let refused = sqlx::query("DELETE FROM usage").execute(storage.readers()).await;
    assert!(refused.is_err(), "readers must not write");
}

#[tokio::test]
async fn a_second_process_is_refused_until_the_first_is_gone() {
    let folder = folder();
    let first = reopened(&folder).await.expect("opened");
    let refused = reopened(&folder).await.expect_err("in use");
    assert!(matches!(refused, Error::InUse { .. }), "{refused}");
    assert!(refused.to_string().contains(&std::process::id().to_string()), "{refused}");
    first.close().await;
    drop(first);
    reopened(&folder).await.expect("free again");
}

#[tokio::test]
async fn a_folder_that_cannot_be_made_is_named() {
    let folder = folder();
    let file = folder.path().join("file");
    std::fs::write(&file, "in the way").expect("written");
    let refused = Storage::open(&file.join("data"), &Config::default()).await.expect_err("no folder");
    assert!(matches!(refused, Error::Unwritable { .. }), "{refused}");
    assert!(refused.to_string().contains("choose another"), "{refused}");
}

#[tokio::test]
async fn a_file_that_is_no_database_is_refused_and_left_alone() {
    let folder = folder();
    let path = folder.path().join(FILE_NAME);
    let garbage = b"this is not a database, whatever its name says ".repeat(200);
    std::fs::write(&path, &garbage).expect("written");
    let refused = reopened(&folder).await.expect_err("garbage");
    assert!(matches!(refused, Error::Corrupt { .. }), "{refused}");
    assert!(std::fs::read(&path).expect("still there") == garbage, "not a byte may change");
}

#[tokio::test]
async fn damage_inside_the_file_is_found_at_start() {
    let folder = folder();
    let storage = reopened(&folder).await.expect("opened");
    storage.close().await;
    drop(storage);
    let path = folder.path().join(FILE_NAME);
    let mut bytes = std::fs::read(&path).expect("the file");
    assert!(bytes.len() > 8_192, "at least three pages");
    bytes[4_096..8_192].fill(0xA5); // the whole second page; the header stays good
    std::fs::write(&path, bytes).expect("written");
    let refused = reopened(&folder).await.expect_err("damaged");
    assert!(matches!(refused, Error::Corrupt { .. }), "{refused}");
}

#[tokio::test]
async fn a_file_from_a_newer_version_is_refused_and_left_alone() {
    let folder = folder();
    let newer = with_one_more("CREATE TABLE later (id INTEGER PRIMARY KEY) STRICT");
    let storage = open(folder.path(), &Config::default(), &newer).await.expect("opened by the newer version");
    storage.close().await;
    drop(storage);
    let before = std::fs::read(folder.path().join(FILE_NAME)).expect("the file");
    let refused = reopened(&folder).await.expect_err("too new");
    assert!(matches!(refused, Error::Newer { found: 9_000, .. }), "{refused}");
    assert!(std::fs::read(folder.path().join(FILE_NAME)).expect("the file") == before, "not a byte may change");
}

#[tokio::test]
async fn an_older_file_is_copied_before_it_is_changed() {
    let folder = folder();
    reopened(&folder).await.expect("opened").close().await;
    let newer = with_one_more("CREATE TABLE later (id INTEGER PRIMARY KEY) STRICT");
    let storage = open(folder.path(), &Config::default(), &newer).await.expect("migrated");
    assert_eq!(number(&storage.0.writer, "SELECT count(*) FROM later").await, 0);

    let old_form = MIGRATOR.iter().map(|m| m.version).max().expect("one");
    let copy = folder.path().join(format!("{FILE_NAME}.form-{old_form}.bak"));
    let copy = connect(&copy, SqliteConnectOptions::new().filename(&copy).read_only(true), 1).await.expect("a database");
    assert_eq!(number(&copy, "SELECT count(*) FROM sqlite_schema WHERE name = 'usage'").await, 1);
    assert_eq!(number(&copy, "SELECT count(*) FROM sqlite_schema WHERE name = 'later'").await, 0);
}

#[tokio::test]
async fn a_migration_that_fails_changes_nothing_and_can_be_tried_again() {
    let folder = folder();
    reopened(&folder).await.expect("opened").close().await;
    for _ in 0..2 {
        let broken = with_one_more("CREATE TABLE later (id INTEGER PRIMARY KEY) STRICT; SELECT nonsense FROM nowhere");
        let refused = open(folder.path(), &Config::default(), &broken).await.expect_err("broken");
        assert!(matches!(refused, Error::Migrate { .. }), "{refused}");
    }
    let storage = reopened(&folder).await.expect("as before");
    assert_eq!(number(&storage.0.writer, "SELECT count(*) FROM sqlite_schema WHERE name = 'later'").await, 0);
}

#[tokio::test]
async fn a_new_file_is_not_copied_and_one_in_its_present_form_neither() {
    let folder = folder();
    for _ in 0..2 {
        let storage = reopened(&folder).await.expect("opened");
        storage.close().await;
        drop(storage);
    }
    let copies =
        std::fs::read_dir(folder.path()).expect("the folder").flatten().filter(|e| e.file_name().to_string_lossy().ends_with(".bak"));
    assert_eq!(copies.count(), 0);
}

#[tokio::test]
async fn what_was_written_before_a_crash_is_there_after_it() {
    let folder = folder();
    let storage = reopened(&folder).await.expect("opened");
    sqlx::query("INSERT INTO usage (request_id, started_at_ms, dialect, outcome, streamed, total_ms, prompt_bytes, answer_bytes) VALUES ('a', 1, 'native', 'ok', 0, 1, 1, 1)")
        .execute(&storage.0.writer)
        .await
        .expect("written");
    // What a killed process leaves: the file and its log, never folded together.
    let crashed = tempfile::tempdir().expect("a folder");
    for name in [FILE_NAME.to_owned(), format!("{FILE_NAME}-wal")] {
        std::fs::copy(folder.path().join(&name), crashed.path().join(&name)).expect("copied");
    }
    let storage = reopened(&crashed).await.expect("opened after the crash");
    assert_eq!(storage.usage().count().await.expect("counted"), 1);
}

#[tokio::test]
async fn a_transaction_holds_the_write_lock_before_its_first_statement_and_readers_do_not_wait() {
    let folder = folder();
    let storage = reopened(&folder).await.expect("opened");
    let transaction = storage.write("testing").await.expect("begun");
    let path = storage.path();
    let impatient = options(path, &Config { busy_timeout: Duration::ZERO, ..Config::default() });
    let mut other = impatient.connect().await.expect("connected");
    let refused = sqlx::query("BEGIN IMMEDIATE").execute(&mut other).await.expect_err("taken");
    assert!(matches!(Error::from_sqlite(path, "testing", refused), Error::InUse { holder: None, .. }));
    assert_eq!(storage.usage().count().await.expect("counted meanwhile"), 0);
    drop(transaction);
}
