//! Where an answer comes from: a cache, an equal request that runs already, or a backend.

use std::sync::Arc;

use futures_util::stream::BoxStream;
use futures_util::{StreamExt, TryStreamExt, stream};
use tokio_util::sync::CancellationToken;

use super::about::{About, CacheOutcome};
use super::call::Call;
use super::deadline::Bounds;
use super::error::Error;
use super::generate::{Begun, Gateway};
use super::kept;
use super::meaning::{Found, Meaning};
use super::production::{Production, Started};
use super::restart::Restarts;
use super::settings::OnCut;
use super::shares::{Note, Share};
use super::steps;
use crate::backends;
use crate::cache::answer::{Answer, Speed};
use crate::cache::exact::{Hit, Lookup, Tags};
use crate::cache::key::Key;
use crate::cache::policy::{Outcome, Policy};
use crate::cache::recording::Recording;
use crate::domain::generation::{CacheMode, Event};
use crate::domain::id::RequestId;
use crate::domain::waiting::Progress;
use crate::limits::Reservation;

type Stream = BoxStream<'static, Result<Event, Error>>;

/// Where an answer would be kept.
pub(super) struct Place {
    policy: Policy,
    mode: Option<CacheMode>,
    /// `None` where nothing is read or kept.
    key: Option<Key>,
    tags: Tags,
}

impl Place {
    /// What stands for the model's content.
    pub fn digest(&self) -> Option<&str> {
        self.tags.digest.as_deref()
    }

    /// Whether the client lets caches have to do with its request.
    pub fn is_open(&self) -> bool {
        self.mode != Some(CacheMode::Bypass)
    }

    /// Whether the client takes an answer that was made before.
    fn may_be_read(&self) -> bool {
        !matches!(self.mode, Some(CacheMode::Bypass | CacheMode::Refresh))
    }
}

impl Gateway {
    /// Answers a call that was let in.
    pub(super) async fn answer(&self, call: Call, reservation: Reservation, progress: &Progress) -> Result<Begun, Error> {
        let place = self.place(&call).await;
        let exact = &self.parts().exact;
        let found = match &place.key {
            Some(key) => exact.get(key, &place.policy).await,
            None => exact.unread(&place.policy),
        };
        let outcome = match found {
            Lookup::Hit(hit) => return self.kept_for_later(&call, self.replayed(&call, place.key, &hit), progress).await,
            Lookup::Refused(refused) => Err(Error::NotCached { why: refused.0.why.as_str() }),
            Lookup::Miss(outcome) => Ok(outcome),
        };
        let meaning = self.meaning(&call, &place).await;
        if let Some(found) = meaning.as_ref().filter(|_| place.may_be_read()).and_then(|meaning| self.same_meaning(&call, meaning)) {
            return self.kept_for_later(&call, self.replayed_alike(&call, found), progress).await;
        }
        let outcome = outcome?;
        let resumable = call.is_resumable();
        if !place.policy.may_join() && !place.policy.write && meaning.is_none() && !resumable {
            return self.alone(call, reservation, progress, outcome).await;
        }
        let key = place.key.filter(|_| place.policy.may_join()).unwrap_or_else(own_key);
        match self.parts().shares.join(key, &progress.subscribe()) {
            Share::Alone if resumable => Err(Error::TooManyKept { most: call.settings.config.kept.max_kept }),
            Share::Alone => self.alone(call, reservation, progress, outcome).await,
            Share::Follow { events, note } => {
                if resumable {
                    self.keep_for_client(&call, events.recording(), &note)?;
                }
                follow(&call, reservation, events, &note, progress).await
            }
            Share::Lead { flight, events, note, place: noted } => {
                if resumable {
                    self.keep_for_client(&call, flight.recording(), &note)?;
                }
                let (gateway, progress, about) = (self.clone(), progress.clone(), Arc::clone(&note.about));
                let text = if meaning.is_some() { call.ask.prompt.text.clone() } else { String::new() };
                self.parts().tasks.spawn(async move {
                    let start = gateway.produced(call, reservation, &progress, outcome);
                    let start = async {
                        let (found, events) = start.await.map_err(Arc::new)?;
                        // Nobody else sets it.
                        let _ = about.set(found);
                        Ok(events.map_err(Arc::new))
                    };
                    let mut landed = flight.run(start).await;
                    // Kept before it can no longer be joined, so that nobody asks in between.
                    gateway.keep(landed.answer.take(), place, about.get(), meaning.map(|meaning| (text, meaning)));
                    drop((landed, noted));
                });
                first_of(events, &note).await
            }
        }
    }

