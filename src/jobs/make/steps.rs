//! The steps: converting, checking, publishing; each with somebody who watches. They block: call them where that is allowed.

use std::borrow::Cow;
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde_json::Value;
use tokio_util::sync::CancellationToken;

use super::server::Server;
use super::wish::Checking;
use crate::backends::ollama::{self, Ollama};
use crate::domain::clock::Clock;
use crate::domain::digest::Digest;
use crate::jobs::convert::{self, Options, Outcome};
use crate::jobs::download::{self, Hub};
use crate::jobs::publish::versions::{Candidate, Versions};
use crate::jobs::publish::{self, Artifact, Manifest, Publication, library, modelfile};

/// Who hears how far the work is, and says when it is to stop or to wait.
pub trait Watcher: Sync {
    /// So much of it is done. Returns at once.
    fn progress(&self, what: &str, done: u64, total: u64, unit: &'static str);

    /// Something worth writing down. Returns at once.
    fn note(&self, line: &str);

    /// A figure of the work. Returns at once.
    fn metric(&self, _: &str, _: f64) {}

    /// Returns when the work may go on; asked between pieces of it.
    fn hold(&self) {}

    /// Whether [`Watcher::hold`] would wait.
    fn must_wait(&self) -> bool {
        false
    }

    fn cancel(&self) -> &CancellationToken;
}

/// A file that is published.
#[derive(Debug, Clone)]
pub struct Shipment<'a> {
    pub path: Cow<'a, Path>,
    /// In hexadecimal.
    pub sha256: &'a str,
    pub manifest: &'a Manifest,
    pub servers: &'a [&'a Server],
    /// The embedded engine's library, where the file goes there, too.
    pub library: Option<&'a Path>,
    pub config: &'a publish::Config,
    /// Where what has been published is kept as a version of its name.
    pub versions: &'a Path,
    /// Where the model comes from, for its version.
    pub lineage: &'a Value,
}

/// What became of a shipment at one place.
#[derive(Debug)]
pub struct Delivered {
    pub to: String,
    pub outcome: Result<Value, DeliveryError>,
}

/// Why a place did not get the file.
#[derive(Debug, thiserror::Error)]
pub enum DeliveryError {
    #[error(transparent)]
    Server(publish::Error),
    #[error(transparent)]
    Library(library::Error),
}

/// Why nothing could be published at all.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("the server `{name}` cannot be asked: {source}")]
    Server { name: String, source: ollama::Error },
    #[error(transparent)]
    Manifest(#[from] publish::ManifestError),
    #[error(transparent)]
    Digest(#[from] crate::domain::digest::DigestError),
    #[error("publishing cannot begin: {0}")]
    Runtime(std::io::Error),
}

/// What a comparison found.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Compared {
    pub passed: bool,
    /// Why not.
    pub failures: Vec<String>,
    pub figures: Value,
    pub json: String,
    pub markdown: String,
    pub html: String,
}

/// Fetches a model from the Hub into a folder of its own in `folder`; gives where it lies: the folder, or the one file that was named.
///
/// # Errors
/// Those of [`Hub::fetch`], and when there can be no network at all.
pub fn fetch(name: &str, folder: &Path, config: &download::Config, watcher: &dyn Watcher) -> Result<PathBuf, FetchError> {
    let name: download::Name = name.parse()?;
    let into = folder.join(format!("{}@{}", name.repository.replace('/', "--"), name.revision));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(FetchError::Runtime)?;
    let told = |progress: download::Progress<'_>| {
        watcher.progress(&format!("fetch {}", progress.file), progress.done_bytes, progress.of_bytes, "bytes");
    };
    let hub = Hub::new(config.clone())?;
    let fetched = runtime.block_on(hub.fetch(&name, &into, &told, watcher.cancel()))?;
    watcher.note(&format!("fetched {name} at {}: {} bytes came now", fetched.revision, fetched.received_bytes));
    Ok(name.file.map_or(into.clone(), |file| into.join(file)))
}

/// Why a model was not fetched.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    #[error(transparent)]
    Name(#[from] download::NameError),
    #[error(transparent)]
    Hub(#[from] download::Error),
    #[error("fetching cannot begin: {0}")]
    Runtime(std::io::Error),
}

/// Converts to one type.
///
/// # Errors
/// Those of [`convert::convert`].
pub fn convert(options: &Options, watcher: &dyn Watcher) -> Result<Outcome, convert::Error> {
    let made = convert::convert(options, &Conversion { what: format!("convert {}", names(options)), watcher })?;
    made.into_iter().next().ok_or_else(|| convert::Error::Impossible("no type was named".to_owned()))
}

fn names(options: &Options) -> String {
    options.types.iter().map(|kind| kind.name()).collect::<Vec<_>>().join(", ")
}

struct Conversion<'a> {
    what: String,
    watcher: &'a dyn Watcher,
}

impl convert::Progress for Conversion<'_> {
    fn advanced(&self, done_bytes: u64, total_bytes: u64) {
        self.watcher.progress(&self.what, done_bytes, total_bytes, "bytes");
        self.watcher.hold();
    }

    fn is_cancelled(&self) -> bool {
        self.watcher.cancel().is_cancelled()
    }
}

