//! The table of the request log.

use std::borrow::Cow;

use sqlx::sqlite::SqliteRow;
use sqlx::{QueryBuilder, Row as _, Sqlite};

use super::{Error, Storage};
use crate::telemetry::Outcome;

/// One request that has ended. Never holds what was asked or answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    /// May have been chosen by the client, and so need not be unique.
    pub request_id: String,
    /// Milliseconds since 1970.
    pub started_at_ms: i64,
    /// `native`, `ollama`, `openai` or `anthropic`.
    pub dialect: Cow<'static, str>,
    pub model: Option<String>,
    pub backend: Option<String>,
    pub outcome: Outcome,
    /// What failed, as a word from a closed set.
    pub error_kind: Option<Cow<'static, str>>,
    pub streamed: bool,
    pub prompt_tokens: Option<u64>,
    pub completion_tokens: Option<u64>,
    /// How long it waited for its turn.
    pub queued_ms: Option<u64>,
    /// How long until the first token, from the start.
    pub ttft_ms: Option<u64>,
    pub total_ms: u64,
    pub prompt_bytes: u64,
    pub answer_bytes: u64,
    /// Whose share was used.
    pub tenant: Option<String>,
    /// Public id of the key; `None` for whoever needs none.
    pub key_id: Option<String>,
    /// The class in which it waited.
    pub priority: Option<Cow<'static, str>>,
    /// What the caches did: `hit`, `miss`, `joined`, … `None`: none was asked.
    pub cache: Option<Cow<'static, str>>,
    /// Tokens of the prompt that the backend had in its own cache, where it says so.
    pub cached_tokens: Option<u64>,
    /// How often a backend was asked.
    pub attempts: Option<u64>,
}

const COLUMNS: &str = "request_id, started_at_ms, dialect, model, backend, outcome, error_kind, streamed, \
    prompt_tokens, completion_tokens, queued_ms, ttft_ms, total_ms, prompt_bytes, answer_bytes, \
    tenant, key_id, priority, cache, cached_tokens, attempts";

/// Rows a statement: with 21 columns well under SQLite's 32,766 parameters, and few enough to be prepared quickly.
const ROWS_A_STATEMENT: usize = 100;

/// The request log in the file.
#[derive(Debug, Clone)]
pub struct UsageTable {
    storage: Storage,
}

impl UsageTable {
    pub(super) fn new(storage: Storage) -> Self {
        Self { storage }
    }

    /// Adds all rows or, on an error, none.
    pub async fn insert(&self, rows: &[Row]) -> Result<(), Error> {
        const DOING: &str = "writing the request log";
        let mut transaction = self.storage.write(DOING).await?;
        for some in rows.chunks(ROWS_A_STATEMENT) {
            insertion(some).build().execute(&mut *transaction).await.map_err(|error| self.storage.failed(DOING, error))?;
        }
        transaction.commit().await.map_err(|error| self.storage.failed(DOING, error))
    }

    /// How many rows there are.
    pub async fn count(&self) -> Result<u64, Error> {
        let count: i64 = sqlx::query_scalar("SELECT count(*) FROM usage")
            .fetch_one(self.storage.readers())
            .await
            .map_err(|error| self.storage.failed("counting the request log", error))?;
        Ok(unsigned(count))
    }

    /// The rows that were written last, newest first.
    pub async fn last(&self, most: u32) -> Result<Vec<Row>, Error> {
        let mut query = QueryBuilder::<Sqlite>::new(format!("SELECT {COLUMNS} FROM usage ORDER BY id DESC LIMIT "));
        query.push_bind(most);
        self.fetch(query).await
    }

    /// The rows of one request id, newest first; at most `most`.
    pub async fn of_request(&self, request_id: &str, most: u32) -> Result<Vec<Row>, Error> {
        let mut query = QueryBuilder::<Sqlite>::new(format!("SELECT {COLUMNS} FROM usage WHERE request_id = "));
        query.push_bind(request_id.to_owned()).push(" ORDER BY id DESC LIMIT ").push_bind(most);
        self.fetch(query).await
    }

