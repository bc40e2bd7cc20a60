//! The table of what was collected: whole exchanges of those who consented, and what people said of them.
//!
//! What is deleted here is overwritten in the file ([`CollectionTable::settle`] does the same with the write-ahead log), so that what
//! somebody wants forgotten is not left behind in free space. Who consented, and to what, is decided in `collection`.

use std::borrow::Cow;

use futures_util::TryStreamExt;
use serde::{Deserialize, Serialize};
use sqlx::sqlite::SqliteRow;
use sqlx::{QueryBuilder, Row as _, Sqlite};

use super::{Error, Storage};
use crate::domain::principal::ANONYMOUS;

/// What was asked and answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exchange {
    /// May have been chosen by the client, and so need not be unique.
    pub request_id: String,
    /// Milliseconds since 1970.
    pub at_ms: i64,
    /// Public id of the key; `None` for whoever needs none.
    pub key_id: Option<String>,
    pub tenant: String,
    pub dialect: Cow<'static, str>,
    /// Canonical name of the model that answered.
    pub model: String,
    /// JSON: a list of objects with `role` and `content`.
    pub messages: String,
    /// JSON: a list, as it was asked.
    pub tools: Option<String>,
    pub answer: String,
    pub thinking: Option<String>,
    pub finish_reason: String,
    pub prompt_tokens: Option<u64>,
    pub completion_tokens: Option<u64>,
}

impl Exchange {
    /// Bytes of its texts.
    #[must_use]
    pub fn bytes(&self) -> usize {
        let maybe = |text: &Option<String>| text.as_ref().map_or(0, String::len);
        self.messages.len() + self.answer.len() + maybe(&self.tools) + maybe(&self.thinking)
    }
}

/// What somebody thinks of an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Rating {
    Good,
    Bad,
}

impl Rating {
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Good => "good",
            Self::Bad => "bad",
        }
    }
}

/// What somebody said of an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Feedback {
    pub rating: Rating,
    /// The answer that would have been right.
    pub correction: Option<String>,
    pub comment: Option<String>,
    /// Milliseconds since 1970.
    pub at_ms: i64,
}

/// A row of the table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    /// Grows from row to row, and is never given twice.
    pub id: i64,
    pub exchange: Exchange,
    pub feedback: Option<Feedback>,
}

/// Whose an exchange is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Owner {
    /// The holder of the key with this public id.
    Key(String),
    /// Someone who needed no key.
    Nobody,
}

impl Owner {
    /// By the word that stands for them: the public id of a key, or `anonymous` for those who needed none.
    #[must_use]
    pub fn named(word: &str) -> Self {
        if word == ANONYMOUS { Self::Nobody } else { Self::Key(word.to_owned()) }
    }
}

/// Whether, and how, an exchange is rated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Rated {
    Good,
    Bad,
    Unrated,
}

/// Which exchanges are meant: those for which all holds that is given.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Filter {
    pub owner: Option<Owner>,
    pub request_id: Option<String>,
    /// A canonical name.
    pub model: Option<String>,
    pub rated: Option<Rated>,
    /// Asked at this time or later, in milliseconds since 1970.
    pub since_ms: Option<i64>,
    /// Asked before this time.
    pub until_ms: Option<i64>,
}

/// How a list goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// Those before this id, or all.
    NewestFirst(Option<i64>),
    /// Those behind this id.
    OldestFirst(i64),
}

/// What became of a piece of feedback.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Told {
    Kept,
    /// There is no such exchange.
    Unknown,
    /// Exchanges of several owners have this id.
    Ambiguous,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Size {
    pub rows: u64,
    pub bytes: u64,
}

const COLUMNS: &str = "request_id, at_ms, key_id, tenant, dialect, model, messages, tools, answer, thinking, finish_reason, \
    prompt_tokens, completion_tokens, bytes";

/// Rows a statement looks at when the oldest are sought.
const ROWS_AT_ONCE: u32 = 200;

/// What was collected, in the file.
#[derive(Debug, Clone)]
pub struct CollectionTable {
    storage: Storage,
}

impl CollectionTable {
    pub(super) fn new(storage: Storage) -> Self {
        Self { storage }
    }

    /// Adds all exchanges or, on an error, none.
    pub async fn insert(&self, exchanges: &[Exchange]) -> Result<(), Error> {
        const DOING: &str = "writing what was collected";
        let mut transaction = self.storage.write_discreetly(DOING).await?;
        for exchange in exchanges {
            insertion(exchange).build().execute(&mut *transaction).await.map_err(|error| self.storage.failed(DOING, error))?;
        }
        transaction.commit().await.map_err(|error| self.storage.failed(DOING, error))
    }

