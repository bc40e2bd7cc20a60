//! What kinds of jobs do alike that take a model from somewhere and bring one to somewhere.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use super::installed;
use super::steps::{self, Delivered, Shipment, Watcher};
use super::wish::{Named, Publishing, Wrong};
use crate::gguf::file_type::FileType;
use crate::jobs::kind::{Fault, Ground};
use crate::jobs::worker::{Context, Reporter};
use crate::jobs::{convert, download};

/// Where a source lies; `fetched`: where it is if it came from the Hub. `resolve` finds a path that a client names.
///
/// # Errors
/// Those of `resolve`, and a tag that the Ollama of this machine does not have.
pub fn located(
    source: &str,
    ground: &Ground,
    fetched: Option<PathBuf>,
    resolve: impl Fn(&str) -> Result<PathBuf, Fault>,
) -> Result<PathBuf, Fault> {
    match (fetched, Named::of(source)) {
        (Some(fetched), _) => Ok(fetched),
        (None, Named::Ollama(tag)) => installed::weights(&ground.installed, tag).map_err(|error| Fault::Input(error.to_string())),
        (None, Named::Path(path) | Named::Hub(path)) => resolve(path),
    }
}

/// Publishes a file of a job, as one of several of the same source or not.
///
/// # Errors
/// What no server takes, and servers that fail.
pub fn publish(
    context: &Context,
    publishing: &Publishing,
    (path, sha256): (&Path, &str),
    (kind, several): (FileType, bool),
    lineage: &Value,
    reporter: &Reporter,
) -> Result<Vec<Value>, Fault> {
    let ground = context.ground();
    let manifest = publishing.manifest(kind, several).map_err(|error| wrong(&error))?;
    let servers = publishing.choose(&ground.servers).map_err(|error| wrong(&error))?;
    ship(
        &Shipment {
            path: path.into(),
            sha256,
            manifest: &manifest,
            servers: &servers,
            library: publishing.library.then_some(ground.library.as_path()),
            config: &ground.publish,
            versions: &ground.versions,
            lineage,
        },
        reporter,
    )
}

/// Publishes a file.
///
/// # Errors
/// What no server takes, and servers that fail.
pub fn ship(shipment: &Shipment<'_>, reporter: &Reporter) -> Result<Vec<Value>, Fault> {
    let ended = steps::publish(shipment, reporter).map_err(|error| Fault::Final(error.to_string()))?;
    delivered(ended, shipment.manifest.name.as_str())
}

/// A wish that is none.
#[must_use]
pub fn wrong(error: &Wrong) -> Fault {
    Fault::Input(error.to_string())
}

impl Watcher for Reporter {
    fn progress(&self, _: &str, done: u64, total: u64, unit: &'static str) {
        Reporter::progress(self, done, total, unit);
    }

    fn note(&self, line: &str) {
        self.log(line);
    }

    fn metric(&self, name: &str, value: f64) {
        Reporter::metric(self, name, value);
    }

    fn hold(&self) {
        Reporter::hold(self);
    }

    fn must_wait(&self) -> bool {
        Reporter::must_wait(self)
    }

    fn cancel(&self) -> &CancellationToken {
        self.stop()
    }
}

/// Fetches a source from the Hub: what came before it was stopped or killed is not fetched again.
pub fn fetched(context: &mut Context, source: &str, reporter: &Reporter) -> Result<Option<PathBuf>, Fault> {
    let Named::Hub(name) = Named::of(source) else { return Ok(None) };
    let (folder, config) = (context.work_dir().join("hub"), context.ground().hub.clone());
    let fetch = |_: &mut Context| steps::fetch(name, &folder, &config, reporter).map_err(not_fetched);
    context.step(0, &json!(name), fetch).map(Some)
}

/// A model that is not there will not be there a little later, either.
fn not_fetched(error: steps::FetchError) -> Fault {
    use steps::FetchError::{Hub, Runtime};

    match error {
        Hub(download::Error::Cancelled) => Fault::Stopped,
        Hub(hub) if hub.is_transient() || matches!(hub, download::Error::Io { .. }) => Fault::Passing(hub.to_string()),
        Runtime(error) => Fault::Passing(error.to_string()),
        error => Fault::Final(error.to_string()),
    }
}

pub fn fault(error: convert::Error) -> Fault {
    match error {
        convert::Error::Cancelled => Fault::Stopped,
        error @ (convert::Error::Io { .. } | convert::Error::DiskFull { .. }) => Fault::Passing(error.to_string()),
        error => Fault::Final(error.to_string()),
    }
}

/// One that failed fails the step; those that succeeded find it done when it is made again.
fn delivered(delivered: Vec<Delivered>, name: &str) -> Result<Vec<Value>, Fault> {
    let (mut done, mut failed, mut passing) = (Vec::new(), Vec::new(), true);
    for one in delivered {
        match one.outcome {
            Ok(outcome) => done.push(json!({"name": name, "to": one.to, "outcome": outcome})),
            Err(error) if error.is_cancelled() => return Err(Fault::Stopped),
            Err(error) => {
                passing &= error.is_passing();
                failed.push(error.to_string());
            }
        }
    }
    match failed.is_empty() {
        true => Ok(done),
        false if passing => Err(Fault::Passing(failed.join("; "))),
        false => Err(Fault::Final(failed.join("; "))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_may_come_a_little_later_is_fetched_again_and_what_is_not_there_is_not() {
        let (place, name) = ("the Hub".to_owned(), "a/b".to_owned());
        let network = download::Error::Network { place: place.clone(), why: "cut".to_owned() };
        let full = download::Error::Io { path: "x".into(), source: std::io::ErrorKind::StorageFull.into() };
        for passing in [network, full] {
            assert!(matches!(not_fetched(passing.into()), Fault::Passing(_)));
        }
        assert!(matches!(not_fetched(download::Error::NotFound { place, name }.into()), Fault::Final(_)));
        assert!(matches!(not_fetched(download::Error::Cancelled.into()), Fault::Stopped));
    }
}
