//! Forgetting old rows.

use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::Config;
use crate::domain::clock::Clock;
use crate::storage::usage::UsageTable;
use crate::storage::{Error, Storage};

/// Rows deleted at once: few enough that the writer, who waits meanwhile, does not fall behind.
const ROWS_AT_ONCE: u32 = 2_000;

/// Deletes rows that are older than the configuration keeps them.
#[derive(Debug)]
pub struct Retention {
    table: UsageTable,
    clock: Clock,
    keep: Option<Duration>,
    interval: Duration,
}

impl Retention {
    #[must_use]
    pub fn new(config: &Config, storage: &Storage, clock: Clock) -> Self {
        // An interval of nothing would be a loop that never rests.
        Self { table: storage.usage(), clock, keep: config.keep, interval: config.prune_interval.max(Duration::from_secs(1)) }
    }

    /// Deletes what is too old now; tells how many rows that were.
    pub async fn prune(&self) -> Result<u64, Error> {
        let Some(oldest) = self.keep.map(|keep| oldest_kept(self.clock.unix_ms(), keep)) else { return Ok(0) };
        let mut deleted = 0;
        loop {
            let some = self.table.delete_before(oldest, ROWS_AT_ONCE).await?;
            deleted += some;
            if some < u64::from(ROWS_AT_ONCE) {
                return Ok(deleted);
            }
            tokio::task::yield_now().await;
        }
    }

    /// Prunes now and then until cancelled.
    pub async fn run(self, cancel: CancellationToken) {
        loop {
            match self.prune().await {
                Ok(0) => {}
                Ok(rows) => tracing::info!(rows, "deleted old rows of the request log"),
                Err(error) => tracing::warn!(%error, "old rows of the request log could not be deleted"),
            }
            tokio::select! {
                () = cancel.cancelled() => return,
                () = tokio::time::sleep(self.interval) => {}
            }
        }
    }
}

fn oldest_kept(now_ms: i64, keep: Duration) -> i64 {
    now_ms.saturating_sub(i64::try_from(keep.as_millis()).unwrap_or(i64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::usage::testing::{row, storage};

    #[tokio::test]
    async fn rows_go_when_they_are_older_than_kept_and_not_before() {
        let (_folder, storage) = storage().await;
        let hour_ms = 3_600_000;
        storage.usage().insert(&[row("a", 0), row("b", hour_ms)]).await.expect("written");
        let clock = Clock::fake(hour_ms);
        let config = Config { keep: Some(Duration::from_hours(1)), ..Config::default() };
        let retention = Retention::new(&config, &storage, clock.clone());
        assert_eq!(retention.prune().await.expect("pruned"), 0, "exactly as old as kept");
        clock.advance(Duration::from_millis(1));
        assert_eq!(retention.prune().await.expect("pruned"), 1);
        assert_eq!(storage.usage().last(9).await.expect("read")[0].request_id, "b");
    }

    #[tokio::test]
    async fn many_old_rows_go_in_several_steps_and_none_when_all_are_kept() {
        let (_folder, storage) = storage().await;
        storage.usage().insert(&vec![row("a", 0); ROWS_AT_ONCE as usize + 1]).await.expect("written");
        let keep_all = Config { keep: None, ..Config::default() };
        let clock = Clock::fake(i64::MAX);
        assert_eq!(Retention::new(&keep_all, &storage, clock.clone()).prune().await.expect("pruned"), 0);
        let retention = Retention::new(&Config::default(), &storage, clock);
        assert_eq!(retention.prune().await.expect("pruned"), u64::from(ROWS_AT_ONCE) + 1);
    }

    #[tokio::test]
    async fn it_ends_when_cancelled() {
        let (_folder, storage) = storage().await;
        let cancel = CancellationToken::new();
        cancel.cancel();
        Retention::new(&Config::default(), &storage, Clock::fake(0)).run(cancel).await;
    }
}
