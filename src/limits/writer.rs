//! Keeps budgets across restarts.
//!
//! What was settled is written in batches, a moment later: a process that is killed forgets at most what was settled within one
//! interval. While the database cannot be written nothing is lost, because whole budgets are written and not differences: the
//! next attempt writes what is true then.

use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use super::Limits;
use super::book::Id;
use super::budget::Saved;
use super::refusal::Scope;
use crate::storage::budgets::{BudgetsTable, Row};

/// Attempts at the end, when there is no later.
const FINAL_ATTEMPTS: u32 = 2;

/// Brings budgets to the database while [`BudgetWriter::run`] is polled.
#[derive(Debug)]
pub struct BudgetWriter {
    limits: Limits,
    table: BudgetsTable,
    /// Whether the last attempt failed, so that a lasting trouble is told once.
    is_failing: bool,
}

impl BudgetWriter {
    pub(super) fn new(limits: Limits, table: BudgetsTable) -> Self {
        Self { limits, table, is_failing: false }
    }

    /// Writes until cancelled, then writes what is left and returns.
    pub async fn run(mut self, cancel: CancellationToken) {
        let mut every = self.limits.inner().flush_interval();
        let mut ticks = interval(every);
        loop {
            ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
            tokio::select! {
                biased;
                () = cancel.cancelled() => break,
                _ = ticks.tick() => self.flush().await,
            }
            let wanted = self.limits.inner().flush_interval();
            if wanted != every {
                every = wanted;
                ticks = interval(every);
            }
        }
        for _ in 0..FINAL_ATTEMPTS {
            self.flush().await;
        }
    }

    async fn flush(&mut self) {
        let inner = self.limits.inner();
        let unsaved = {
            let mut book = inner.book();
            inner.metrics.limit_debt(book.debt(inner.now()));
            book.take_unsaved()
        };
        if unsaved.is_empty() {
            return;
        }
        let rows: Vec<Row> = unsaved.iter().map(row).collect();
        match self.table.save(&rows).await {
            Ok(()) if self.is_failing => tracing::info!("budgets can be written again"),
            Ok(()) => {}
            Err(error) => {
                inner.book().unsaved_after_all(unsaved);
                inner.metrics.limit_budgets_not_written();
                if !self.is_failing {
                    tracing::error!(%error, rows = rows.len(), "budgets cannot be written; they are kept in memory and tried again");
                }
                self.is_failing = true;
                return;
            }
        }
        self.is_failing = false;
    }
}

fn row((id, saved): &(Id, Saved)) -> Row {
    let Saved { day, day_tokens, month, month_tokens } = *saved;
    Row { scope: id.0.as_str().into(), name: id.1.to_string(), day, day_tokens, month, month_tokens }
}

/// What a row means; `None` for one that a later version wrote.
pub(super) fn from_row(row: Row) -> Option<(Id, Saved)> {
    let scope = [Scope::Key, Scope::Tenant, Scope::Global].into_iter().find(|scope| scope.as_str() == row.scope)?;
    let Row { name, day, day_tokens, month, month_tokens, .. } = row;
    Some(((scope, name.into()), Saved { day, day_tokens, month, month_tokens }))
}
