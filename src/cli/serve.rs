//! `arriero serve`: from the configuration to the running service, and from its failures to exit codes.

use super::args::Serve;
use super::exit::{Exit, Failure};
use super::inspect;
use crate::config::Variables;

/// # Errors
/// When the service cannot start, or one of its parts fails.
pub fn run(args: &Serve, variables: &Variables) -> Result<Exit, Failure> {
    let settings = &args.settings;
    let _loaded = inspect::load(settings.config.as_deref(), variables, &settings.overrides())?;
    Err(Failure::new(Exit::Failure, "pending", ""))
}