/// Compares a file with what it was made of.
///
/// # Errors
/// What keeps them from being compared, in words.
#[cfg(feature = "embedded")]
pub fn compare(
    candidate: &Path,
    reference: &Path,
    checking: &Checking,
    text: Option<PathBuf>,
    watcher: &dyn Watcher,
) -> Result<Compared, CompareError> {
    use crate::jobs::check::{self, Spec, Thresholds};

    let mut spec = Spec::new(candidate, reference);
    spec.text = text;
    spec.max_tokens = checking.max_tokens.unwrap_or(spec.max_tokens);
    spec.thresholds = Thresholds {
        max_divergence: checking.max_divergence,
        max_perplexity_ratio: checking.max_perplexity_ratio,
        min_top_agreement: checking.min_top_agreement,
    };
    let what = format!("check {}", candidate.file_name().unwrap_or_default().to_string_lossy());
    let told = |progress: check::Progress| {
        watcher.progress(&what, progress.done, progress.of, "parts");
        watcher.hold();
    };
    let report = check::check(&spec, &told, watcher.cancel()).map_err(|error| match error {
        check::Error::Cancelled => CompareError::Cancelled,
        error => CompareError::Failed(error.to_string()),
    })?;
    Ok(Compared {
        passed: report.verdict.passed,
        failures: report.verdict.failures.clone(),
        figures: serde_json::to_value(&report.whole).unwrap_or_default(),
        json: report.to_json(),
        markdown: report.to_markdown(),
        html: report.to_html(),
    })
}

/// Says that this build cannot compare.
///
/// # Errors
/// Always.
#[cfg(not(feature = "embedded"))]
pub fn compare(_: &Path, _: &Path, _: &Checking, _: Option<PathBuf>, _: &dyn Watcher) -> Result<Compared, CompareError> {
    Err(CompareError::Failed("this build has no engine to compare with: leave out the check".to_owned()))
}

/// Why there is no comparison.
#[derive(Debug, thiserror::Error)]
pub enum CompareError {
    #[error("the comparison was stopped")]
    Cancelled,
    #[error("{0}")]
    Failed(String),
}

/// Publishes a file to servers, and into the library where that is wanted. One place that fails does not keep the others from it.
///
/// # Errors
/// What no place would take.
pub fn publish(shipment: &Shipment<'_>, watcher: &dyn Watcher) -> Result<Vec<Delivered>, Error> {
    let artifact = Artifact { path: shipment.path.clone().into_owned(), digest: shipment.sha256.parse::<Digest>()? };
    shipment.manifest.check()?;
    let mut delivered = to_servers(shipment, &artifact, watcher)?;
    if let Some(folder) = shipment.library {
        let placed = library::place(folder, &shipment.manifest.name, &artifact);
        let outcome = placed.map(|placed| serde_json::json!({"path": placed.path()})).map_err(DeliveryError::Library);
        delivered.push(Delivered { to: "library".to_owned(), outcome });
    }
    if delivered.iter().all(|one| one.outcome.is_ok()) {
        delivered.extend(remembered(shipment, &artifact));
    }
    Ok(delivered)
}

/// Keeps what has been published as a version of its name. It stays published where that cannot be.
fn remembered(shipment: &Shipment<'_>, artifact: &Artifact) -> Option<Delivered> {
    let keep = shipment.config.keep_versions;
    if keep == 0 {
        return None;
    }
    let Shipment { manifest, lineage, .. } = *shipment;
    let to = shipment.servers.iter().map(|server| server.name()).collect();
    let candidate = Candidate { artifact, manifest, to, library: shipment.library.is_some(), lineage };
    let recorded = Versions::of(shipment.versions, &manifest.name).record(&candidate, keep, Clock::system().unix_ms());
    let outcome = match recorded {
        Ok(version) => serde_json::json!({"version": version.number}),
        Err(error) => serde_json::json!({"not_kept": error.to_string()}),
    };
    Some(Delivered { to: "versions".to_owned(), outcome: Ok(outcome) })
}

fn to_servers(shipment: &Shipment<'_>, artifact: &Artifact, watcher: &dyn Watcher) -> Result<Vec<Delivered>, Error> {
    let open = |server: &&Server| Ollama::new(server.0.clone()).map_err(|source| Error::Server { name: server.name(), source });
    let servers = shipment.servers.iter().map(open).collect::<Result<Vec<_>, _>>()?;
    let publication = Publication { model: artifact.clone(), adapter: None, manifest: shipment.manifest.clone() };
    let told = |news: publish::Progress<'_>| {
        if let Some((done, total)) = news.bytes {
            watcher.progress(&format!("{}: {}", news.backend, news.step.in_words()), done, total, "bytes");
        }
        if let Some(words) = news.words {
            watcher.note(&format!("{}: {words}", news.backend));
        }
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(Error::Runtime)?;
    let published = runtime.block_on(publish::publish(&servers, &publication, shipment.config, &told, watcher.cancel()))?;
    let delivered = |one: publish::Published| Delivered {
        to: one.backend,
        outcome: one.outcome.map(|outcome| serde_json::to_value(outcome).unwrap_or_default()).map_err(DeliveryError::Server),
    };
    Ok(published.into_iter().map(delivered).collect())
}

/// The Modelfile that lies beside a file; a comment instead of one that cannot be written.
#[must_use]
pub fn modelfile(manifest: &Manifest, file_name: &str) -> String {
    modelfile::render(manifest, &format!("./{file_name}"), None).unwrap_or_else(|error| format!("# There is no Modelfile: {error}\n"))
}

impl DeliveryError {
    /// Whether trying again may help.
    #[must_use]
    pub fn is_passing(&self) -> bool {
        match self {
            Self::Server(error) => error.retry() != crate::domain::blame::Retry::Never,
            Self::Library(library::Error::Io { .. }) => true,
            Self::Library(library::Error::Digest { .. }) => false,
        }
    }

    /// Whether it was told to stop.
    #[must_use]
    pub fn is_cancelled(&self) -> bool {
        matches!(self, Self::Server(publish::Error::Cancelled { .. }))
    }
}
