//! Equal requests that run at the same time share one generation.
//!
//! The first to ask leads: it starts the work, in a task of its own, so that its client may leave while others still read. Who
//! asks the same meanwhile gets what was sent so far, then the rest as it comes. The work stops when the last of them leaves.
//! A failure reaches everyone who is there; who comes after it starts anew. Which requests are equal, and whether sharing is right
//! for them (it is only for those whose answer is determined), is the caller's business.

use std::collections::HashMap;
use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures_util::Stream;

use super::answer::Answer;
use super::key::Key;
use super::recording::{Config, Ended, Reader, Recorder, Recording, pump, recording};
use crate::domain::clock::Clock;
use crate::domain::generation::Event;
use crate::telemetry::Metrics;

/// The generations that can be joined. Cheap to clone.
pub struct Flights<E>(Arc<Inner<E>>);

impl<E> Clone for Flights<E> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

struct Inner<E> {
    open: Mutex<Open<E>>,
    config: Config,
    clock: Clock,
    metrics: Metrics,
}

struct Open<E> {
    by_key: HashMap<Key, (u64, Recording<E>)>,
    ever: u64,
}

/// What became of a request that wanted to share.
pub enum Joined<E> {
    /// Nobody asks the same: start the work.
    Lead(Leader<E>),
    /// Read along.
    Follow(Reader<E>),
    /// As many generations as allowed can be joined already; this one goes alone.
    Alone,
}

/// The first to ask: the work to be done in a task of its own, and the reader of the one who asked.
pub struct Leader<E> {
    pub flight: Flight<E>,
    pub reader: Reader<E>,
}

impl<E: Clone> Flights<E> {
    #[must_use]
    pub fn new(config: Config, clock: Clock, metrics: Metrics) -> Self {
        let open = Mutex::new(Open { by_key: HashMap::new(), ever: 0 });
        Self(Arc::new(Inner { open, config, clock, metrics }))
    }

    /// Joins the generation with this key, or starts one.
    #[must_use]
    pub fn join(&self, key: Key) -> Joined<E> {
        let mut open = self.open();
        let found = open.by_key.get(&key).filter(|(_, recording)| recording.is_sound());
        if let Some(reader) = found.and_then(|(_, recording)| recording.read(1).ok()) {
            self.0.metrics.flight_joined();
            return Joined::Follow(reader);
        }
        if open.by_key.len() >= self.0.config.max_flights && !open.by_key.contains_key(&key) {
            self.0.metrics.flight_refused();
            return Joined::Alone;
        }
        let (recorder, reader) = recording(&self.0.config, self.0.clock.clone(), self.0.metrics.clone());
        open.ever += 1;
        let id = open.ever;
        open.by_key.insert(key, (id, recorder.recording()));
        let place = Place { flights: self.clone(), key, id };
        Joined::Lead(Leader { flight: Flight { recorder, place }, reader })
    }

    /// How many generations can be joined now.
    #[must_use]
    pub fn len(&self) -> usize {
        self.open().by_key.len()
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl<E> Flights<E> {
    fn open(&self) -> MutexGuard<'_, Open<E>> {
        self.0.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A place among the generations that can be joined; dropping it ends that.
struct Place<E> {
    flights: Flights<E>,
    key: Key,
    id: u64,
}

impl<E> Drop for Place<E> {
    fn drop(&mut self) {
        let mut open = self.flights.open();
        // A later flight may have taken the place of one that could no longer be joined.
        if open.by_key.get(&self.key).is_some_and(|(id, _)| *id == self.id) {
            let gone = open.by_key.remove(&self.key);
            drop(open);
            drop(gone);
        }
    }
}

/// The work of a leader, not yet begun. Dropped, its readers end without an answer.
pub struct Flight<E> {
    recorder: Recorder<E>,
    place: Place<E>,
}

impl<E: Clone> Flight<E> {
    #[must_use]
    pub fn recording(&self) -> Recording<E> {
        self.recorder.recording()
    }

    /// Does the work: `start` gives the stream (it may wait for a turn and a backend), which is then read to its end. When the
    /// last reader leaves, whichever of the two is under way is dropped, and with it the work behind it.
    pub async fn run<S>(self, start: impl Future<Output = Result<S, E>>) -> Landed<E>
    where
        S: Stream<Item = Result<Event, E>>,
    {
        let Self { recorder, place } = self;
        let recording = recorder.recording();
        let started = tokio::select! {
            biased;
            () = recorder.abandoned() => None,
            started = start => Some(started),
        };
        let ended = match started {
            None => Ended::Abandoned,
            Some(Ok(stream)) => pump(stream, recorder).await,
            Some(Err(error)) => {
                recorder.fail(error);
                Ended::Failed
            }
        };
        Landed { ended, answer: recording.answer(), _place: place }
    }
}

/// A flight that has ended. It can still be joined until this is dropped: keep it until the answer is in the cache, so that
/// nobody starts the same in between.
pub struct Landed<E> {
    pub ended: Ended,
    /// The whole answer, if there is one and it fitted.
    pub answer: Option<Answer>,
    _place: Place<E>,
}

#[cfg(test)]
#[path = "singleflight_tests.rs"]
mod tests;