    fn keep_for_client(&self, call: &Call, recording: Recording<Arc<Error>>, note: &Note) -> Result<(), Error> {
        let shared = kept::Shared { recording, about: Arc::clone(&note.about), stop: CancellationToken::new() };
        self.parts().kept.keep(&call.principal, &call.id, shared, call.control.detach, call.settings.config.kept.max_kept)
    }

    /// An answer that was made before, kept like one that is being made where the client may come back for it.
    async fn kept_for_later(&self, call: &Call, begun: Begun, progress: &Progress) -> Result<Begun, Error> {
        if !call.is_resumable() {
            return Ok(begun);
        }
        let Share::Lead { flight, events, note, place } = self.parts().shares.join(own_key(), &progress.subscribe()) else {
            return Err(Error::TooManyKept { most: call.settings.config.kept.max_kept });
        };
        self.keep_for_client(call, flight.recording(), &note)?;
        // Nobody else sets it.
        let _ = note.about.set(begun.about);
        self.parts().tasks.spawn(async move {
            let landed = flight.run(std::future::ready(Ok(begun.events.map_err(Arc::new)))).await;
            drop((landed, place));
        });
        first_of(events, &note).await
    }

    async fn place(&self, call: &Call) -> Place {
        let (step, model) = (call.chain.steps().first(), call.first_model());
        let exact = &self.parts().exact;
        let policy = exact.policy(call.control.cache, &call.ask);
        let cached = policy.read || policy.write;
        // That nobody has the model is told later, where another step may stand in for it.
        let hosts = match step.filter(|_| cached || self.embedding(call).is_some()) {
            Some(step) => self.hosts(step).await.unwrap_or_default(),
            None => Vec::new(),
        };
        let digest = steps::digest(&hosts);
        let key = cached.then(|| exact.key(&call.principal.tenant, model, digest.as_deref(), &call.ask));
        let (tenant, key_id) = (Arc::clone(&call.principal.tenant), call.principal.key_id.clone());
        let tags = Tags { model: model.clone(), digest, tenant, key_id, ttl: None };
        Place { policy, mode: call.control.cache, key, tags }
    }

    /// Keeps a whole answer of the model that the key stands for.
    fn keep(&self, answer: Option<Answer>, place: Place, about: Option<&Arc<About>>, meaning: Option<(String, Meaning)>) {
        let by_first_step = about.is_some_and(|about| about.step == 0);
        let Some(answer) = answer.filter(|answer| by_first_step && answer.is_worth_keeping()) else { return };
        if let Some((text, meaning)) = meaning {
            self.keep_meaning(&text, &meaning, &answer);
        }
        if let Some(key) = place.key.filter(|_| place.policy.write) {
            self.parts().exact.put(key, answer, place.tags);
        }
    }

    fn replayed_alike(&self, call: &Call, found: Found) -> Begun {
        let cache = CacheOutcome { age: Some(found.age), similarity: Some(found.similarity), ..CacheOutcome::new("semantic", "alike") };
        let about = Arc::new(About { cache, ..unasked(call, "cache") });
        Begun { restarts: Restarts::default(), about, events: found.answer.replay(self.speed(call)).map(Ok).boxed() }
    }

    fn replayed(&self, call: &Call, key: Option<Key>, hit: &Hit) -> Begun {
        let about = Arc::new(About { cache: CacheOutcome { key, ..said(&hit.outcome()) }, ..unasked(call, "cache") });
        let events = Arc::clone(&hit.answer).replay(self.speed(call));
        Begun { restarts: Restarts::default(), about, events: events.map(Ok).boxed() }
    }

    /// How fast a kept answer is given: a client that does not stream sees nothing of its pace.
    fn speed(&self, call: &Call) -> Speed {
        if call.streamed { self.parts().exact.speed() } else { Speed::Full }
    }

    /// Nobody else reads it.
    async fn alone(&self, call: Call, reservation: Reservation, progress: &Progress, outcome: Outcome) -> Result<Begun, Error> {
        let (about, started) = self.started(&call, progress, outcome).await?;
        let restarts = Restarts::default();
        let events = if call.streamed {
            self.whole(call, reservation, Arc::clone(&about), started)
        } else {
            // Its client sees nothing before the end, so it can begin anew.
            let production = production(&call, reservation, &about, started);
            self.clone().restarting(call, Arc::clone(&about), production, restarts.clone()).boxed()
        };
        Ok(Begun { about, events, restarts })
    }

