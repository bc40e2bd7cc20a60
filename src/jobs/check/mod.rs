//! How much a quantised (or otherwise changed) model differs from the one it was made of.
//!
//! [`check`] runs both over the same text, side by side: perplexity of each, the divergence between what they expect at every token, how
//! often they expect the same token; then lets both continue prompts, tries inputs at the edges, and measures speed. What comes of it is a
//! [`Report`], which passes or fails by the [`Thresholds`] it was given.
//! Promises: every figure is exact for the logits of this engine (sums in double precision over the whole vocabulary, nothing is sampled or
//! cut off), and the same on every run; memory is that of both models and a few rows of logits, whatever the length of the text.
//! It takes what the engine of this process can run: a file of another kind is refused, and nothing is guessed about it. It blocks: call it
//! where that is allowed.

mod edges;
mod error;
mod pass;
mod prompts;
mod report;
mod row;
mod side;
mod spec;
mod speed;
mod sums;
mod text;

use std::time::Instant;

use tokio_util::sync::CancellationToken;

pub use error::Error;
pub use report::{About, Report, Verdict};
pub use side::Role;
pub use spec::{Both, Progress, Spec, Step, Thresholds, Told};
pub use sums::{Comparison, Figure};
pub use text::{BUILT_IN, Section, TextError};

/// Compares two models. `told` hears how far it is.
///
/// # Errors
/// Models that cannot be loaded or have nothing to compare, a text that cannot be used, or that it was cancelled. A model that is merely bad
/// is no error: the report says so.
pub fn check(spec: &Spec, told: Told<'_>, cancel: &CancellationToken) -> Result<Report, Error> {
    let begun = Instant::now();
    let work = Work { spec, told, cancel };
    let sections = text::read(spec.text.as_deref())?;
    let sides = side::load_both(&work)?;
    let (whole, kinds) = pass::run(&work, &sides, &sections)?;
    let prompts = prompts::run(&work, &sides)?;
    let edges = edges::run(&work, &sides, &sections)?;
    let speed = if spec.time { Some(speed::run(&work, &sides, &sections)?) } else { None };
    let about = sides.as_ref().map(side::Side::about);
    Ok(Report::new(spec, about, whole, kinds, prompts, edges, speed, begun.elapsed()))
}

/// What all parts of a check need.
#[derive(Clone, Copy)]
struct Work<'a> {
    spec: &'a Spec,
    told: Told<'a>,
    cancel: &'a CancellationToken,
}

impl Work<'_> {
    /// Tells how far it is, and looks whether it is still wanted.
    fn go_on(&self, step: Step, done: u64, of: u64) -> Result<(), Error> {
        if self.cancel.is_cancelled() {
            return Err(Error::Cancelled);
        }
        (self.told)(Progress { step, done, of });
        Ok(())
    }
}
