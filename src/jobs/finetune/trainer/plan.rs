//! What is read in which step, from where a run stands to its end.

use crate::jobs::finetune::batch::Rows;
use crate::jobs::finetune::error::{Error, Result};
use crate::jobs::finetune::options::Options;
use crate::jobs::finetune::order::{self, Cursor, Limits};

/// The rows of one step.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Planned {
    pub passes: Vec<Vec<usize>>,
    pub epoch: u64,
    pub next: Cursor,
}

/// A run of a known length over rows of known lengths.
#[derive(Debug, Clone)]
pub(super) struct Plan {
    lengths: Vec<usize>,
    limits: Limits,
    accumulation: usize,
    seed: u64,
    pub steps: u64,
    pub left_out_rows: usize,
}

impl Plan {
    /// # Errors
    /// When rows are too long, or are not there.
    pub(super) fn new(rows: &dyn Rows, options: &Options) -> Result<Self> {
        let lengths = lengths("training", rows, options)?;
        let mut plan = Self {
            lengths,
            limits: limits(options),
            accumulation: options.accumulation.max(1),
            seed: options.seed,
            steps: 0,
            left_out_rows: 0,
        };
        if plan.epoch(0).is_empty() {
            return Err(Error::Rows { set: "training", what: "none of them has two tokens or more".to_owned() });
        }
        plan.left_out_rows = plan.lengths.len() - plan.epoch(0).iter().map(Vec::len).sum::<usize>();
        let of_epoch = |epoch| plan.epoch(epoch).len().div_ceil(plan.accumulation) as u64;
        plan.steps = options.max_steps.unwrap_or_else(|| (0..u64::from(options.epochs)).map(of_epoch).sum());
        Ok(plan)
    }

    /// The steps from a place on, without end. An epoch's last step is of what is left of it.
    pub(super) fn from(self, cursor: Cursor) -> impl Iterator<Item = Planned> {
        (cursor.epoch..).flat_map(move |epoch| {
            let batches = self.epoch(epoch);
            let first = if epoch == cursor.epoch { cursor.batch } else { 0 };
            self.of_epoch(epoch, &batches, first)
        })
    }

    fn of_epoch(&self, epoch: u64, batches: &[Vec<usize>], first: usize) -> Vec<Planned> {
        let steps = batches.get(first..).unwrap_or_default().chunks(self.accumulation);
        let mut done = first;
        steps
            .map(|passes| {
                done += passes.len();
                let next = if done == batches.len() { Cursor { epoch: epoch + 1, batch: 0 } } else { Cursor { epoch, batch: done } };
                Planned { passes: passes.to_vec(), epoch, next }
            })
            .collect()
    }

    fn epoch(&self, epoch: u64) -> Vec<Vec<usize>> {
        order::epoch(&self.lengths, &self.limits, self.seed, epoch)
    }
}

/// The batches of rows that are only looked at.
///
/// # Errors
/// When rows are too long, or are not there.
pub(super) fn validation(rows: &dyn Rows, options: &Options) -> Result<Vec<Vec<usize>>> {
    let batches = order::unshuffled(&lengths("validation", rows, options)?, &limits(options));
    if batches.is_empty() {
        return Err(Error::Rows { set: "validation", what: "none of them has two tokens or more".to_owned() });
    }
    Ok(batches)
}

fn limits(options: &Options) -> Limits {
    Limits { tokens: options.batch_tokens, rows: options.batch_rows, pairs: options.method.pairs(), packing: options.packing }
}

fn lengths(set: &'static str, rows: &dyn Rows, options: &Options) -> Result<Vec<usize>> {
    let lengths: Vec<usize> = (0..rows.len()).map(|row| rows.length(row)).collect();
    let wrong = |what| Error::Rows { set, what };
    if let Some(row) = lengths.iter().position(|tokens| *tokens > options.sequence_tokens) {
        return Err(wrong(format!(
            "row {row} has {} tokens, and `sequence_tokens` is {}: cut rows before, or allow more",
            lengths[row], options.sequence_tokens
        )));
    }
    if options.method.pairs() && !lengths.len().is_multiple_of(2) {
        return Err(wrong(format!("there are {} of them, and each must have its pair", lengths.len())));
    }
    if let Some(row) = lengths.iter().position(|tokens| *tokens < 2).filter(|_| options.method.pairs()) {
        return Err(wrong(format!("row {row} has {} tokens, too few to be preferred to anything", lengths[row])));
    }
    Ok(lengths)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::jobs::finetune::batch::Row;
    use crate::jobs::finetune::options::Method;

    fn rows(lengths: &[usize]) -> Vec<Row> {
        lengths.iter().map(|tokens| Row { tokens: vec![1; *tokens], weights: vec![1.0; *tokens] }).collect()
    }

    fn options() -> Options {
        Options { sequence_tokens: 8, batch_tokens: 8, accumulation: 2, epochs: 2, ..Options::default() }
    }

    #[test]
    fn a_run_goes_on_from_any_place_as_it_would_have_gone() {
        let plan = Plan::new(&rows(&[8, 8, 8, 8, 8]), &options()).expect("fine");
        assert_eq!((plan.steps, plan.left_out_rows), (6, 0));
        assert_eq!(Plan::new(&rows(&[8, 1, 0]), &options()).expect("fine").left_out_rows, 2);
        let all: Vec<Planned> = plan.clone().from(Cursor::default()).take(7).collect();
        assert_eq!(all.iter().map(|step| step.passes.len()).collect::<Vec<_>>(), [2, 2, 1, 2, 2, 1, 2]);
        assert_eq!((all[2].epoch, all[2].next, all[3].epoch), (0, Cursor { epoch: 1, batch: 0 }, 1));
        for (made, step) in all.iter().enumerate() {
            let rest: Vec<Planned> = plan.clone().from(step.next).take(6 - made).collect();
            assert_eq!(rest, all[made + 1..]);
        }
    }

    #[test]
    fn rows_that_cannot_be_trained_on_are_refused() {
        let refused = |lengths: &[usize], options: &Options| Plan::new(&rows(lengths), options).expect_err("refused").to_string();
        assert!(refused(&[], &options()).contains("none of them"));
        assert!(refused(&[1, 0], &options()).contains("none of them"));
        assert!(refused(&[2, 9], &options()).contains("row 1 has 9 tokens"));
        let pairs = Options { method: Method::Dpo { beta: 0.1 }, batch_tokens: 16, ..options() };
        assert!(refused(&[2, 2, 2], &pairs).contains("each must have its pair"));
        assert!(refused(&[2, 1], &pairs).contains("row 1 has 1 tokens"));
        let fixed = Options { max_steps: Some(100), ..options() };
        assert_eq!(Plan::new(&rows(&[4]), &fixed).expect("fine").steps, 100);
    }
}
