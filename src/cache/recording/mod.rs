//! An answer that is kept while it is made, so that it can be read by several, from the start or from any event.
//!
//! One [`Recorder`] writes; any number of [`Reader`]s read, each at its own pace: what is past at once, then what comes. Events are
//! numbered from 1. Writing never fails and never waits. Beyond the configured bound the oldest events are forgotten, but only
//! those that every reader has had: a recording that forgot something can no longer be read from its start. Whoever writes asks
//! [`Recorder::room`] before each event, and so goes no faster than the slowest reader once the bound is reached, as it would with
//! one client and no recording. How long a client may take to read is bounded where clients are written to, not here.
//!
//! A recording is wanted while someone reads it or keeps a [`Hold`] on it. When the last of them leaves before the end,
//! [`Recorder::abandoned`] resolves and nobody can join any more.

mod reader;

use std::collections::{HashMap, VecDeque};
use std::future::poll_fn;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Instant;

use futures_util::{Stream, StreamExt};
use serde::{Deserialize, Serialize};

use super::answer::{Answer, Piece};
use crate::domain::clock::Clock;
use crate::domain::generation::Event;
use crate::telemetry::Metrics;

pub use reader::Reader;

/// How much of an answer is kept while it is made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Size of the events that are kept of one answer. Beyond it, it can no longer be joined or kept.
    pub max_bytes: usize,
    /// The same in number of events.
    pub max_events: usize,
    /// Answers that can be joined at a time. Beyond it, equal requests each have a generation of their own.
    pub max_flights: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self { max_bytes: 4 << 20, max_events: 65_536, max_flights: 10_000 }
    }
}

/// Why a recording cannot be read from where it was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Gone {
    #[error("the events before number {first} are forgotten: the answer outgrew what is kept of one")]
    Forgotten { first: u64 },
    #[error("no event has the number {asked}: the last one has {last}")]
    Unknown { asked: u64, last: u64 },
    #[error("the generation was stopped because everyone who read it had left")]
    Abandoned,
}

/// Makes a recording and its first reader.
#[must_use]
pub fn recording<E: Clone>(config: &Config, clock: Clock, metrics: Metrics) -> (Recorder<E>, Reader<E>) {
    let shared = Shared { state: Mutex::new(State::new(config)), started: clock.now(), clock, metrics };
    let recording = Recording(Arc::new(shared));
    let reader = recording.reader(&mut recording.state(), 1);
    (Recorder(recording), reader)
}

/// Reads a stream into a recording until it ends, or until nobody wants it any more; either way the stream is dropped, which
/// stops the work behind it. A stream that ends without [`Event::Done`] is a cut answer: its readers just end, too.
pub async fn pump<E, S>(stream: S, mut recorder: Recorder<E>) -> Ended
where
    E: Clone,
    S: Stream<Item = Result<Event, E>>,
{
    let mut stream = std::pin::pin!(stream);
    loop {
        let next = async {
            recorder.room().await;
            stream.next().await
        };
        let item = tokio::select! {
            biased;
            () = recorder.abandoned() => return Ended::Abandoned,
            item = next => item,
        };
        match item {
            Some(Ok(event)) => {
                let is_last = matches!(event, Event::Done(_));
                recorder.push(event);
                if is_last {
                    return Ended::Done;
                }
            }
            Some(Err(error)) => {
                recorder.fail(error);
                return Ended::Failed;
            }
            None => return Ended::Cut,
        }
    }
}

/// How a recording ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    Done,
    Failed,
    /// Without its last event.
    Cut,
    /// Nobody wanted it any more.
    Abandoned,
}

struct Shared<E> {
    state: Mutex<State<E>>,
    started: Instant,
    clock: Clock,
    metrics: Metrics,
}

enum End<E> {
    Done,
    Failed(E),
    Cut,
}

/// Where a reader is.
struct Place {
    /// Number of the event it reads next.
    next: u64,
    waker: Option<Waker>,
}

struct State<E> {
    kept: VecDeque<Arc<Piece>>,
    /// Number of the first event that is kept.
    first: u64,
    bytes: usize,
    max_bytes: usize,
    max_events: usize,
    end: Option<End<E>>,
    readers: HashMap<u64, Place>,
    readers_ever: u64,
    holds: usize,
    abandoned: bool,
    writer: Option<Waker>,
}

impl<E> State<E> {
    fn new(config: &Config) -> Self {
        Self {
            kept: VecDeque::new(),
            first: 1,
            bytes: 0,
            max_bytes: config.max_bytes,
            max_events: config.max_events,
            end: None,
            readers: HashMap::new(),
            readers_ever: 0,
            holds: 0,
            abandoned: false,
            writer: None,
        }
    }

    /// Number of the last event, 0 before the first.
    fn last(&self) -> u64 {
        self.first - 1 + self.kept.len() as u64
    }

    fn is_over_bound(&self) -> bool {
        self.bytes > self.max_bytes || self.kept.len() > self.max_events
    }

    /// Forgets the oldest events that every reader has had, as many as the bound asks for.
    fn forget(&mut self) {
        if !self.is_over_bound() {
            return;
        }
        let needed = self.readers.values().map(|place| place.next).min().unwrap_or(u64::MAX);
        while self.is_over_bound()
            && self.first < needed
            && let Some(piece) = self.kept.pop_front()
        {
            self.bytes -= piece.bytes();
            self.first += 1;
        }
    }

    /// Someone left; whom to tell.
    fn left(&mut self) -> Option<Waker> {
        self.forget();
        if self.readers.is_empty() && self.holds == 0 && self.end.is_none() {
            self.abandoned = true;
        }
        self.writer.take()
    }

