//! The life of one generation, in the order in which it happens.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::Stream;

use super::Config;
use super::attempt::{self, Accepted};
use super::deadline::{Deadline, within};
use super::error::Error;
use super::metered::Metered;
use super::record::{Ledger, Record};
use crate::domain::blame::Blame;
use crate::domain::generation::{Control, Draft, Event, NotApplied, Request};
use crate::domain::id::ModelName;
use crate::domain::model::ModelInfo;
use crate::models::{Entry, Registry};

/// A list of models younger than this is not asked for again because of a name that is not in it.
const MISS_REFRESH: Duration = Duration::from_secs(1);

/// Cheap to clone.
#[derive(Clone)]
pub struct Gateway {
    inner: Arc<Inner>,
}

struct Inner {
    config: Config,
    registry: Registry,
    ledger: Ledger,
}

impl Gateway {
    pub fn new(config: Config, registry: Registry, ledger: Ledger) -> Self {
        Self { inner: Arc::new(Inner { config, registry, ledger }) }
    }

    pub fn config(&self) -> &Config {
        &self.inner.config
    }

    pub fn registry(&self) -> &Registry {
        &self.inner.registry
    }

    /// Finds a backend and starts to generate. Resolves when a backend has accepted the request.
    pub async fn generate(&self, draft: Draft) -> Result<Generation, Error> {
        let mut record = Record::open(&draft, self.inner.ledger.clone());
        let started = self.start(draft, &mut record).await;
        match started {
            Ok((accepted, about)) => Ok(Generation::new(accepted, about, record)),
            Err(error) => {
                record.failed(error.blame(), error.kind());
                Err(error)
            }
        }
    }

    async fn start(&self, draft: Draft, record: &mut Record) -> Result<(Accepted, About), Error> {
        let deadline = self.deadline(draft.deadline)?;
        let model = self.model_of(draft.model.as_ref())?;
        let not_applied = not_applied(&draft.control);
        let candidates = within(deadline, self.candidates(&model)).await??;
        record.model(&model);
        let request = Arc::new(Request { id: draft.id, model: model.clone(), ask: draft.ask, deadline: deadline.map(|d| d.at) });
        let accepted = within(deadline, self.attempt(candidates, &request)).await??;
        let about = About { backend: accepted.entry.backend.name().to_owned(), model, deadline, not_applied };
        Ok((accepted, about))
    }

    async fn attempt(&self, candidates: Vec<(Arc<Entry>, ModelInfo)>, request: &Arc<Request>) -> Result<Accepted, Error> {
        let refused = |refused: &attempt::Refused| {
            if refused.source.blame() == Blame::Client {
                return;
            }
            self.inner.ledger.metrics.upstream_error(&refused.backend, refused.source.kind());
            tracing::warn!(request = %request.id, backend = refused.backend, error = %refused.source, "a backend did not accept a request");
        };
        let accepted = attempt::first_to_accept(candidates, request, refused).await;
        accepted.map_err(|refused| Error::Backend { backend: refused.backend, source: refused.source })
    }

    fn deadline(&self, asked: Option<Duration>) -> Result<Option<Deadline>, Error> {
        let most = self.inner.config.max_deadline;
        match asked {
            Some(asked) if asked > most => Err(Error::DeadlineTooLong { asked, most }),
            Some(asked) => Ok(Some(Deadline::after(asked))),
            None => Ok(self.inner.config.default_deadline.map(Deadline::after)),
        }
    }

    /// The model a request means: the one it names, the configured default, the only one there is, the only one that is loaded.
    fn model_of(&self, named: Option<&ModelName>) -> Result<ModelName, Error> {
        if let Some(name) = named.or(self.inner.config.default_model.as_ref()) {
            return Ok(name.clone());
        }
        let mut models: Vec<ModelInfo> = self.inner.registry.list().into_iter().map(|view| view.model).collect();
        models.sort_by(|a, b| a.name.canonical().cmp(b.name.canonical()).then(b.loaded.cmp(&a.loaded)));
        models.dedup_by(|a, b| a.name == b.name);
        let only = |models: &[ModelInfo]| (models.len() == 1).then(|| models[0].name.clone());
        let loaded = || only(&models.iter().filter(|model| model.loaded).cloned().collect::<Vec<_>>());
        only(&models).or_else(loaded).ok_or_else(|| Error::ModelMissing { known: models.iter().map(|m| m.name.to_string()).collect() })
    }

    /// The backends that have the model. A name nobody is known to have may be new: the backends are asked once more.
    async fn candidates(&self, model: &ModelName) -> Result<Vec<(Arc<Entry>, ModelInfo)>, Error> {
        let registry = &self.inner.registry;
        let mut found = registry.having(model);
        if found.is_empty() {
            registry.refresh_if_older(MISS_REFRESH).await;
            found = registry.having(model);
        }
        if found.is_empty() { Err(self.unknown(model)) } else { Ok(found) }
    }

    fn unknown(&self, model: &ModelName) -> Error {
        let entries = self.inner.registry.entries();
        let reason = |entry: &Arc<Entry>| Some(format!("{} ({}): {}", entry.backend.name(), entry.backend.describe(), entry.failure()?));
        let unasked: Vec<String> = entries.iter().filter_map(reason).collect();
        if unasked.len() == entries.len() {
            return Error::NoBackend { reasons: unasked };
        }
        Error::ModelNotFound { model: model.to_string(), near: self.inner.registry.near(model), unasked }
    }
}

/// Nothing that a client asks of the gateway is ignored in silence.
fn not_applied(control: &Control) -> Vec<NotApplied> {
    let not_built = "this version accepts it but does not act on it yet";
    let wishes = [
        ("priority", control.priority.is_some()),
        ("session", control.session.is_some()),
        ("cache", control.cache.is_some()),
        ("fallback", control.fallback.is_some()),
        ("detach", control.detach),
    ];
    wishes.into_iter().filter(|(_, asked)| *asked).map(|(field, _)| NotApplied { field: field.to_owned(), why: not_built }).collect()
}

/// What is known of a generation when it starts.
#[derive(Debug, Clone)]
pub struct About {
    pub backend: String,
    pub model: ModelName,
    pub deadline: Option<Deadline>,
    pub not_applied: Vec<NotApplied>,
}

/// A running generation: a stream of events. See the module of the gateway for what it promises.
pub struct Generation {
    about: About,
    events: Metered,
}

impl Generation {
    fn new(accepted: Accepted, about: About, record: Record) -> Self {
        let events = Metered::new(accepted, about.deadline, record);
        Self { about, events }
    }

    pub fn about(&self) -> &About {
        &self.about
    }

    /// From the arrival of the request to its acceptance by a backend.
    pub fn queued(&self) -> Duration {
        self.events.record().queued().unwrap_or_default()
    }

    /// Since the request came.
    pub fn elapsed(&self) -> Duration {
        self.events.record().elapsed()
    }

    /// From the arrival of the request to the first piece of its answer, once there was one.
    pub fn ttft(&self) -> Option<Duration> {
        self.events.record().ttft()
    }
}

impl Stream for Generation {
    type Item = Result<Event, Error>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        Pin::new(&mut self.events).poll_next(cx)
    }
}
