//! The trainer: from parameters as they are at first to those that do best.
//!
//! Promises: a run that was stopped anywhere, or killed, goes on from its last checkpoint and ends with the same parameters to the bit, on a
//! learner that gives the same numbers twice (that of the CPU does); the loss of a step is the mean over all its passes, however they are
//! cut; numbers that are none, a loss of zero and a tensor without a gradient end the run with an error that names them.
//! It blocks, and knows nothing of what the learner is.

mod feed;
mod observer;
mod pace;
mod plan;
mod run;
mod stopping;
mod summary;
#[cfg(test)]
mod tests;

use std::path::Path;
use std::sync::mpsc;
use std::thread;

use candle_core::{Device, Tensor};

pub use observer::{Alone, Observer, Progress, Record, Step};
use summary::Length;
pub use summary::Summary;

use super::batch::Rows;
use super::checkpoint::{Best, Checkpoints, Ending, MOMENTS, Origin, PARAMETERS, State};
use super::error::{Error, Result};
use super::learner::{Learner, Tensors};
use super::optimizer::AdamW;
use super::options::{Keep, Options};
use super::order::Cursor;
use super::schedule::Schedule;
use crate::domain::clock::Clock;
use pace::Pace;
use plan::Plan;
use run::{Run, Saved};

/// What is trained on what, and how.
pub struct Training<'a> {
    pub learner: &'a dyn Learner,
    pub rows: &'a dyn Rows,
    /// What is only looked at.
    pub validation: Option<&'a dyn Rows>,
    pub options: &'a Options,
    /// The hash of both sets of rows.
    pub data: &'a str,
    /// The digest of the model that the learner has.
    pub base: &'a str,
    /// Where checkpoints lie; that of another run must not be given.
    pub folder: &'a Path,
    pub clock: &'a Clock,
}

/// What came of it.
#[derive(Debug)]
pub struct Trained {
    /// Those that are the result by [`Keep`]; where the run was stopped, those it stands at.
    pub parameters: Tensors,
    pub summary: Summary,
}

/// Trains from `parameters`, or goes on where the last checkpoint in the folder is.
///
/// # Errors
/// Options and rows that cannot be used, a folder with checkpoints of something else, whatever fails, and numbers that are none.
pub fn train(training: &Training<'_>, parameters: Tensors, observer: &mut dyn Observer) -> Result<Trained> {
    expect_usable(training)?;
    let device = parameters.values().next().map(Tensor::device).cloned().ok_or(Error::NoParameters)?;
    let plan = Plan::new(training.rows, training.options)?;
    let validation = training.validation.map(|rows| plan::validation(rows, training.options)).transpose()?.unwrap_or_default();
    let checkpoints = Checkpoints::open(training.folder)?;
    let start = Start::find(training, &checkpoints, parameters, &device)?;
    observer.begin(start.state.step, start.state.evaluations.len()).map_err(Error::Observer)?;
    let (steps, cursor) = (plan.steps, start.state.cursor);
    let length = Length { steps, left_out_rows: plan.left_out_rows };
    let mut run = Run {
        training,
        observer,
        checkpoints: &checkpoints,
        schedule: Schedule::new(training.options, steps),
        steps,
        validation,
        saved: start.name.map(|name| Saved::new(name, &start.state)),
        parameters: start.parameters,
        optimizer: start.optimizer,
        state: start.state,
        pace: Pace::new(training.clock),
    };
    let ending = fed(training, plan, cursor, &mut run)?;
    let Run { parameters, state, saved, .. } = run;
    let parameters = match better(training.options, &state, ending) {
        Some(best) => checkpoints.tensors(&best.checkpoint, PARAMETERS, &device)?,
        None => parameters,
    };
    Ok(Trained { parameters, summary: Summary::new(state, ending, length, saved.map(|saved| saved.name)) })
}

fn expect_usable(training: &Training<'_>) -> Result<()> {
    let mut problems = training.options.validate().err().unwrap_or_default();
    if training.validation.is_none() && training.options.patience.is_some() {
        problems.push("`patience` is given, and there are no validation rows to lose it with".to_owned());
    }
    if problems.is_empty() { Ok(()) } else { Err(Error::Options(problems)) }
}

/// Where a run begins.
struct Start {
    /// Of the checkpoint.
    name: Option<String>,
    parameters: Tensors,
    optimizer: AdamW,
    state: State,
}

impl Start {
    fn find(training: &Training<'_>, checkpoints: &Checkpoints, parameters: Tensors, device: &Device) -> Result<Self> {
        let Training { options, data, base, .. } = *training;
        let origin = Origin { data: data.to_owned(), base: base.to_owned(), options: options.hash() };
        let Some((name, state)) = checkpoints.last(&origin)? else {
            let optimizer = AdamW::new(options, &parameters)?;
            return Ok(Self { name: None, parameters, optimizer, state: State::new(origin) });
        };
        let saved = checkpoints.tensors(&name, PARAMETERS, device)?;
        let (found, wanted) = (shapes(&saved), shapes(&parameters));
        if found != wanted {
            return Err(checkpoints.other(&name, "parameters", found, wanted));
        }
        let mut moments = checkpoints.tensors(&name, MOMENTS, &Device::Cpu)?;
        let optimizer = AdamW::restore(options, &saved, state.step, &mut moments)?;
        Ok(Self { name: Some(name), parameters: saved, optimizer, state })
    }
}

fn shapes(tensors: &Tensors) -> String {
    tensors.iter().map(|(name, tensor)| format!("{name} {:?}", tensor.dims())).collect::<Vec<_>>().join(", ")
}

/// Runs while a thread reads ahead.
fn fed(training: &Training<'_>, plan: Plan, cursor: Cursor, run: &mut Run<'_>) -> Result<Ending> {
    let (rows, method) = (training.rows, training.options.method);
    let (into, prepared) = mpsc::sync_channel(feed::AHEAD);
    thread::scope(|scope| {
        let reading = move || feed::run(rows, method, plan.from(cursor), &into);
        thread::Builder::new().name("finetune-feed".to_owned()).spawn_scoped(scope, reading).map_err(Error::Thread)?;
        let ending = run.go(&prepared);
        // What is still being read is wanted by nobody: without this the thread would wait for ever.
        drop(prepared);
        ending
    })
}

/// Those that are the result in the place of the last.
fn better<'a>(options: &Options, state: &'a State, ending: Ending) -> Option<&'a Best> {
    let wanted = options.keep == Keep::Best && ending != Ending::Stopped;
    state.best.as_ref().filter(|best| wanted && best.step != state.step)
}
