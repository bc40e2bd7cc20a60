//! The life of one generation, in the order in which it happens.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use arc_swap::ArcSwap;
use futures_util::Stream;
use futures_util::stream::BoxStream;

use super::about::About;
use super::deadline::{Bounds, within};
use super::error::Error;
use super::kept::Status;
use super::metered::Metered;
use super::parts::Parts;
use super::record::Record;
use super::restart::Restarts;
use super::settings::{Config, Settings};
use crate::domain::generation::{Draft, Event};
use crate::domain::id::RequestId;
use crate::domain::principal::Principal;
use crate::domain::waiting::Progress;
use crate::models::Registry;

/// Cheap to clone.
#[derive(Clone)]
pub struct Gateway {
    inner: Arc<Inner>,
}

struct Inner {
    parts: Parts,
    settings: ArcSwap<Settings>,
}

/// An answer that has begun.
pub(super) struct Begun {
    pub about: Arc<About>,
    pub events: BoxStream<'static, Result<Event, Error>>,
    pub restarts: Restarts,
}

impl Gateway {
    pub fn new(settings: Settings, parts: Parts) -> Self {
        Self { inner: Arc::new(Inner { parts, settings: ArcSwap::from_pointee(settings) }) }
    }

    pub(super) fn parts(&self) -> &Parts {
        &self.inner.parts
    }

    /// What holds now. A generation keeps what held when it began.
    pub fn settings(&self) -> Arc<Settings> {
        self.inner.settings.load_full()
    }

    /// From now on this holds. What runs is not touched.
    pub fn reconfigure(&self, settings: Settings) {
        self.inner.settings.store(Arc::new(settings));
    }

    pub fn config(&self) -> Config {
        self.settings().config.clone()
    }

    pub fn registry(&self) -> &Registry {
        &self.inner.parts.registry
    }

    /// Lets the request in, and answers it from a cache, together with an equal one, or by a backend. Resolves when an answer has
    /// begun; until then `progress` tells where the request stands.
    pub async fn generate(&self, draft: Draft, progress: &Progress) -> Result<Generation, Error> {
        let mut record = Record::open(&draft, self.parts().ledger.clone());
        let principal = Arc::clone(&draft.principal);
        // In a room of its own, which is given back when the answer has begun: what is needed until then is much.
        let begun = Box::pin(self.begin(draft, progress, &mut record));
        let begun = tokio::select! {
            biased;
            begun = begun => begun,
            () = principal.ended.cancelled() => Err(Error::KeyEnded),
        };
        match begun {
            Ok((begun, bounds)) => {
                record.accepted(&begun.about);
                let events = Metered::new(begun.events, record, bounds);
                Ok(Generation { about: begun.about, events, restarts: begun.restarts })
            }
            Err(error) => {
                record.failed(error.blame(), error.kind());
                Err(error)
            }
        }
    }

    async fn begin(&self, draft: Draft, progress: &Progress, record: &mut Record) -> Result<(Begun, Bounds), Error> {
        let asked = self.model_of(draft.model.as_ref())?;
        let deadline = self.deadline(draft.deadline, &asked)?;
        let ended = draft.principal.key_id.is_some().then(|| draft.principal.ended.clone());
        let begun = within(deadline, async {
            let (call, reservation) = self.call(draft, asked, deadline, progress).await?;
            record.model(&call.asked);
            let kept = call.is_resumable().then(|| (Arc::clone(&call.principal), call.id.clone()));
            let begun = self.answer(call, reservation, progress).await?;
            let stop = kept.and_then(|(who, id)| self.parts().kept.find(&who, &id).ok()).map(|shared| shared.stop);
            Ok::<_, Error>((begun, stop))
        });
        let (begun, stop) = begun.await??;
        Ok((begun, Bounds::new(deadline, ended).stopped_by(stop)))
    }

    /// A generation that is kept for its client, after the first `past` of its events.
    pub fn resume(&self, who: &Principal, id: &RequestId, past: u64) -> Result<Generation, Error> {
        let (shared, events) = self.parts().kept.read(who, id, past)?;
        let about = shared.about.get().cloned().ok_or_else(|| Error::NothingToResume { id: id.to_string() })?;
        let about = Arc::new(About { attempts: 0, asked_at: None, ..(*about).clone() });
        let mut record = Record::again(who, id, self.parts().ledger.clone());
        record.accepted(&about);
        let bounds = Bounds::new(None, who.key_id.is_some().then(|| who.ended.clone())).stopped_by(Some(shared.stop.clone()));
        let events = Metered::new(super::answers::shared(events), record, bounds);
        Ok(Generation { about, events, restarts: Restarts::default() })
    }

    /// Whether a kept generation has ended, and how far it is.
    pub fn kept(&self, who: &Principal, id: &RequestId) -> Result<Status, Error> {
        let shared = self.parts().kept.find(who, id)?;
        Ok(Status { ended: shared.recording.is_over(), events: shared.recording.last() })
    }

    /// Stops and forgets a kept generation.
    pub fn forget(&self, who: &Principal, id: &RequestId) -> Result<(), Error> {
        self.parts().kept.forget(who, id)
    }
}

/// A running generation: a stream of events. See the module of the gateway for what it promises.
pub struct Generation {
    about: Arc<About>,
    events: Metered,
    restarts: Restarts,
}

impl Generation {
    pub fn about(&self) -> &About {
        &self.about
    }

    /// How often the answer has begun anew. Only that of a request that is not streamed does.
    pub fn restarts(&self) -> u32 {
        self.restarts.count()
    }

    /// From the arrival of the request to the asking of the backend that answers.
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
