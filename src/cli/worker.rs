//! `arriero worker`: works on the jobs of a data folder; `worker run`: one attempt, as a worker's child.

use super::args::{Worker, WorkerCommand};
use super::exit::{Exit, Failure};
use super::{inspect, serve};
use crate::app::{self, End};
use crate::config::Variables;
use crate::domain::clock::Clock;
use crate::jobs;
use crate::telemetry::log;

/// # Errors
/// When the worker cannot start.
pub fn run(args: &Worker, variables: &Variables) -> Result<Exit, Failure> {
    if let Some(WorkerCommand::Run) = args.command {
        return jobs::work_as_child().map(|()| Exit::Ok).map_err(|what| Failure::new(Exit::Usage, what, ""));
    }
    let settings = &args.settings;
    let config = inspect::load(settings.config.as_deref(), variables, &settings.overrides())?.config;
    log::init(&config.log).map_err(|error| Failure::new(Exit::Configuration, error.to_string(), ""))?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let runtime = runtime.map_err(|error| Failure::new(Exit::Failure, format!("the program cannot start: {error}"), ""))?;
    match runtime.block_on(app::work(config, Clock::system())).map_err(|error| serve::failure(&error))? {
        End::InOrder => Ok(Exit::Ok),
        End::AtOnce => Ok(Exit::Interrupted),
    }
}
