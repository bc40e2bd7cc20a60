//! The command line: what can be typed, and how each command ends.
//!
//! Commands that start or inspect the service go through `config` and `app`; the others are clients of a running gateway over its
//! native HTTP interface. Every failure is one line on standard error and an exit code of [`exit::Exit`].

mod answering;
mod args;
mod asking;
mod backends;
#[cfg(feature = "embedded")]
mod bench_engine;
mod bench_queue;
#[cfg(feature = "embedded")]
mod bench_training;
mod cache;
mod chat;
mod client;
mod collection;
mod convert;
mod dataset;
mod demo_model;
mod doctor;
pub mod exit;
#[cfg(feature = "embedded")]
mod finetune;
mod generate;
mod inspect;
mod jobs;
mod keys;
mod limits;
mod models;
mod queue;
mod reload;
mod serve;
mod sse;
mod terminal;
mod values;
mod version;
mod versions;
mod watching;
mod worker;

use std::process::ExitCode;

use clap::{CommandFactory, Parser};

use self::args::{Cli, Command, Config};
use self::exit::{Exit, Failure};
use crate::config::Variables;

/// Runs the program.
#[must_use]
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    match dispatch(cli.command, &Variables::of_process()) {
        Ok(exit) => exit.into(),
        Err(failure) => {
            if !failure.what.is_empty() {
                terminal::note(&format!("arriero: {failure}"));
            }
            failure.exit.into()
        }
    }
}

fn dispatch(command: Command, variables: &Variables) -> Result<Exit, Failure> {
    match command {
        Command::Serve(args) => serve::run(&args, variables),
        Command::Generate(args) => wait(generate::run(args, variables)),
        Command::Chat(args) => wait(chat::run(args, variables)),
        Command::Models(args) => wait(models::run(args, variables)),
        Command::Limits(args) => wait(limits::run(args, variables)),
        Command::Queue(args) => wait(queue::run(args, variables)),
        Command::Backends(args) => wait(backends::run(args, variables)),
        Command::Cache(args) => wait(cache::run(args, variables)),
        Command::Keys(args) => wait(keys::run(args, variables)),
        Command::Collection(args) => wait(collection::run(args, variables)),
        Command::Feedback(args) => wait(collection::feedback(args, variables)),
        Command::Convert(args) => convert::run(&args, variables),
        Command::Dataset(args) => dataset::run(&args, variables),
        #[cfg(feature = "embedded")]
        Command::Finetune(args) => finetune::run(&args, variables),
        Command::Versions(args) => versions::run(&args, variables),
        Command::Jobs(args) => wait(jobs::run(args, variables)),
        Command::Worker(args) => worker::run(&args, variables),
        Command::Doctor(args) => wait(doctor::run(&args, variables)),
        Command::Config(Config::Reload { operating }) => wait(reload::run(operating, variables)),
        Command::Config(args) => inspect::run(&args, variables),
        Command::DemoModelFolder(args) => wait(demo_model::run(&args, variables)),
        Command::Openapi => version::openapi(),
        Command::Health(args) => wait(async {
            client::Client::new(args.target.url.as_deref(), variables)?.live().await?;
            Ok(Exit::Ok)
        }),
        Command::Version => version::run(),
        Command::Completions { shell } => completions(shell),
        #[cfg(feature = "embedded")]
        Command::BenchEngine(args) => bench_engine::run(&args),
        Command::BenchQueue => bench_queue::run(),
        #[cfg(feature = "embedded")]
        Command::BenchTraining(args) => bench_training::run(&args),
    }
}

/// Runs a command that waits for others on this thread.
fn wait(command: impl Future<Output = Result<Exit, Failure>>) -> Result<Exit, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.map_err(|error| Failure::new(Exit::Failure, format!("the program cannot start: {error}"), ""))?.block_on(command)
}

fn completions(shell: clap_complete::Shell) -> Result<Exit, Failure> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "arriero", &mut script);
    terminal::print(&String::from_utf8_lossy(&script))?;
    Ok(Exit::Ok)
}

#[cfg(test)]
mod tests;
