//! `arriero config`: what is configured, where it comes from, and what is wrong with it.

use super::args::Config;
use super::exit::{Exit, Failure};
use super::terminal;
use crate::config::{self, Loaded, Override, Problem, Variables};

/// # Errors
/// When the configuration does not hold.
pub fn run(args: &Config, variables: &Variables) -> Result<Exit, Failure> {
    match args {
        Config::Default => terminal::print(config::DEFAULTS)?,
        Config::Check { file } => return check(file.as_deref(), variables),
        // It asks a running gateway.
        Config::Reload { .. } => {}
        Config::Show { json, settings } => {
            let loaded = load(settings.config.as_deref(), variables, &settings.overrides())?;
            terminal::print(&if *json { format!("{:#}", config::json(&loaded)) } else { config::toml(&loaded) })?;
        }
    }
    Ok(Exit::Ok)
}

fn check(file: Option<&std::path::Path>, variables: &Variables) -> Result<Exit, Failure> {
    match config::read(file, variables, &[]) {
        Ok(_) => {
            terminal::print("The configuration holds.")?;
            Ok(Exit::Ok)
        }
        Err(problems) => {
            report(&problems);
            Ok(Exit::Failure)
        }
    }
}

/// Loads the configuration; what is wrong with it is told here, one line each.
///
/// # Errors
/// One that has nothing left to say.
pub fn load(file: Option<&std::path::Path>, variables: &Variables, flags: &[Override]) -> Result<Loaded, Failure> {
    config::read(file, variables, flags).map_err(|problems| {
        report(&problems);
        Failure::silent(Exit::Configuration)
    })
}

fn report(problems: &[Problem]) {
    for problem in problems {
        terminal::note(&format!("arriero: configuration: {problem}"));
    }
}