    /// Deletes at most `most` rows that started before this time, oldest first; tells how many. Bounded, so that writers wait
    /// only for a moment.
    pub async fn delete_before(&self, started_at_ms: i64, most: u32) -> Result<u64, Error> {
        const DOING: &str = "pruning the request log";
        let mut transaction = self.storage.write(DOING).await?;
        let deleted =
            sqlx::query("DELETE FROM usage WHERE id IN (SELECT id FROM usage WHERE started_at_ms < ? ORDER BY started_at_ms LIMIT ?)")
                .bind(started_at_ms)
                .bind(most)
                .execute(&mut *transaction)
                .await
                .map_err(|error| self.storage.failed(DOING, error))?;
        transaction.commit().await.map_err(|error| self.storage.failed(DOING, error))?;
        Ok(deleted.rows_affected())
    }

    async fn fetch(&self, mut query: QueryBuilder<Sqlite>) -> Result<Vec<Row>, Error> {
        query
            .build()
            .try_map(|row: SqliteRow| read(&row))
            .fetch_all(self.storage.readers())
            .await
            .map_err(|error| self.storage.failed("reading the request log", error))
    }
}

fn insertion(rows: &[Row]) -> QueryBuilder<Sqlite> {
    let mut query = QueryBuilder::new(format!("INSERT INTO usage ({COLUMNS}) "));
    query.push_values(rows, |mut columns, row| {
        columns
            .push_bind(row.request_id.clone())
            .push_bind(row.started_at_ms)
            .push_bind(row.dialect.clone())
            .push_bind(row.model.clone())
            .push_bind(row.backend.clone())
            .push_bind(row.outcome.as_str())
            .push_bind(row.error_kind.clone())
            .push_bind(row.streamed)
            .push_bind(row.prompt_tokens.map(signed))
            .push_bind(row.completion_tokens.map(signed))
            .push_bind(row.queued_ms.map(signed))
            .push_bind(row.ttft_ms.map(signed))
            .push_bind(signed(row.total_ms))
            .push_bind(signed(row.prompt_bytes))
            .push_bind(signed(row.answer_bytes))
            .push_bind(row.tenant.clone())
            .push_bind(row.key_id.clone())
            .push_bind(row.priority.clone())
            .push_bind(row.cache.clone())
            .push_bind(row.cached_tokens.map(signed))
            .push_bind(row.attempts.map(signed));
    });
    query
}

fn read(row: &SqliteRow) -> Result<Row, sqlx::Error> {
    let word = |column| row.try_get::<String, _>(column).map(Cow::Owned);
    let figure = |column| row.try_get::<i64, _>(column).map(unsigned);
    let maybe = |column| row.try_get::<Option<i64>, _>(column).map(|value| value.map(unsigned));
    let outcome: String = row.try_get("outcome")?;
    Ok(Row {
        request_id: row.try_get("request_id")?,
        started_at_ms: row.try_get("started_at_ms")?,
        dialect: word("dialect")?,
        model: row.try_get("model")?,
        backend: row.try_get("backend")?,
        outcome: Outcome::from_word(&outcome).ok_or_else(|| sqlx::Error::Decode(format!("no outcome is called `{outcome}`").into()))?,
        error_kind: row.try_get::<Option<String>, _>("error_kind")?.map(Cow::Owned),
        streamed: row.try_get("streamed")?,
        prompt_tokens: maybe("prompt_tokens")?,
        completion_tokens: maybe("completion_tokens")?,
        queued_ms: maybe("queued_ms")?,
        ttft_ms: maybe("ttft_ms")?,
        total_ms: figure("total_ms")?,
        prompt_bytes: figure("prompt_bytes")?,
        answer_bytes: figure("answer_bytes")?,
        tenant: row.try_get("tenant")?,
        key_id: row.try_get("key_id")?,
        priority: row.try_get::<Option<String>, _>("priority")?.map(Cow::Owned),
        cache: row.try_get::<Option<String>, _>("cache")?.map(Cow::Owned),
        cached_tokens: maybe("cached_tokens")?,
        attempts: maybe("attempts")?,
    })
}

