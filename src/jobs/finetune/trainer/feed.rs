//! The batches of every step, read by a thread of their own while the step before them is made.

use std::sync::mpsc::SyncSender;

use super::plan::Planned;
use crate::jobs::finetune::batch::{Batch, Rows};
use crate::jobs::finetune::error::{Error, Result};
use crate::jobs::finetune::objective;
use crate::jobs::finetune::options::Method;
use crate::jobs::finetune::order::Cursor;

/// Steps that are read ahead.
pub(super) const AHEAD: usize = 2;

/// Everything that is read in one step of the optimiser.
#[derive(Debug)]
pub(super) struct Prepared {
    pub passes: Vec<Loaded>,
    /// What they count together in the mean.
    pub weight: f64,
    pub epoch: u64,
    /// What comes after it.
    pub next: Cursor,
}

impl Prepared {
    pub(super) fn rows(&self) -> Vec<usize> {
        self.passes.iter().flat_map(|pass| pass.rows.iter().copied()).collect()
    }
}

/// A batch and the rows it was made of.
#[derive(Debug)]
pub(super) struct Loaded {
    pub batch: Batch,
    pub rows: Vec<usize>,
}

/// Reads what is planned until nobody takes it any more, or something cannot be read.
pub(super) fn run(rows: &dyn Rows, method: Method, planned: impl Iterator<Item = Planned>, into: &SyncSender<Result<Prepared>>) {
    for step in planned {
        let prepared = prepare(rows, method, step);
        let failed = prepared.is_err();
        if into.send(prepared).is_err() || failed {
            return;
        }
    }
}

fn prepare(rows: &dyn Rows, method: Method, step: Planned) -> Result<Prepared> {
    let passes = step.passes.into_iter().map(|indices| load(rows, indices)).collect::<Result<Vec<_>>>()?;
    let weight = passes.iter().map(|loaded| objective::weight(method, &loaded.batch)).sum();
    Ok(Prepared { passes, weight, epoch: step.epoch, next: step.next })
}

pub(super) fn load(rows: &dyn Rows, indices: Vec<usize>) -> Result<Loaded> {
    let mut batch = Batch::default();
    for row in &indices {
        batch.push(&rows.row(*row).map_err(|source| Error::Row { row: *row, source })?);
    }
    Ok(Loaded { batch, rows: indices })
}
