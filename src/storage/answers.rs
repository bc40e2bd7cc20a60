//! The table of kept answers.
//!
//! It holds bytes under keys of 32 bytes and knows nothing of what is in them. A batch is written whole or not at all.

use sqlx::sqlite::SqliteRow;
use sqlx::{QueryBuilder, Row as _, Sqlite};

use super::{Error, Storage};

/// One answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    pub key: [u8; 32],
    /// Canonical name of the model.
    pub model: String,
    /// Digest of the model's content, where it was known.
    pub digest: Option<String>,
    pub tenant: String,
    /// Id of the key it was asked with.
    pub key_id: Option<String>,
    /// Milliseconds since 1970.
    pub created_at_ms: i64,
    /// The same; `i64::MAX`: never.
    pub expires_at_ms: i64,
    pub answer: Vec<u8>,
}

/// What is read of one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    pub model: String,
    pub digest: Option<String>,
    pub tenant: String,
    pub created_at_ms: i64,
    pub expires_at_ms: i64,
    pub answer: Vec<u8>,
}

/// Which answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Which {
    Key([u8; 32]),
    /// Canonical name.
    Model(String),
    Tenant(String),
    /// Made by this content, under whatever name.
    Digest(String),
    /// Of the model, but made by content with none of these digests.
    OtherDigests {
        model: String,
        digests: Vec<String>,
    },
    /// Expired at this time or before.
    ExpiredAt(i64),
    All,
}

/// How many there are, and how large.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Size {
    pub rows: u64,
    pub bytes: u64,
}

/// Rows a statement looks at when the least used are sought.
const ROWS_AT_ONCE: u32 = 200;

#[derive(Debug, Clone)]
pub struct AnswerTable {
    storage: Storage,
}

impl AnswerTable {
    pub(super) fn new(storage: Storage) -> Self {
        Self { storage }
    }

    /// Writes all rows, replacing those with equal keys, and notes when others were used (key, milliseconds since 1970); on an
    /// error nothing of it.
    pub async fn write(&self, rows: &[Row], used: &[([u8; 32], i64)]) -> Result<(), Error> {
        const DOING: &str = "keeping answers";
        let mut transaction = self.storage.write(DOING).await?;
        for row in rows {
            insert(row).build().execute(&mut *transaction).await.map_err(|error| self.storage.failed(DOING, error))?;
        }
        for (key, at_ms) in used {
            sqlx::query("UPDATE answers SET used_at_ms = max(used_at_ms, ?) WHERE key = ?")
                .bind(at_ms)
                .bind(&key[..])
                .execute(&mut *transaction)
                .await
                .map_err(|error| self.storage.failed(DOING, error))?;
        }
        transaction.commit().await.map_err(|error| self.storage.failed(DOING, error))
    }

    /// The answer with this key.
    pub async fn read(&self, key: &[u8; 32]) -> Result<Option<Found>, Error> {
        sqlx::query("SELECT model, digest, tenant, created_at_ms, expires_at_ms, answer FROM answers WHERE key = ?")
            .bind(&key[..])
            .try_map(|row: SqliteRow| found(&row))
            .fetch_optional(self.storage.readers())
            .await
            .map_err(|error| self.storage.failed("reading a kept answer", error))
    }

    pub async fn size(&self) -> Result<Size, Error> {
        let (rows, bytes): (i64, i64) = sqlx::query_as("SELECT count(*), coalesce(sum(bytes), 0) FROM answers")
            .fetch_one(self.storage.readers())
            .await
            .map_err(|error| self.storage.failed("measuring the kept answers", error))?;
        Ok(Size { rows: unsigned(rows), bytes: unsigned(bytes) })
    }

