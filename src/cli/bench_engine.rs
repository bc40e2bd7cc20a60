//! `arriero bench-engine`: figures of the embedded engine as JSON, for `make bench`.

use super::args::BenchEngine;
use super::exit::{Exit, Failure};
use super::terminal;
use crate::lm;

/// Prints one JSON object (see [`lm::Measurement`]).
///
/// # Errors
/// When the file cannot be used.
pub fn run(args: &BenchEngine) -> Result<Exit, Failure> {
    let measured = lm::measure(&args.file, Some(args.threads));
    let measured = measured.map_err(|error| Failure::new(Exit::ModelFile, error.to_string(), "give a GGUF file of a supported model"))?;
    let line = serde_json::to_string(&measured).map_err(|error| Failure::new(Exit::Failure, error.to_string(), ""))?;
    terminal::print(&line)?;
    Ok(Exit::Ok)
}
