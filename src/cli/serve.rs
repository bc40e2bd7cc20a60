//! `arriero serve`: from the configuration to the running service, and from its failures to exit codes.

use std::sync::Arc;

use super::args::Serve;
use super::exit::{Exit, Failure};
use super::{inspect, terminal};
use crate::app::{self, End, Signals, Source};
#[cfg(feature = "embedded")]
use crate::backends::embedded;
use crate::config::{self, Config, Variables};
use crate::domain::clock::Clock;
use crate::telemetry::log;

/// # Errors
/// When the service cannot start, or one of its parts fails.
pub fn run(args: &Serve, variables: &Variables) -> Result<Exit, Failure> {
    let settings = &args.settings;
    let config = inspect::load(settings.config.as_deref(), variables, &settings.overrides())?.config;
    log::init(&config.log).map_err(|error| Failure::new(Exit::Configuration, error.to_string(), ""))?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let runtime = runtime.map_err(|error| Failure::new(Exit::Failure, format!("the program cannot start: {error}"), ""))?;
    let (named, again, overrides) = (settings.config.clone(), variables.clone(), settings.overrides());
    let source: Source = Arc::new(move || {
        let loaded = config::read(named.as_deref(), &again, &overrides);
        loaded.map(|loaded| loaded.config).map_err(|problems| problems.iter().map(ToString::to_string).collect())
    });
    let end = runtime.block_on(serve(config, source));
    // A model that is still being read must not hold up the end.
    runtime.shutdown_background();
    match end.map_err(|error| failure(&error))? {
        Some(End::InOrder) => Ok(Exit::Ok),
        Some(End::AtOnce) | None => Ok(Exit::Interrupted),
    }
}

/// `None`: stopped before it had started.
async fn serve(config: Config, source: Source) -> Result<Option<End>, app::Error> {
    let mut signals = Signals::listen()?;
    let app = tokio::select! {
        app = app::start_from(config, source, Clock::system()) => app?,
        () = signals.next() => return Ok(None),
    };
    // The service does not depend on anybody reading this.
    let _ = terminal::print(&app.summary().to_string());
    app.run(signals).await.map(Some)
}

pub fn failure(error: &app::Error) -> Failure {
    Failure::new(exit(error), error.to_string(), "")
}

fn exit(error: &app::Error) -> Exit {
    match error {
        app::Error::PublicBind { .. } | app::Error::PublicIdentity { .. } => Exit::PublicAddress,
        app::Error::AddressInUse { .. } | app::Error::Bind { .. } => Exit::Address,
        app::Error::Storage(_) | app::Error::Keys(_) => Exit::DataDir,
        app::Error::Ollama { .. } | app::Error::SameName { .. } | app::Error::Routing { .. } => Exit::Configuration,
        app::Error::NoBackend { .. } => Exit::Upstream,
        #[cfg(feature = "embedded")]
        app::Error::Embedded(error) => match error {
            embedded::LoadError::Memory { .. } => Exit::Memory,
            embedded::LoadError::Device(_) | embedded::LoadError::Thread(_) => Exit::Failure,
            _ => Exit::ModelFile,
        },
        app::Error::Jobs(_) => Exit::DataDir,
        app::Error::Task(_) | app::Error::Signals(_) | app::Error::Program(_) => Exit::Failure,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_not_to_start_have_their_own_codes_and_one_line() {
        let address = std::net::SocketAddr::from(([127, 0, 0, 1], 1));
        for (error, code) in [
            (app::Error::PublicBind { address }, Exit::PublicAddress),
            (app::Error::AddressInUse { address }, Exit::Address),
            (app::Error::SameName { name: "x".into() }, Exit::Configuration),
            (app::Error::NoBackend { reasons: vec!["x".into()] }, Exit::Upstream),
        ] {
            let failure = failure(&error);
            assert_eq!(failure.exit, code);
            assert_eq!(failure.to_string().lines().count(), 1, "{failure}");
        }
    }
}
