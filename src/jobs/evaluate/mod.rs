//! How well a model does a task: its answers against those that were expected.
//!
//! A row of a data set ends with what is to be answered ([`Item`]): the model reads what comes before, answers greedily, and the answer is
//! held against the expected one: equal or not, how many words they share, and, where the expected answers are few different ones, how
//! well each of them is recognised. How likely the expected answer was to the model gives the perplexity.
//! Promises: the same figures on every run of the same file on the same device; the sums are exact (double precision).
//! It does not ask another model to judge.

mod item;
mod labels;
mod score;
mod words;

pub use item::Item;
pub use labels::{Label, Labels};
pub use score::{Answer, Bounds, Score};

use crate::jobs::finetune::batch::Rows;
use crate::jobs::subject::Subject;
use crate::lm;

/// Why a model could not be evaluated.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("a row of the data set cannot be read: {0}")]
    Row(#[from] std::io::Error),
    #[error("the model failed while it was run: {0}")]
    Model(#[from] lm::Error),
    #[error("no row of the data set has something to be answered")]
    Nothing,
    #[error("the evaluation was cancelled")]
    Cancelled,
}

/// Asks the model the rows one after the other. `told` hears how many are done, and says whether to go on.
///
/// # Errors
/// Rows that cannot be read, what the model says, when there is nothing to ask, and when it was cancelled.
pub fn evaluate(subject: &Subject, rows: &dyn Rows, bounds: &Bounds, told: &dyn Fn(u64, u64) -> bool) -> Result<Score, Error> {
    let items = items(rows, bounds)?;
    let of = items.len() as u64;
    let mut answers = Vec::new();
    for (done, item) in (0..).zip(&items) {
        if !told(done, of) {
            return Err(Error::Cancelled);
        }
        answers.push(Answer::of(subject, item, bounds)?);
    }
    told(of, of);
    Ok(Score::of(answers))
}

/// Of more rows than are wanted, some from everywhere.
fn items(rows: &dyn Rows, bounds: &Bounds) -> Result<Vec<Item>, Error> {
    let step = rows.len().div_ceil(bounds.max_items.max(1)).max(1);
    let mut items = Vec::new();
    for index in (0..rows.len()).step_by(step) {
        items.extend(Item::of(&rows.row(index)?));
    }
    if items.is_empty() { Err(Error::Nothing) } else { Ok(items) }
}
