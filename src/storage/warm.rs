//! The table of the prompts that are kept warm.
//!
//! The only table that holds text for a model: an operator put it there to be sent again and again.

use sqlx::Row as _;
use sqlx::sqlite::SqliteRow;

use super::{Error, Storage};

/// One prompt, by its name.
#[derive(Clone, PartialEq, Eq)]
pub struct Row {
    pub name: String,
    pub model: String,
    pub system: Option<String>,
    /// What requests begin with, without the system prompt.
    pub prompt: String,
    /// Milliseconds since 1970.
    pub created_at_ms: i64,
}

impl std::fmt::Debug for Row {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Not the text: what is printed ends in logs.
        f.debug_struct("Row").field("name", &self.name).field("model", &self.model).finish_non_exhaustive()
    }
}

/// What became of a row that was to be kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Put {
    Added,
    Replaced,
    /// There are as many as there may be, and none has this name.
    Full,
}

/// The warm prompts in the file.
#[derive(Debug, Clone)]
pub struct WarmTable {
    storage: Storage,
}

impl WarmTable {
    pub(super) fn new(storage: Storage) -> Self {
        Self { storage }
    }

    /// All of them, in the order of their names.
    pub async fn list(&self) -> Result<Vec<Row>, Error> {
        sqlx::query("SELECT name, model, system, prompt, created_at_ms FROM warm ORDER BY name")
            .try_map(|row: SqliteRow| read(&row))
            .fetch_all(self.storage.readers())
            .await
            .map_err(|error| self.storage.failed("reading the warm prompts", error))
    }

    /// Keeps a prompt under its name, unless there are `most` others.
    pub async fn put(&self, row: &Row, most: u32) -> Result<Put, Error> {
        const DOING: &str = "writing a warm prompt";
        let failed = |error| self.storage.failed(DOING, error);
        let mut transaction = self.storage.write(DOING).await?;
        let counts = sqlx::query("SELECT count(*), coalesce(sum(name = ?), 0) FROM warm").bind(&row.name);
        let counts = counts.fetch_one(&mut *transaction).await.map_err(failed)?;
        let (all, same): (i64, i64) = (counts.try_get(0).map_err(failed)?, counts.try_get(1).map_err(failed)?);
        if same == 0 && all >= i64::from(most) {
            return Ok(Put::Full);
        }
        sqlx::query("INSERT OR REPLACE INTO warm (name, model, system, prompt, created_at_ms) VALUES (?, ?, ?, ?, ?)")
            .bind(&row.name)
            .bind(&row.model)
            .bind(&row.system)
            .bind(&row.prompt)
            .bind(row.created_at_ms)
            .execute(&mut *transaction)
            .await
            .map_err(failed)?;
        transaction.commit().await.map_err(failed)?;
        Ok(if same == 0 { Put::Added } else { Put::Replaced })
    }

    /// Forgets a prompt; tells whether there was one.
    pub async fn remove(&self, name: &str) -> Result<bool, Error> {
        const DOING: &str = "deleting a warm prompt";
        let failed = |error| self.storage.failed(DOING, error);
        let mut transaction = self.storage.write(DOING).await?;
        let done = sqlx::query("DELETE FROM warm WHERE name = ?").bind(name).execute(&mut *transaction).await.map_err(failed)?;
        transaction.commit().await.map_err(failed)?;
        Ok(done.rows_affected() > 0)
    }
}

fn read(row: &SqliteRow) -> Result<Row, sqlx::Error> {
    Ok(Row {
        name: row.try_get("name")?,
        model: row.try_get("model")?,
        system: row.try_get("system")?,
        prompt: row.try_get("prompt")?,
        created_at_ms: row.try_get("created_at_ms")?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::Config;

    fn row(name: &str) -> Row {
        Row { name: name.into(), model: "gemma3".into(), system: Some("be short".into()), prompt: "Q: 1 + 1?".into(), created_at_ms: 7 }
    }

    #[tokio::test]
    async fn prompts_survive_a_restart_and_are_bounded() {
        let folder = tempfile::tempdir().expect("a folder");
        let storage = Storage::open(folder.path(), &Config::default()).await.expect("opened");
        let table = storage.warm();
        assert_eq!(table.put(&row("b"), 2).await.expect("written"), Put::Added);
        assert_eq!(table.put(&row("a"), 2).await.expect("written"), Put::Added);
        assert_eq!(table.put(&row("c"), 2).await.expect("refused"), Put::Full);
        let other = Row { system: None, ..row("a") };
        assert_eq!(table.put(&other, 2).await.expect("written"), Put::Replaced);
        storage.close().await;
        drop((table, storage));

        let table = Storage::open(folder.path(), &Config::default()).await.expect("opened").warm();
        assert_eq!(table.list().await.expect("read"), [other, row("b")]);
        assert!(table.remove("a").await.expect("deleted") && !table.remove("a").await.expect("nothing to do"));
        assert_eq!(table.list().await.expect("read").len(), 1);
    }

    #[test]
    fn the_text_is_not_printed() {
        assert!(!format!("{:?}", row("a")).contains("be short"));
    }
}