    /// Notes what was said of an exchange, in the place of what was said before. Of several with this id the latest is meant.
    pub async fn rate(&self, request_id: &str, owner: Option<&Owner>, feedback: &Feedback) -> Result<Told, Error> {
        const DOING: &str = "writing feedback";
        let failed = |error| self.storage.failed(DOING, error);
        let filter = Filter { owner: owner.cloned(), request_id: Some(request_id.to_owned()), ..Filter::default() };
        let mut transaction = self.storage.write_discreetly(DOING).await?;
        let mut query = QueryBuilder::<Sqlite>::new("SELECT max(id), count(DISTINCT coalesce(key_id, '')) FROM collected WHERE ");
        condition(&mut query, &filter);
        let (latest, owners): (Option<i64>, i64) = query.build_query_as().fetch_one(&mut *transaction).await.map_err(failed)?;
        let Some(id) = latest else { return Ok(Told::Unknown) };
        if owners > 1 {
            return Ok(Told::Ambiguous);
        }
        let bytes = feedback.correction.as_ref().map_or(0, String::len) + feedback.comment.as_ref().map_or(0, String::len);
        let update = "UPDATE collected SET rating = ?, correction = ?, comment = ?, rated_at_ms = ?, feedback_bytes = ? WHERE id = ?";
        sqlx::query(update)
            .bind(feedback.rating.as_str())
            .bind(feedback.correction.clone())
            .bind(feedback.comment.clone())
            .bind(feedback.at_ms)
            .bind(length(bytes))
            .bind(id)
            .execute(&mut *transaction)
            .await
            .map_err(failed)?;
        transaction.commit().await.map_err(failed)?;
        Ok(Told::Kept)
    }

    /// At most `most` rows, and no more once they have `max_bytes`; at least one where there is one.
    pub async fn page(&self, filter: &Filter, order: Order, most: u32, max_bytes: u64) -> Result<Vec<Row>, Error> {
        let failed = |error| self.storage.failed("reading what was collected", error);
        let mut query = selection(filter, order, most);
        let mut found = query.build().try_map(|row: SqliteRow| Ok((read(&row)?, bytes(&row)?))).fetch(self.storage.readers());
        let (mut rows, mut sum) = (Vec::new(), 0_u64);
        while let Some((row, bytes)) = found.try_next().await.map_err(failed)? {
            rows.push(row);
            sum = sum.saturating_add(bytes);
            if sum >= max_bytes {
                break;
            }
        }
        Ok(rows)
    }

    pub async fn size(&self) -> Result<Size, Error> {
        let (rows, bytes): (i64, i64) = sqlx::query_as("SELECT count(*), coalesce(sum(bytes + feedback_bytes), 0) FROM collected")
            .fetch_one(self.storage.readers())
            .await
            .map_err(|error| self.storage.failed("measuring what was collected", error))?;
        Ok(Size { rows: unsigned(rows), bytes: unsigned(bytes) })
    }

    /// Deletes at most `most` exchanges; tells how many. Bounded, so that writers wait only for a moment.
    pub async fn delete(&self, filter: &Filter, most: u32) -> Result<u64, Error> {
        const DOING: &str = "forgetting what was collected";
        let mut query = QueryBuilder::<Sqlite>::new("DELETE FROM collected WHERE id IN (SELECT id FROM collected WHERE ");
        condition(&mut query, filter);
        query.push(" LIMIT ").push_bind(most).push(")");
        let mut transaction = self.storage.write_discreetly(DOING).await?;
        let deleted = query.build().execute(&mut *transaction).await.map_err(|error| self.storage.failed(DOING, error))?;
        transaction.commit().await.map_err(|error| self.storage.failed(DOING, error))?;
        Ok(deleted.rows_affected())
    }

    /// Deletes exchanges, the oldest first, until they add up to at least `bytes` or a bound on rows is reached; tells what went.
    /// Nothing only when there is nothing.
    pub async fn delete_oldest(&self, bytes: u64) -> Result<Size, Error> {
        const DOING: &str = "making room for what is collected";
        let failed = |error| self.storage.failed(DOING, error);
        let mut transaction = self.storage.write_discreetly(DOING).await?;
        let oldest: Vec<(i64, i64)> = sqlx::query_as("SELECT id, bytes + feedback_bytes FROM collected ORDER BY id LIMIT ?")
            .bind(ROWS_AT_ONCE)
            .fetch_all(&mut *transaction)
            .await
            .map_err(failed)?;
        let (mut gone, mut last) = (Size::default(), None);
        for (id, size) in oldest {
            if gone.bytes >= bytes {
                break;
            }
            last = Some(id);
            gone = Size { rows: gone.rows + 1, bytes: gone.bytes + unsigned(size) };
        }
        let query = sqlx::query("DELETE FROM collected WHERE id <= ?").bind(last);
        query.execute(&mut *transaction).await.map_err(failed)?;
        transaction.commit().await.map_err(failed)?;
        Ok(gone)
    }

    /// Brings what the write-ahead log has into the file and empties the log, so that nothing deleted is left in it. False: somebody
    /// reads or writes meanwhile, and it is to be tried again.
    pub async fn settle(&self) -> Result<bool, Error> {
        let (busy, _, _): (i64, i64, i64) = sqlx::query_as("PRAGMA wal_checkpoint(TRUNCATE)")
            .fetch_one(&self.storage.0.discreet)
            .await
            .map_err(|error| self.storage.failed("emptying the write-ahead log", error))?;
        Ok(busy == 0)
    }
}

