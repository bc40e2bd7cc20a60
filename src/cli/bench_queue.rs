//! `arriero bench-queue`: what a decision of the queue costs, as JSON, for `make bench`.

use super::exit::{Exit, Failure};
use super::terminal;
use crate::scheduler;

/// Requests that wait while it is measured.
const WAITING: [usize; 3] = [100, 1_000, 10_000];

/// Prints a list of [`scheduler::Measurement`].
///
/// # Errors
/// When it cannot be written.
pub fn run() -> Result<Exit, Failure> {
    let measured = WAITING.map(scheduler::measure);
    let line = serde_json::to_string(&measured).map_err(|error| Failure::new(Exit::Failure, error.to_string(), ""))?;
    terminal::print(&line)?;
    Ok(Exit::Ok)
}