/// SQLite's integers are signed; no count or time here comes near their end.
fn signed(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

fn unsigned(value: i64) -> u64 {
    u64::try_from(value).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::blame::Blame;
    use crate::storage::Config;

    fn row(id: &str, started_at_ms: i64) -> Row {
        Row {
            request_id: id.to_owned(),
            started_at_ms,
            dialect: "native".into(),
            model: Some("gemma3".to_owned()),
            backend: Some("local".to_owned()),
            outcome: Outcome::Failed(Blame::Upstream),
            error_kind: Some("stalled".into()),
            streamed: true,
            prompt_tokens: Some(5),
            completion_tokens: None,
            queued_ms: Some(0),
            ttft_ms: Some(12),
            total_ms: u64::MAX,
            prompt_bytes: 100,
            answer_bytes: 0,
            tenant: Some("acme".to_owned()),
            key_id: None,
            priority: Some("normal".into()),
            cache: Some("miss".into()),
            cached_tokens: Some(3),
            attempts: Some(1),
        }
    }

    async fn open(folder: &tempfile::TempDir) -> Storage {
        Storage::open(folder.path(), &Config::default()).await.expect("opened")
    }

    #[tokio::test]
    async fn what_is_written_is_read_again_also_after_reopening() {
        let folder = tempfile::tempdir().expect("a folder");
        let storage = open(&folder).await;
        let bare =
            Row { model: None, backend: None, error_kind: None, outcome: Outcome::Ok, total_ms: 7, ..row("odd ' \" \u{0} ; DROP", -1) };
        storage.usage().insert(&[row("a", 1), bare.clone()]).await.expect("written");
        storage.close().await;
        drop(storage);

        let table = open(&folder).await.usage();
        let last = table.last(10).await.expect("read");
        assert_eq!(last, [bare, Row { total_ms: i64::MAX.unsigned_abs(), ..row("a", 1) }]);
        assert_eq!(table.last(1).await.expect("read").len(), 1);
        assert_eq!(table.of_request("a", 10).await.expect("read").len(), 1);
    }

    #[tokio::test]
    async fn batches_longer_than_a_statement_and_equal_ids_are_fine() {
        let folder = tempfile::tempdir().expect("a folder");
        let table = open(&folder).await.usage();
        table.insert(&[]).await.expect("nothing to do");
        table.insert(&vec![row("same", 1); ROWS_A_STATEMENT * 2 + 1]).await.expect("written");
        assert_eq!(table.count().await.expect("counted"), 201);
    }

    #[tokio::test]
    async fn only_rows_before_the_time_are_deleted_and_no_more_than_asked() {
        let folder = tempfile::tempdir().expect("a folder");
        let table = open(&folder).await.usage();
        table.insert(&[row("a", 10), row("b", 20), row("c", 30), row("d", 40)]).await.expect("written");
        assert_eq!(table.delete_before(40, 2).await.expect("pruned"), 2);
        assert_eq!(table.delete_before(40, 2).await.expect("pruned"), 1);
        assert_eq!(table.delete_before(40, 2).await.expect("pruned"), 0);
        assert_eq!(table.last(10).await.expect("read")[0].request_id, "d");
    }

    #[tokio::test]
    async fn a_full_disk_is_told_apart_and_nothing_is_half_written() {
        let folder = tempfile::tempdir().expect("a folder");
        let storage = open(&folder).await;
        storage.limit_pages(1).await; // no more than it has now
        let refused = storage.usage().insert(&vec![row("a", 1); 1_000]).await.expect_err("full");
        assert!(matches!(refused, Error::Full { .. }), "{refused}");
        storage.limit_pages(1_000_000).await;
        assert_eq!(storage.usage().count().await.expect("counted"), 0);
        storage.usage().insert(&[row("a", 1)]).await.expect("room again");
    }
}