fn insertion(exchange: &Exchange) -> QueryBuilder<Sqlite> {
    let mut query = QueryBuilder::new(format!("INSERT INTO collected ({COLUMNS}) VALUES ("));
    query
        .separated(", ")
        .push_bind(exchange.request_id.clone())
        .push_bind(exchange.at_ms)
        .push_bind(exchange.key_id.clone())
        .push_bind(exchange.tenant.clone())
        .push_bind(exchange.dialect.clone())
        .push_bind(exchange.model.clone())
        .push_bind(exchange.messages.clone())
        .push_bind(exchange.tools.clone())
        .push_bind(exchange.answer.clone())
        .push_bind(exchange.thinking.clone())
        .push_bind(exchange.finish_reason.clone())
        .push_bind(exchange.prompt_tokens.map(signed))
        .push_bind(exchange.completion_tokens.map(signed))
        .push_bind(length(exchange.bytes()));
    query.push(")");
    query
}

fn selection(filter: &Filter, order: Order, most: u32) -> QueryBuilder<Sqlite> {
    let mut query =
        QueryBuilder::new(format!("SELECT id, {COLUMNS}, rating, correction, comment, rated_at_ms, feedback_bytes FROM collected WHERE "));
    condition(&mut query, filter);
    match order {
        Order::NewestFirst(before) => {
            if let Some(before) = before {
                query.push(" AND id < ").push_bind(before);
            }
            query.push(" ORDER BY id DESC LIMIT ")
        }
        Order::OldestFirst(after) => query.push(" AND id > ").push_bind(after).push(" ORDER BY id LIMIT "),
    };
    query.push_bind(most);
    query
}

fn condition(query: &mut QueryBuilder<Sqlite>, filter: &Filter) {
    query.push("TRUE");
    match &filter.owner {
        Some(Owner::Key(id)) => _ = query.push(" AND key_id = ").push_bind(id.clone()),
        Some(Owner::Nobody) => _ = query.push(" AND key_id IS NULL"),
        None => {}
    }
    if let Some(id) = &filter.request_id {
        query.push(" AND request_id = ").push_bind(id.clone());
    }
    if let Some(model) = &filter.model {
        query.push(" AND model = ").push_bind(model.clone());
    }
    match filter.rated {
        Some(Rated::Good) => _ = query.push(" AND rating = 'good'"),
        Some(Rated::Bad) => _ = query.push(" AND rating = 'bad'"),
        Some(Rated::Unrated) => _ = query.push(" AND rating IS NULL"),
        None => {}
    }
    if let Some(since) = filter.since_ms {
        query.push(" AND at_ms >= ").push_bind(since);
    }
    if let Some(until) = filter.until_ms {
        query.push(" AND at_ms < ").push_bind(until);
    }
}

fn read(row: &SqliteRow) -> Result<Row, sqlx::Error> {
    let maybe = |column| row.try_get::<Option<i64>, _>(column).map(|value| value.map(unsigned));
    let exchange = Exchange {
        request_id: row.try_get("request_id")?,
        at_ms: row.try_get("at_ms")?,
        key_id: row.try_get("key_id")?,
        tenant: row.try_get("tenant")?,
        dialect: Cow::Owned(row.try_get("dialect")?),
        model: row.try_get("model")?,
        messages: row.try_get("messages")?,
        tools: row.try_get("tools")?,
        answer: row.try_get("answer")?,
        thinking: row.try_get("thinking")?,
        finish_reason: row.try_get("finish_reason")?,
        prompt_tokens: maybe("prompt_tokens")?,
        completion_tokens: maybe("completion_tokens")?,
    };
    Ok(Row { id: row.try_get("id")?, exchange, feedback: feedback(row)? })
}

fn feedback(row: &SqliteRow) -> Result<Option<Feedback>, sqlx::Error> {
    let rating = match row.try_get::<Option<String>, _>("rating")?.as_deref() {
        None => return Ok(None),
        Some("good") => Rating::Good,
        Some("bad") => Rating::Bad,
        Some(other) => return Err(sqlx::Error::Decode(format!("no rating is called `{other}`").into())),
    };
    let (correction, comment) = (row.try_get("correction")?, row.try_get("comment")?);
    Ok(Some(Feedback { rating, correction, comment, at_ms: row.try_get("rated_at_ms")? }))
}

fn bytes(row: &SqliteRow) -> Result<u64, sqlx::Error> {
    Ok(unsigned(row.try_get("bytes")?).saturating_add(unsigned(row.try_get("feedback_bytes")?)))
}

fn length(bytes: usize) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}

/// SQLite's integers are signed; no count here comes near their end.
fn signed(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

fn unsigned(value: i64) -> u64 {
    u64::try_from(value).unwrap_or(0)
}

#[cfg(test)]
#[path = "collection_tests.rs"]
pub(crate) mod tests;