    fn sleepers(&mut self) -> Vec<Waker> {
        self.readers.values_mut().filter_map(|place| place.waker.take()).collect()
    }
}

/// A recording, for those who may want to read it. Cheap to clone; does not count as a reader.
pub struct Recording<E>(Arc<Shared<E>>);

impl<E> Clone for Recording<E> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<E> Recording<E> {
    fn state(&self) -> MutexGuard<'_, State<E>> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn reader(&self, state: &mut State<E>, from: u64) -> Reader<E> {
        state.readers_ever += 1;
        let id = state.readers_ever;
        state.readers.insert(id, Place { next: from, waker: None });
        Reader { recording: self.clone(), id, last: from - 1, over: false }
    }

    /// A reader whose first event is number `from`; 1 is the start, and after a `Last-Event-ID` comes that plus one.
    pub fn read(&self, from: u64) -> Result<Reader<E>, Gone> {
        let mut state = self.state();
        let (first, last) = (state.first, state.last());
        match from.max(1) {
            _ if state.abandoned => Err(Gone::Abandoned),
            asked if asked < first => Err(Gone::Forgotten { first }),
            asked if asked > last + 1 => Err(Gone::Unknown { asked, last }),
            asked => Ok(self.reader(&mut state, asked)),
        }
    }

    /// Keeps the generation going although nobody reads it. `None` when it was stopped before.
    #[must_use]
    pub fn hold(&self) -> Option<Hold<E>> {
        let mut state = self.state();
        if state.abandoned {
            return None;
        }
        state.holds += 1;
        Some(Hold(self.clone()))
    }

    /// Whether nothing more will come.
    #[must_use]
    pub fn is_over(&self) -> bool {
        let state = self.state();
        state.end.is_some() || state.abandoned
    }

    /// Whether it may be read by someone who asked the same: from the start, and not of a failure that may be over by now.
    #[must_use]
    pub fn is_sound(&self) -> bool {
        let state = self.state();
        !state.abandoned && state.first == 1 && matches!(state.end, None | Some(End::Done))
    }

    /// The whole answer, when it ended well and nothing of it was forgotten. Its pieces are shared, not copied.
    #[must_use]
    pub fn answer(&self) -> Option<Answer> {
        let state = self.state();
        let is_whole = state.first == 1 && matches!(state.end, Some(End::Done));
        is_whole.then(|| Answer::new(state.kept.iter().cloned())).flatten()
    }

    /// How many events it has had so far.
    #[must_use]
    pub fn last(&self) -> u64 {
        self.state().last()
    }

    /// Size of what is kept of it.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.state().bytes
    }

    /// How many read it now.
    #[must_use]
    pub fn readers(&self) -> usize {
        self.state().readers.len()
    }
}

/// Keeps a generation going until dropped, for a client that is away.
pub struct Hold<E>(Recording<E>);

impl<E> Drop for Hold<E> {
    fn drop(&mut self) {
        let writer = {
            let mut state = self.0.state();
            state.holds -= 1;
            state.left()
        };
        wake(writer);
    }
}

/// The one who writes. Dropped before the end, the answer is cut: its readers end without a last event.
pub struct Recorder<E>(Recording<E>);

impl<E> Recorder<E> {
    #[must_use]
    pub fn recording(&self) -> Recording<E> {
        self.0.clone()
    }

    /// Adds an event and tells its number. [`Event::Done`] is the end: what comes after it is ignored.
    pub fn push(&mut self, event: Event) -> u64 {
        let at = self.0.0.clock.now().saturating_duration_since(self.0.0.started);
        let is_last = matches!(event, Event::Done(_));
        let piece = Arc::new(Piece::new(at, event));
        let mut state = self.0.state();
        if state.end.is_some() {
            return state.last();
        }
        let was_over = state.is_over_bound() || state.first > 1;
        state.bytes += piece.bytes();
        state.kept.push_back(piece);
        if is_last {
            state.end = Some(End::Done);
        }
        let number = state.last();
        if state.is_over_bound() && !was_over {
            self.0.0.metrics.recording_over_bound();
        }
        state.forget();
        let sleepers = state.sleepers();
        drop(state);
        sleepers.into_iter().for_each(Waker::wake);
        number
    }

    /// Ends with an error, which every reader gets after what came before it.
    pub fn fail(self, error: E) {
        self.end(End::Failed(error));
    }

    fn end(&self, end: End<E>) {
        let sleepers = {
            let mut state = self.0.state();
            if state.end.is_none() {
                state.end = Some(end);
            }
            state.sleepers()
        };
        sleepers.into_iter().for_each(Waker::wake);
    }

    /// Resolves when another event has room, which is at once unless the bound is reached and a reader is behind.
    pub async fn room(&self) {
        poll_fn(|context| self.poll(context, |state| !state.is_over_bound())).await;
    }

    /// Resolves when the last of those who wanted it has left.
    pub async fn abandoned(&self) {
        poll_fn(|context| self.poll(context, |state| state.abandoned)).await;
    }

    fn poll(&self, context: &Context<'_>, ready: impl Fn(&State<E>) -> bool) -> Poll<()> {
        let mut state = self.0.state();
        if ready(&state) {
            return Poll::Ready(());
        }
        if !state.writer.as_ref().is_some_and(|waker| waker.will_wake(context.waker())) {
            state.writer = Some(context.waker().clone());
        }
        Poll::Pending
    }
}

impl<E> Drop for Recorder<E> {
    fn drop(&mut self) {
        self.end(End::Cut);
    }
}

fn wake(waker: Option<Waker>) {
    if let Some(waker) = waker {
        waker.wake();
    }
}

#[cfg(test)]
mod tests;