    async fn produced(
        &self,
        call: Call,
        reservation: Reservation,
        progress: &Progress,
        outcome: Outcome,
    ) -> Result<(Arc<About>, Stream), Error> {
        let (about, started) = self.started(&call, progress, outcome).await?;
        Ok((Arc::clone(&about), self.whole(call, reservation, about, started)))
    }

    async fn started(&self, call: &Call, progress: &Progress, outcome: Outcome) -> Result<(Arc<About>, Started), Error> {
        let (mut about, started) = self.produce(call, progress).await?;
        about.cache = said(&outcome);
        Ok((Arc::new(about), started))
    }

    /// The answer from its first event on.
    fn whole(&self, call: Call, reservation: Reservation, about: Arc<About>, started: Started) -> Stream {
        let production = production(&call, reservation, &about, started);
        match call.settings.config.on_cut {
            OnCut::Error => production.boxed(),
            OnCut::Continue => self.clone().continued(call, about, production).boxed(),
        }
    }
}

fn production(call: &Call, reservation: Reservation, about: &About, started: Started) -> Production {
    // Of a client that reads, the deadline is watched where it reads; this is for when it has left. Its key is watched where its
    // answer is kept: others may read the same.
    let bounds = if call.control.detach { Bounds::new(call.deadline, None) } else { Bounds::default() };
    let between = call.settings.timeouts.of(&about.model).between_tokens;
    Production::new(started, Some(reservation), between, bounds)
}

/// Under a key of its own an answer can be kept and read again, but not joined. Not the id of the request: clients choose that.
fn own_key() -> Key {
    Key::named(RequestId::generate().as_str())
}

/// Reads along with an equal request.
async fn follow(call: &Call, reservation: Reservation, events: kept::Events, note: &Note, progress: &Progress) -> Result<Begun, Error> {
    let first = first_of(events, note);
    let begun = tokio::select! {
        biased;
        begun = first => begun?,
        never = forward(note.clone(), progress) => match never {},
    };
    let about = About {
        cache: said(&Outcome::joined()),
        backend: begun.about.backend.clone(),
        model: begun.about.model.clone(),
        step: begun.about.step,
        why: begun.about.why.clone(),
        ..unasked(call, "")
    };
    // It counts as a request that runs for as long as it reads, and uses nothing.
    let events = begun.events.map(move |event| {
        let _held = &reservation;
        event
    });
    Ok(Begun { restarts: Restarts::default(), about: Arc::new(about), events: events.boxed() })
}

/// Tells where the request stands that is waited for.
async fn forward(mut note: Note, progress: &Progress) -> std::convert::Infallible {
    loop {
        if note.news.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
        if let Some(waiting) = *note.news.borrow_and_update() {
            progress.tell(waiting);
        }
    }
}

/// Waits for the first event of an answer that may have several readers.
async fn first_of(mut events: kept::Events, note: &Note) -> Result<Begun, Error> {
    let cut = || Error::Backend {
        backend: "shared".to_owned(),
        source: backends::Error::Protocol { message: "the answer ended before it began".into() },
    };
    let first = match events.next().await {
        Some(Ok(first)) => first,
        Some(Err(error)) => return Err(Error::Shared(error)),
        None => return Err(cut()),
    };
    let about = note.about.get().cloned().ok_or_else(cut)?;
    Ok(Begun { restarts: Restarts::default(), about, events: stream::once(std::future::ready(Ok(first))).chain(shared(events)).boxed() })
}

/// The events of an answer that may have several readers, as one of them sees them.
pub(super) fn shared(events: kept::Events) -> Stream {
    events.map_err(Error::Shared).boxed()
}

/// What is told of an answer for which no backend was asked.
fn unasked(call: &Call, backend: &str) -> About {
    About {
        backend: backend.to_owned(),
        asked: call.asked.clone(),
        model: call.first_model().clone(),
        step: 0,
        why: None,
        not_applied: call.not_applied.clone(),
        changed: call.changed.clone(),
        cache: CacheOutcome::new("miss", "absent"),
        standing: Some(call.standing.clone()),
        attempts: 0,
        asked_at: None,
    }
}

fn said(outcome: &Outcome) -> CacheOutcome {
    CacheOutcome { age: outcome.age, ..CacheOutcome::new(outcome.status.as_str(), outcome.why.as_str()) }
}
