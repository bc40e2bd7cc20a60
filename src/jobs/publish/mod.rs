//! Publishing a finished model file: to Ollama servers, and into the embedded engine's library.
//!
//! [`publish`] promises, for each server: the name is taken by the whole new model or stays what it was; nothing of a publication that
//! failed or was cancelled stays in the server's list; one that was killed in the middle is finished, or tidied up, by the next one;
//! repeating a publication changes nothing. A file the server has is not sent again, and one that is sent is never held in memory.
//! How: the model is built under a name of its own that clients are not offered, looked at, asked for a few words, and only then
//! copied to its name (which Ollama does by writing one small file); an earlier model of that name is kept aside until that is done.
//! Does not convert or quantise (that is `jobs/convert`'s), and does not wait for its turn: whoever calls says when.

mod attempt;
mod config;
mod error;
pub mod library;
mod manifest;
pub mod modelfile;
mod names;
mod naming;
pub mod presets;
mod progress;
mod same;
pub mod versions;

use std::path::PathBuf;

use futures_util::StreamExt;
use futures_util::stream;
use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;

use crate::backends::Backend;
use crate::backends::ollama::Ollama;
use crate::domain::digest::Digest;

use attempt::Attempt;

pub use config::Config;
pub use error::Error;
pub use manifest::{Manifest, ManifestError};
pub use progress::{Action, Kept, Outcome, Progress, Step, Told};

/// A file, and what its bytes hash to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Artifact {
    pub path: PathBuf,
    pub digest: Digest,
}

/// What is to be published.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Publication {
    /// The model, a GGUF file.
    pub model: Artifact,
    /// A LoRA adapter as a GGUF file. Newer servers refuse one: merge it into the model where that is possible.
    #[serde(default)]
    pub adapter: Option<Artifact>,
    pub manifest: Manifest,
}

/// What became of a publication on one server.
#[derive(Debug)]
pub struct Published {
    pub backend: String,
    pub outcome: Result<Outcome, Error>,
}

/// Publishes to each of the servers, some at a time, whatever becomes of the others. The answers are in the servers' order.
///
/// # Errors
/// A manifest that no server would take. What failed on a server is in its [`Published`].
pub async fn publish(
    to: &[Ollama],
    publication: &Publication,
    config: &Config,
    told: Told<'_>,
    cancel: &CancellationToken,
) -> Result<Vec<Published>, ManifestError> {
    publication.manifest.check()?;
    let each = to.iter().map(|server| async move {
        let outcome = Attempt::new(server, publication, config, told).run(cancel).await;
        Published { backend: server.name().to_owned(), outcome }
    });
    Ok(stream::iter(each).buffered(config.servers_at_once.max(1)).collect().await)
}
