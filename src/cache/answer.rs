//! A finished answer as it is kept: the pieces it came in, with the time of each.
//!
//! It is given back as the stream it was, piece by piece. The pieces are shared with the recording they come from and with every
//! replay; a copy is made only of the piece that is being given out.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use futures_util::Stream;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use tokio::time::{Instant, Sleep};

use crate::domain::generation::{Event, Finish, FinishReason};

/// One event of an answer, and when it came.
#[derive(Debug, Clone, PartialEq)]
pub struct Piece {
    /// Since the start of the recording.
    pub at: Duration,
    pub event: Event,
    bytes: usize,
}

impl Piece {
    #[must_use]
    pub fn new(at: Duration, event: Event) -> Self {
        let bytes = size_of::<Self>() + content_bytes(&event);
        Self { at, event, bytes }
    }

    /// Memory it takes, roughly: never less than its texts.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes
    }
}

fn content_bytes(event: &Event) -> usize {
    match event {
        Event::Delta(delta) => delta.text.len() + delta.thinking.len() + map_bytes(&delta.extra),
        Event::Done(finish) => {
            size_of::<Finish>() + finish.context.as_ref().map_or(0, |context| context.len() * 4) + map_bytes(&finish.extra)
        }
    }
}

fn map_bytes(map: &Map<String, Value>) -> usize {
    map.iter().map(|(name, value)| name.len() + size_of::<String>() + value_bytes(value)).sum()
}

fn value_bytes(value: &Value) -> usize {
    size_of::<Value>()
        + match value {
            Value::String(text) => text.len(),
            Value::Array(items) => items.iter().map(value_bytes).sum(),
            Value::Object(map) => map_bytes(map),
            _ => 0,
        }
}

/// How fast an answer is given back.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Speed {
    /// As fast as it is read.
    #[default]
    Full,
    /// With the pauses it was made with.
    Original,
}

/// A whole answer: deltas, then [`Event::Done`].
#[derive(Debug, Clone, PartialEq)]
pub struct Answer {
    pieces: Box<[Arc<Piece>]>,
    bytes: usize,
}

impl Answer {
    /// `None` unless there is exactly one [`Event::Done`], at the end.
    pub fn new(pieces: impl IntoIterator<Item = Arc<Piece>>) -> Option<Self> {
        let pieces: Box<[_]> = pieces.into_iter().collect();
        let bytes = size_of::<Self>() + pieces.iter().map(|piece| piece.bytes() + size_of::<usize>() * 3).sum::<usize>();
        let (last, others) = pieces.split_last()?;
        let is_whole = matches!(last.event, Event::Done(_)) && others.iter().all(|piece| matches!(piece.event, Event::Delta(_)));
        is_whole.then_some(Self { pieces, bytes })
    }

    #[must_use]
    pub fn pieces(&self) -> &[Arc<Piece>] {
        &self.pieces
    }

    /// Memory it takes, roughly.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// How it ended and what it cost when it was made.
    #[must_use]
    pub fn finish(&self) -> Option<&Finish> {
        match self.pieces.last().map(|piece| &piece.event) {
            Some(Event::Done(finish)) => Some(finish),
            _ => None,
        }
    }

    /// Whether it is an answer to be given again: text that ended by itself or at a bound of the request, not the loading of a
    /// model or an end that this version does not know.
    #[must_use]
    pub fn is_worth_keeping(&self) -> bool {
        self.finish().is_some_and(|finish| matches!(finish.reason, FinishReason::Stop | FinishReason::Length))
    }

    /// The stream it was.
    #[must_use]
    pub fn replay(self: Arc<Self>, speed: Speed) -> Replay {
        self.replay_from(speed, 1)
    }

    /// The same from the event with this number on; 1 is the first.
    #[must_use]
    pub fn replay_from(self: Arc<Self>, speed: Speed, number: u64) -> Replay {
        let next = usize::try_from(number.saturating_sub(1)).unwrap_or(usize::MAX).min(self.pieces.len());
        // Pauses count from the event before the first one given, so that a resumed replay does not wait for all that is past.
        let past = next.checked_sub(1).and_then(|before| self.pieces.get(before)).map_or(Duration::ZERO, |piece| piece.at);
        let pacing = (speed == Speed::Original).then(|| Pacing { past, started: None, sleep: None });
        Replay { answer: self, next, pacing }
    }
}

#[derive(Debug)]
struct Pacing {
    past: Duration,
    /// When the replay was first polled.
    started: Option<Instant>,
    sleep: Option<Pin<Box<Sleep>>>,
}

impl Pacing {
    fn poll(&mut self, at: Duration, context: &mut Context<'_>) -> Poll<()> {
        let started = *self.started.get_or_insert_with(Instant::now);
        let due = started + at.saturating_sub(self.past);
        let sleep = self.sleep.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(due)));
        ready!(sleep.as_mut().poll(context));
        self.sleep = None;
        Poll::Ready(())
    }
}

/// An answer on its way out once more. Never fails.
#[derive(Debug)]
pub struct Replay {
    answer: Arc<Answer>,
    next: usize,
    pacing: Option<Pacing>,
}

impl Stream for Replay {
    type Item = Event;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Event>> {
        let this = &mut *self;
        let Some(piece) = this.answer.pieces.get(this.next) else { return Poll::Ready(None) };
        if let Some(pacing) = &mut this.pacing {
            ready!(pacing.poll(piece.at, context));
        }
        this.next += 1;
        Poll::Ready(Some(piece.event.clone()))
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        let left = self.answer.pieces.len() - self.next;
        (left, Some(left))
    }
}

#[cfg(test)]
#[path = "answer_tests.rs"]
mod tests;
