//! The prompts that are kept warm: the table of them, read once and kept in memory.
//!
//! What is to be sent when is [`warm`](super::warm)'s plan; sending is the gateway's.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use arc_swap::ArcSwap;

use super::warm::{Cause, Config, Plan, Seen};
use crate::domain::clock::Clock;
use crate::domain::id::ModelName;
use crate::storage::warm::{Put, WarmTable};
use crate::storage::{Error as StorageError, Storage};

pub use crate::storage::warm::Row;

/// Longest name of a prompt that is kept warm, in bytes.
const MAX_NAME_BYTES: usize = 128;

/// Why a prompt is not kept warm.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("a name has 1 to {MAX_NAME_BYTES} letters, digits, `-`, `_` or `.`, unlike `{0}`")]
    Name(String),
    #[error("`{0}` is no name of a model")]
    Model(String),
    #[error("the prompt has {bytes} bytes, more than the {most} that are kept warm")]
    TooLong { bytes: usize, most: usize },
    #[error("the prompt is empty: there is nothing to keep warm")]
    Empty,
    #[error("{most} prompts are kept warm already")]
    Full { most: u32 },
    #[error(transparent)]
    Storage(#[from] StorageError),
}

/// Cheap to clone.
#[derive(Clone)]
pub struct WarmSet(Arc<Inner>);

struct Inner {
    config: Config,
    table: WarmTable,
    rows: ArcSwap<Vec<Row>>,
    plan: Mutex<Plan>,
    clock: Clock,
}

impl WarmSet {
    /// # Errors
    /// When the table cannot be read.
    pub async fn open(config: Config, storage: &Storage, clock: Clock) -> Result<Self, StorageError> {
        let table = storage.warm();
        let rows = ArcSwap::from_pointee(table.list().await?);
        let plan = Mutex::new(Plan::new(config.clone()));
        Ok(Self(Arc::new(Inner { config, table, rows, plan, clock })))
    }

    #[must_use]
    pub fn rows(&self) -> Arc<Vec<Row>> {
        self.0.rows.load_full()
    }

    /// Keeps a prompt warm from now on, in the place of one of the same name. Tells whether there was none.
    ///
    /// # Errors
    /// What is wrong with it, or that there are too many.
    pub async fn put(&self, name: &str, model: &str, system: Option<String>, prompt: String) -> Result<bool, Error> {
        let config = &self.0.config;
        let fits = !name.is_empty() && name.len() <= MAX_NAME_BYTES;
        if !fits || !name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte)) {
            return Err(Error::Name(name.chars().take(MAX_NAME_BYTES).collect()));
        }
        let model = ModelName::parse(model).map_err(|_| Error::Model(model.chars().take(MAX_NAME_BYTES).collect()))?;
        let bytes = prompt.len() + system.as_ref().map_or(0, String::len);
        if bytes == 0 {
            return Err(Error::Empty);
        }
        if bytes > config.max_prompt_bytes {
            return Err(Error::TooLong { bytes, most: config.max_prompt_bytes });
        }
        let row = Row { name: name.to_owned(), model: model.to_string(), system, prompt, created_at_ms: self.0.clock.unix_ms() };
        let put = self.0.table.put(&row, config.max_prompts).await?;
        if put == Put::Full {
            return Err(Error::Full { most: config.max_prompts });
        }
        self.plan().forget(name);
        self.read_again().await?;
        Ok(put == Put::Added)
    }

    /// Tells whether there was one.
    ///
    /// # Errors
    /// When the table cannot be written.
    pub async fn remove(&self, name: &str) -> Result<bool, StorageError> {
        let removed = self.0.table.remove(name).await?;
        self.plan().forget(name);
        self.read_again().await?;
        Ok(removed)
    }

    async fn read_again(&self) -> Result<(), StorageError> {
        self.0.rows.store(Arc::new(self.0.table.list().await?));
        Ok(())
    }

    /// Whether a prompt is to be sent to a backend now. See [`Plan::due`].
    pub fn due(&self, name: &str, backend: &str, seen: Seen) -> Option<Cause> {
        self.plan().due(name, backend, seen, self.0.clock.unix_ms())
    }

    /// See [`Plan::finished`].
    pub fn finished(&self, name: &str, backend: &str, worked: bool) {
        self.plan().finished(name, backend, worked, self.0.clock.unix_ms());
    }

    fn plan(&self) -> MutexGuard<'_, Plan> {
        self.0.plan.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_is_kept_warm_survives_and_what_makes_no_sense_is_refused() {
        let folder = tempfile::tempdir().expect("a folder");
        let open = async || Storage::open(folder.path(), &crate::storage::Config::default()).await.expect("opened");
        let storage = open().await;
        let config = Config { max_prompts: 1, max_prompt_bytes: 10, ..Config::default() };
        let set = WarmSet::open(config.clone(), &storage, Clock::fake(0)).await.expect("read");
        assert!(set.put("a", "gemma3", None, "be kind".into()).await.expect("kept"));
        assert!(!set.put("a", "gemma3", Some("be".into()), "short".into()).await.expect("replaced"));
        assert!(matches!(set.put("b", "gemma3", None, "x".into()).await, Err(Error::Full { most: 1 })));
        assert!(matches!(set.put("a b", "gemma3", None, "x".into()).await, Err(Error::Name(_))));
        assert!(matches!(set.put("a", "", None, "x".into()).await, Err(Error::Model(_))));
        assert!(matches!(set.put("a", "gemma3", None, String::new()).await, Err(Error::Empty)));
        assert!(matches!(set.put("a", "gemma3", None, "x".repeat(11)).await, Err(Error::TooLong { bytes: 11, most: 10 })));
        storage.close().await;
        drop((set, storage));
        let storage = open().await;
        let set = WarmSet::open(config, &storage, Clock::fake(0)).await.expect("read");
        assert_eq!(set.rows().iter().map(|row| row.prompt.as_str()).collect::<Vec<_>>(), ["short"]);
        assert!(set.remove("a").await.expect("written"));
        assert!(!set.remove("a").await.expect("written"));
        assert!(set.rows().is_empty());
    }
}
