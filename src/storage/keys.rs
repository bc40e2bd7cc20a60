//! The table of API keys. Of a key's secret it holds a keyed hash, and nothing from which the secret could be made.
//!
//! What [`KeyTable::put`] and [`KeyTable::delete`] have acknowledged survives a power cut. Who may do what is decided in `auth`.

use std::collections::BTreeMap;

use serde::Serialize;
use serde::de::DeserializeOwned;
use sqlx::Row as _;
use sqlx::sqlite::SqliteRow;

use super::{Error, Storage};
use crate::domain::allowance::Allowance;
use crate::domain::generation::Priority;
use crate::domain::principal::Role;

/// A keyed hash of a secret.
pub type Hash = [u8; 32];

/// What can be set about a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Terms {
    /// For people; no two keys that are not revoked share one.
    pub name: String,
    /// Whose share of the machine is used.
    pub tenant: String,
    pub role: Role,
    /// Patterns of the models that may be asked for. Empty: all.
    pub models: Vec<String>,
    pub default_priority: Priority,
    pub priority_ceiling: Priority,
    pub weight: u32,
    pub allowance: Allowance,
    /// For whoever keeps the keys; means nothing here.
    pub labels: BTreeMap<String, String>,
    /// Milliseconds since 1970.
    pub expires_at_ms: Option<i64>,
    /// Whether its holder agreed that its exchanges are collected.
    pub collect: bool,
}

/// A key, without anything secret. Times are milliseconds since 1970.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Key {
    /// Public: it is the first part of the key's text.
    pub id: String,
    pub terms: Terms,
    pub created_at_ms: i64,
    pub revoked_at_ms: Option<i64>,
    pub rotated_at_ms: Option<i64>,
    /// Written now and then, so it may be some seconds old.
    pub last_used_at_ms: Option<i64>,
}

/// A key as it is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    pub key: Key,
    pub hash: Hash,
    /// The hash before the last rotation, and until when it holds.
    pub previous: Option<(Hash, i64)>,
}

const COLUMNS: &str = "id, name, tenant, role, models, default_priority, priority_ceiling, weight, allowance, labels, hash, \
    previous_hash, previous_until_ms, created_at_ms, expires_at_ms, revoked_at_ms, rotated_at_ms, last_used_at_ms, collect";

/// The keys in the file.
#[derive(Debug, Clone)]
pub struct KeyTable {
    storage: Storage,
}

impl KeyTable {
    pub(super) fn new(storage: Storage) -> Self {
        Self { storage }
    }

    /// All keys, after every write that began before this.
    pub async fn all(&self) -> Result<Vec<Row>, Error> {
        let query = sqlx::AssertSqlSafe(format!("SELECT {COLUMNS} FROM keys ORDER BY created_at_ms, id"));
        sqlx::query(query)
            .try_map(|row: SqliteRow| read(&row))
            // Not through the readers: they could be asked before a write that nobody waits for any more is through.
            .fetch_all(&self.storage.0.writer)
            .await
            .map_err(|error| self.storage.failed("reading the keys", error))
    }

    /// Writes a key, in place of the one with its id if there is one.
    pub async fn put(&self, row: &Row) -> Result<(), Error> {
        let (key, terms) = (&row.key, &row.key.terms);
        let query = format!("INSERT OR REPLACE INTO keys ({COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)");
        let query = sqlx::query(sqlx::AssertSqlSafe(query))
            .bind(key.id.clone())
            .bind(terms.name.clone())
            .bind(terms.tenant.clone())
            .bind(terms.role.as_str())
            .bind(json(&terms.models))
            .bind(terms.default_priority.as_str())
            .bind(terms.priority_ceiling.as_str())
            .bind(terms.weight)
            .bind(json(&terms.allowance))
            .bind(json(&terms.labels))
            .bind(row.hash.to_vec())
            .bind(row.previous.map(|(hash, _)| hash.to_vec()))
            .bind(row.previous.map(|(_, until_ms)| until_ms))
            .bind(key.created_at_ms)
            .bind(terms.expires_at_ms)
            .bind(key.revoked_at_ms)
            .bind(key.rotated_at_ms)
            .bind(key.last_used_at_ms)
            .bind(terms.collect);
        self.storage.write_through("writing a key", query).await
    }

    /// Forgets a key altogether.
    pub async fn delete(&self, id: &str) -> Result<(), Error> {
        self.storage.write_through("deleting a key", sqlx::query("DELETE FROM keys WHERE id = ?").bind(id.to_owned())).await
    }

    /// Notes when keys were last used: all of them or, on an error, none.
    pub async fn touch(&self, used: &[(String, i64)]) -> Result<(), Error> {
        const DOING: &str = "noting when keys were used";
        let failed = |error| self.storage.failed(DOING, error);
        let mut transaction = self.storage.write(DOING).await?;
        for (id, at_ms) in used {
            let query = sqlx::query("UPDATE keys SET last_used_at_ms = ? WHERE id = ?").bind(*at_ms).bind(id.clone());
            query.execute(&mut *transaction).await.map_err(failed)?;
        }
        transaction.commit().await.map_err(failed)
    }
}

/// Plain data with text for keys always has a JSON form.
fn json(value: &impl Serialize) -> String {
    serde_json::to_string(value).unwrap_or_default()
}