    /// Deletes at most `most` answers; gives their keys. Bounded, so that writers wait only for a moment.
    pub async fn delete(&self, which: &Which, most: u32) -> Result<Vec<[u8; 32]>, Error> {
        const DOING: &str = "deleting kept answers";
        let mut query = QueryBuilder::<Sqlite>::new("DELETE FROM answers WHERE id IN (SELECT id FROM answers WHERE ");
        condition(&mut query, which);
        query.push(" LIMIT ").push_bind(most).push(") RETURNING key");
        let mut transaction = self.storage.write(DOING).await?;
        let keys: Vec<Vec<u8>> =
            query.build_query_scalar().fetch_all(&mut *transaction).await.map_err(|error| self.storage.failed(DOING, error))?;
        transaction.commit().await.map_err(|error| self.storage.failed(DOING, error))?;
        Ok(keys.into_iter().filter_map(|key| key.try_into().ok()).collect())
    }

    /// Deletes answers, the least lately used first, until their sizes add up to at least `bytes` or a bound on rows is reached;
    /// tells what went. Nothing only when there is nothing.
    pub async fn delete_least_used(&self, bytes: u64) -> Result<Size, Error> {
        const DOING: &str = "making room for answers";
        let mut transaction = self.storage.write(DOING).await?;
        let oldest: Vec<(i64, i64)> = sqlx::query_as("SELECT id, bytes FROM answers ORDER BY used_at_ms, id LIMIT ?")
            .bind(ROWS_AT_ONCE)
            .fetch_all(&mut *transaction)
            .await
            .map_err(|error| self.storage.failed(DOING, error))?;
        let mut gone = Size::default();
        for (id, size) in oldest {
            if gone.bytes >= bytes {
                break;
            }
            sqlx::query("DELETE FROM answers WHERE id = ?")
                .bind(id)
                .execute(&mut *transaction)
                .await
                .map_err(|error| self.storage.failed(DOING, error))?;
            gone = Size { rows: gone.rows + 1, bytes: gone.bytes + unsigned(size) };
        }
        transaction.commit().await.map_err(|error| self.storage.failed(DOING, error))?;
        Ok(gone)
    }
}

fn insert(row: &Row) -> QueryBuilder<Sqlite> {
    let mut query = QueryBuilder::new(
        "INSERT OR REPLACE INTO answers (key, model, digest, tenant, key_id, created_at_ms, expires_at_ms, used_at_ms, bytes, answer) VALUES (",
    );
    query
        .separated(", ")
        .push_bind(row.key.to_vec())
        .push_bind(row.model.clone())
        .push_bind(row.digest.clone())
        .push_bind(row.tenant.clone())
        .push_bind(row.key_id.clone())
        .push_bind(row.created_at_ms)
        .push_bind(row.expires_at_ms)
        .push_bind(row.created_at_ms)
        .push_bind(i64::try_from(row.answer.len()).unwrap_or(i64::MAX))
        .push_bind(row.answer.clone());
    query.push(")");
    query
}

fn condition(query: &mut QueryBuilder<Sqlite>, which: &Which) {
    match which {
        Which::Key(key) => query.push("key = ").push_bind(key.to_vec()),
        Which::Model(model) => query.push("model = ").push_bind(model.clone()),
        Which::Tenant(tenant) => query.push("tenant = ").push_bind(tenant.clone()),
        Which::Digest(digest) => query.push("digest = ").push_bind(digest.clone()),
        Which::ExpiredAt(at_ms) => query.push("expires_at_ms <= ").push_bind(*at_ms),
        Which::All => query.push("TRUE"),
        Which::OtherDigests { model, digests } => {
            query.push("model = ").push_bind(model.clone()).push(" AND (digest IS NULL OR digest NOT IN (");
            let mut list = query.separated(", ");
            for digest in digests {
                list.push_bind(digest.clone());
            }
            query.push("))")
        }
    };
}

fn found(row: &SqliteRow) -> Result<Found, sqlx::Error> {
    Ok(Found {
        model: row.try_get("model")?,
        digest: row.try_get("digest")?,
        tenant: row.try_get("tenant")?,
        created_at_ms: row.try_get("created_at_ms")?,
        expires_at_ms: row.try_get("expires_at_ms")?,
        answer: row.try_get("answer")?,
    })
}

fn unsigned(value: i64) -> u64 {
    u64::try_from(value).unwrap_or(0)
}

#[cfg(test)]
#[path = "answers_tests.rs"]
mod tests;
