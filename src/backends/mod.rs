//! What answers a generation: a server over HTTP, or the engine in this process.
//!
//! A [`Backend`] promises: an answer is a stream of events that ends with exactly one [`Event::Done`] or one error, whichever
//! way the server behind it ended; dropping the stream (or the future that would give it) stops the work at once.
//! It does not choose, queue, retry or count: that is `routing`'s, `scheduler`'s and `gateway`'s.

#[cfg(feature = "embedded")]
pub mod embedded;
mod error;
pub mod ollama;

use std::sync::Arc;

use futures_util::future::BoxFuture;
use futures_util::stream::BoxStream;

use crate::domain::generation::{Event, Request};
use crate::domain::id::ModelName;
use crate::domain::model::ModelInfo;

pub use error::Error;

/// The events of one generation. See the promises of the module.
pub type Events = BoxStream<'static, Result<Event, Error>>;

/// What kind of thing answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Ollama,
    Embedded,
}

impl Kind {
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ollama => "ollama",
            Self::Embedded => "embedded",
        }
    }
}

/// How far a backend can be relied on now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Health {
    /// Answered the last check.
    Up,
    /// Not checked yet.
    Unknown,
    /// Failed the last check, for this reason.
    Down(String),
}

/// How deep a health check looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Probe {
    /// Whether the server answers at all.
    Shallow,
    /// Whether it still generates: one token from a model that is already loaded (none is loaded for the purpose).
    Deep,
}

/// Something that generates.
pub trait Backend: Send + Sync + 'static {
    /// Unique among the backends of one gateway; appears in answers, logs and metrics.
    fn name(&self) -> &str;

    fn kind(&self) -> Kind;

    /// Where or on what it runs, for people: an address without credentials, or a device.
    fn describe(&self) -> String;

    /// What it can be asked for now.
    fn models(&self) -> BoxFuture<'_, Result<Vec<ModelInfo>, Error>>;

    /// Checks the server; the outcome is also what [`Backend::health`] says until the next check.
    fn probe(&self, probe: Probe) -> BoxFuture<'_, Health>;

    /// The outcome of the last check. Cheap.
    fn health(&self) -> Health;

    /// Starts a generation. Resolves when the backend has accepted it; failures until then come as the error here, later ones
    /// as the last item of the stream.
    fn generate(&self, request: Arc<Request>) -> BoxFuture<'_, Result<Events, Error>>;

    /// The meaning of each text as a vector, in the order of the texts; all of one length.
    ///
    /// # Errors
    /// [`Error::Unsupported`] where the backend or the model cannot do that, and whatever else keeps it from it.
    fn embed(&self, model: &ModelName, texts: Vec<String>) -> BoxFuture<'_, Result<Vec<Vec<f32>>, Error>> {
        let _ = texts;
        let error = Error::Unsupported { field: "model", why: format!("`{model}` gives no embeddings on this backend") };
        Box::pin(std::future::ready(Err(error)))
    }
}
