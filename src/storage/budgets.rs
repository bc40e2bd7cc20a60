//! The table of budgets: what was used in the current day and month, one row for each key, each tenant and all together.

use std::borrow::Cow;

use sqlx::sqlite::SqliteRow;
use sqlx::{QueryBuilder, Row as _, Sqlite};

use super::{Error, Storage};

/// What someone used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    /// `key`, `tenant` or `global`.
    pub scope: Cow<'static, str>,
    pub name: String,
    /// Days since 1970.
    pub day: i64,
    pub day_tokens: u64,
    /// Months since the year 0.
    pub month: i64,
    pub month_tokens: u64,
}

/// Rows a statement: with 6 columns well under SQLite's 32,766 parameters.
const ROWS_A_STATEMENT: usize = 200;

#[derive(Debug, Clone)]
pub struct BudgetsTable {
    storage: Storage,
}

impl BudgetsTable {
    pub(super) fn new(storage: Storage) -> Self {
        Self { storage }
    }

    /// Puts these in the place of what was there for the same names: all or, on an error, none.
    pub async fn save(&self, rows: &[Row]) -> Result<(), Error> {
        const DOING: &str = "writing budgets";
        let mut transaction = self.storage.write(DOING).await?;
        for some in rows.chunks(ROWS_A_STATEMENT) {
            replacement(some).build().execute(&mut *transaction).await.map_err(|error| self.storage.failed(DOING, error))?;
        }
        transaction.commit().await.map_err(|error| self.storage.failed(DOING, error))
    }

    /// What was saved, the latest months first; at most so many.
    pub async fn load(&self, most: usize) -> Result<Vec<Row>, Error> {
        sqlx::query("SELECT scope, name, day, day_tokens, month, month_tokens FROM budgets ORDER BY month DESC, month_tokens DESC LIMIT ?")
            .bind(i64::try_from(most).unwrap_or(i64::MAX))
            .try_map(|row: SqliteRow| read(&row))
            .fetch_all(self.storage.readers())
            .await
            .map_err(|error| self.storage.failed("reading budgets", error))
    }

    /// Deletes what belongs to months before this one; tells how many rows.
    pub async fn delete_before(&self, month: i64) -> Result<u64, Error> {
        const DOING: &str = "pruning budgets";
        let mut transaction = self.storage.write(DOING).await?;
        let deleted = sqlx::query("DELETE FROM budgets WHERE month < ?")
            .bind(month)
            .execute(&mut *transaction)
            .await
            .map_err(|error| self.storage.failed(DOING, error))?;
        transaction.commit().await.map_err(|error| self.storage.failed(DOING, error))?;
        Ok(deleted.rows_affected())
    }
}

fn replacement(rows: &[Row]) -> QueryBuilder<Sqlite> {
    let mut query = QueryBuilder::new("INSERT OR REPLACE INTO budgets (scope, name, day, day_tokens, month, month_tokens) ");
    query.push_values(rows, |mut columns, row| {
        columns
            .push_bind(row.scope.clone())
            .push_bind(row.name.clone())
            .push_bind(row.day)
            .push_bind(i64::try_from(row.day_tokens).unwrap_or(i64::MAX))
            .push_bind(row.month)
            .push_bind(i64::try_from(row.month_tokens).unwrap_or(i64::MAX));
    });
    query
}

fn read(row: &SqliteRow) -> Result<Row, sqlx::Error> {
    let tokens = |column| row.try_get::<i64, _>(column).map(|tokens| u64::try_from(tokens).unwrap_or(0));
    Ok(Row {
        scope: row.try_get::<String, _>("scope")?.into(),
        name: row.try_get("name")?,
        day: row.try_get("day")?,
        day_tokens: tokens("day_tokens")?,
        month: row.try_get("month")?,
        month_tokens: tokens("month_tokens")?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::Config;

    fn row(name: &str, month: i64, tokens: u64) -> Row {
        Row { scope: "key".into(), name: name.to_owned(), day: 20_000, day_tokens: tokens, month, month_tokens: tokens }
    }

    #[tokio::test]
    async fn the_last_word_counts_and_survives_reopening() {
        let folder = tempfile::tempdir().expect("a folder");
        let storage = Storage::open(folder.path(), &Config::default()).await.expect("opened");
        let many: Vec<Row> = (0..500).map(|n| row(&format!("k{n}"), 24_300, 1)).collect();
        storage.budgets().save(&many).await.expect("written");
        storage.budgets().save(&[row("k7", 24_301, u64::MAX), row("' \u{0} ; DROP", 24_302, 3)]).await.expect("written");
        storage.close().await;
        drop(storage);

        let table = Storage::open(folder.path(), &Config::default()).await.expect("opened").budgets();
        let first = [row("' \u{0} ; DROP", 24_302, 3), row("k7", 24_301, i64::MAX.unsigned_abs())];
        assert_eq!(table.load(2).await.expect("read"), first);
        assert_eq!(table.load(usize::MAX).await.expect("read").len(), 501);
        assert_eq!(table.delete_before(24_301).await.expect("pruned"), 499);
        assert_eq!(table.load(10).await.expect("read"), first);
    }
}
