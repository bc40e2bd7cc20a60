//! What answers a generation: a server over HTTP, or the engine in this process.
//!
//! A [`Backend`] promises: an answer is a stream of events that ends with exactly one [`Event::Done`] or one error, whichever
//! way the server behind it ended; dropping the stream (or the future that would give it) stops the work at once.
//! It does not choose, queue, retry or count: that is `routing`'s, `scheduler`'s and `gateway`'s.

#[cfg(feature = "embedded")]
pub mod embedded;
mod error;
pub mod ollama;
mod residency;

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use futures_util::stream::BoxStream;
use serde_json::{Map, Value};

use crate::domain::generation::{Event, Request};
use crate::domain::id::ModelName;
use crate::domain::model::ModelInfo;

pub use error::Error;
pub use residency::{Resident, Trouble, TroubleKind};

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

    /// The models in memory now. Without an answer of its own, none is known.
    fn resident(&self) -> BoxFuture<'_, Result<Vec<Resident>, Error>> {
        Box::pin(std::future::ready(Ok(Vec::new())))
    }

    /// Brings a model into memory with these options (those of the runner matter), to stay for `keep_alive` (in the words of a
    /// request; `None`: as long as the backend thinks right). Resolves when it is there.
    fn load(&self, model: ModelName, options: Map<String, Value>, keep_alive: Option<Value>) -> BoxFuture<'_, Result<(), Error>> {
        let _ = (model, options, keep_alive);
        Box::pin(std::future::ready(Ok(())))
    }

    /// Lets a model leave memory as soon as nobody uses it. A backend whose models stay for ever ignores this.
    fn unload(&self, model: ModelName) -> BoxFuture<'_, Result<(), Error>> {
        let _ = model;
        Box::pin(std::future::ready(Ok(())))
    }

    /// Requests of one model that are worked on at a time, where that is configured or known.
    fn slots(&self) -> Option<u32> {
        None
    }

    /// Models that can be in memory at a time, where that is configured.
    fn max_loaded(&self) -> Option<u32> {
        None
    }

    /// How much it is to do in relation to the other backends, above 0.
    fn weight(&self) -> f64 {
        1.0
    }

    /// What is known to be stuck now; while a model is named here, asking for it fails at once with [`Error::Wedged`].
    fn troubles(&self) -> Vec<Trouble> {
        Vec::new()
    }

    /// What was stuck lately and is no longer, the latest last.
    fn past_troubles(&self) -> Vec<Trouble> {
        Vec::new()
    }

    /// How long a request's place stays taken on the server after its client has left, before its first token or after it.
    fn booked_after_cancel(&self, spoke: bool) -> Duration {
        let _ = spoke;
        Duration::ZERO
    }

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
