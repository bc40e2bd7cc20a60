//! `arriero bench-engine`: figures of the embedded engine for `make bench`.

use super::args::BenchEngine;
use super::exit::{Exit, Failure};

/// # Errors
/// When the file cannot be used.
pub fn run(args: &BenchEngine) -> Result<Exit, Failure> {
    Err(Failure::new(Exit::Failure, format!("{} cannot be measured", args.file.display()), ""))
}