fn read(row: &SqliteRow) -> Result<Row, sqlx::Error> {
    let terms = Terms {
        name: row.try_get("name")?,
        tenant: row.try_get("tenant")?,
        role: word(row, "role")?,
        models: parsed(row, "models")?,
        default_priority: word(row, "default_priority")?,
        priority_ceiling: word(row, "priority_ceiling")?,
        weight: row.try_get("weight")?,
        allowance: parsed(row, "allowance")?,
        labels: parsed(row, "labels")?,
        expires_at_ms: row.try_get("expires_at_ms")?,
        collect: row.try_get("collect")?,
    };
    let key = Key {
        id: row.try_get("id")?,
        terms,
        created_at_ms: row.try_get("created_at_ms")?,
        revoked_at_ms: row.try_get("revoked_at_ms")?,
        rotated_at_ms: row.try_get("rotated_at_ms")?,
        last_used_at_ms: row.try_get("last_used_at_ms")?,
    };
    let previous = row.try_get::<Option<Vec<u8>>, _>("previous_hash")?.map(hash).transpose()?;
    let until_ms: Option<i64> = row.try_get("previous_until_ms")?;
    Ok(Row { key, hash: hash(row.try_get("hash")?)?, previous: previous.zip(until_ms) })
}

fn hash(bytes: Vec<u8>) -> Result<Hash, sqlx::Error> {
    bytes.try_into().map_err(|_| sqlx::Error::Decode("a hash has 32 bytes".into()))
}

/// A column of JSON.
fn parsed<T: DeserializeOwned>(row: &SqliteRow, column: &str) -> Result<T, sqlx::Error> {
    serde_json::from_str(row.try_get(column)?).map_err(|error| sqlx::Error::Decode(Box::new(error)))
}

/// A column of words from a closed set.
fn word<T: DeserializeOwned>(row: &SqliteRow, column: &str) -> Result<T, sqlx::Error> {
    let text: String = row.try_get(column)?;
    serde_json::from_value(serde_json::Value::String(text)).map_err(|error| sqlx::Error::Decode(Box::new(error)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::Config;

    fn row(id: &str) -> Row {
        let terms = Terms {
            name: "odd ' \" ; DROP".to_owned(),
            tenant: "t".to_owned(),
            role: Role::Operator,
            models: vec!["gemma*".to_owned()],
            default_priority: Priority::Low,
            priority_ceiling: Priority::Urgent,
            weight: 7,
            allowance: Allowance { tokens_per_day: Some(9), ..Allowance::default() },
            labels: [("a".to_owned(), "ü".to_owned())].into(),
            expires_at_ms: Some(-5),
            collect: true,
        };
        let key = Key { id: id.to_owned(), terms, created_at_ms: 1, revoked_at_ms: None, rotated_at_ms: Some(2), last_used_at_ms: None };
        Row { key, hash: [255; 32], previous: Some(([0; 32], 77)) }
    }

    #[tokio::test]
    async fn what_is_written_is_read_again_also_after_reopening() {
        let folder = tempfile::tempdir().expect("a folder");
        let storage = Storage::open(folder.path(), &Config::default()).await.expect("opened");
        let keys = storage.keys();
        let bare = Row { previous: None, ..row("b") };
        for row in [&row("a"), &bare, &row("c")] {
            keys.put(row).await.expect("written");
        }
        keys.delete("c").await.expect("deleted");
        keys.touch(&[("a".to_owned(), 99), ("gone".to_owned(), 1)]).await.expect("noted");
        storage.close().await;
        drop((storage, keys));

        let keys = Storage::open(folder.path(), &Config::default()).await.expect("opened").keys();
        let mut used = row("a");
        used.key.last_used_at_ms = Some(99);
        assert_eq!(keys.all().await.expect("read"), [used.clone(), bare.clone()]);
        used.key.terms.name = "another".to_owned();
        keys.put(&used).await.expect("written in its place");
        assert_eq!(keys.all().await.expect("read"), [used, bare]);
    }

    #[tokio::test]
    async fn only_writes_of_keys_wait_for_the_disk() {
        let folder = tempfile::tempdir().expect("a folder");
        let storage = Storage::open(folder.path(), &Config::default()).await.expect("opened");
        let level = async || {
            let level: i64 = sqlx::query_scalar("PRAGMA synchronous").fetch_one(&storage.0.writer).await.expect("a level");
            level
        };
        storage.keys().put(&row("a")).await.expect("written");
        assert_eq!(level().await, 1, "back to NORMAL");
        // A trigger sees what holds while the statement runs: pragmas can be read as tables.
        sqlx::raw_sql(
            "CREATE TABLE seen (level INTEGER); CREATE TEMP TRIGGER t AFTER INSERT ON main.keys \
             BEGIN INSERT INTO seen SELECT synchronous FROM pragma_synchronous; END;",
        )
        .execute(&storage.0.writer)
        .await
        .expect("made");
        storage.keys().put(&row("b")).await.expect("written");
        let seen: i64 = sqlx::query_scalar("SELECT level FROM seen").fetch_one(&storage.0.writer).await.expect("one");
        assert_eq!(seen, 2, "FULL");
    }

    #[tokio::test]
    async fn a_full_disk_refuses_the_key_and_leaves_the_others() {
        let folder = tempfile::tempdir().expect("a folder");
        let storage = Storage::open(folder.path(), &Config::default()).await.expect("opened");
        storage.limit_pages(1).await;
        let mut large = row("a");
        large.key.terms.labels.insert("x".to_owned(), "y".repeat(100_000));
        assert!(matches!(storage.keys().put(&large).await, Err(Error::Full { .. })));
        storage.limit_pages(1_000_000).await;
        assert_eq!(storage.keys().all().await.expect("read"), []);
    }
}
