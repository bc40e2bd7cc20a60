//! The events of a backend on their way: bounded in time, paid for, ended exactly once.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use futures_util::Stream;
use tokio::time::Sleep;

use super::deadline::Bounds;
use super::error::{Error, Stage};
use super::held::Held;
use super::learning::Lesson;
use crate::backends::{self, Events};
use crate::domain::generation::{Delta, Event, Finish};
use crate::limits::Reservation;

/// A backend that has begun to answer.
pub struct Started {
    pub backend: Arc<str>,
    pub first: Event,
    pub events: Events,
    pub held: Held,
    /// Set before the answer is given out.
    pub lesson: Option<Lesson>,
}

impl Started {
    /// When the backend was asked.
    pub fn asked_at(&self) -> Instant {
        self.held.began()
    }

    pub fn learning(mut self, lesson: Lesson) -> Self {
        self.lesson = Some(lesson);
        self
    }
}

/// A stream of events that ends with [`Event::Done`] or an error. Dropping it drops the backend's work and settles what it used.
pub struct Production {
    /// `None` once the end was reached: the backend's work is dropped at that moment, not when the client is done reading.
    running: Option<Running>,
    /// `None` for the gateway's own questions.
    reservation: Option<Reservation>,
    pieces: u64,
    between: Option<Duration>,
    bounds: Bounds,
}

struct Running {
    started: Started,
    /// Taken when it was given out.
    first: Option<Event>,
    silence: Option<(Pin<Box<Sleep>>, Duration)>,
}

impl Production {
    /// `between` is the longest silence between two events.
    pub fn new(started: Started, mut reservation: Option<Reservation>, between: Option<Duration>, bounds: Bounds) -> Self {
        if let Some(reservation) = &mut reservation {
            reservation.generated(0);
        }
        Self { running: Some(Running::new(started, between)), reservation, pieces: 0, between, bounds }
    }

    /// The same answer goes on elsewhere.
    pub fn go_on(&mut self, started: Started) {
        self.running = Some(Running::new(started, self.between));
    }

    fn done(&mut self, finish: &mut Finish) {
        let Some(mut running) = self.running.take() else { return };
        let (usage, lesson) = (finish.usage, running.started.lesson.take());
        running.started.held.done(&usage);
        let prompt = usage.prompt_tokens.or_else(|| Some(lesson.as_ref()?.prompt_tokens()));
        if let Some(reservation) = &mut self.reservation {
            reservation.settle(prompt.unwrap_or_default(), usage.completion_tokens.unwrap_or_default().max(self.pieces));
        }
        if let Some(lesson) = lesson {
            lesson.learn(&running.started.backend, finish);
        }
    }
}

impl Running {
    fn new(mut started: Started, between: Option<Duration>) -> Self {
        let first = Some(std::mem::replace(&mut started.first, Event::Delta(Delta::default())));
        let silence = between.map(|most| (Box::pin(tokio::time::sleep(most)), most));
        Self { started, first, silence }
    }

    /// The next event. An end without a final event is an error: the gateway owns the end of a stream.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<Event, Error>> {
        if let Some(first) = self.first.take() {
            return Poll::Ready(Ok(first));
        }
        let Poll::Ready(event) = Pin::new(&mut self.started.events).poll_next(cx) else { return self.poll_silence(cx) };
        if let Some((sleep, most)) = &mut self.silence {
            sleep.as_mut().reset(tokio::time::Instant::now() + *most);
        }
        let cut = || backends::Error::Protocol { message: "it ended without a final object".into() };
        let event = event.unwrap_or_else(|| Err(cut()));
        Poll::Ready(event.map_err(|source| {
            self.started.held.failed(&source);
            Error::Backend { backend: self.started.backend.to_string(), source }
        }))
    }

    fn poll_silence(&mut self, cx: &mut Context<'_>) -> Poll<Result<Event, Error>> {
        let Some((sleep, most)) = &mut self.silence else { return Poll::Pending };
        std::task::ready!(sleep.as_mut().poll(cx));
        self.started.held.failed(&backends::Error::Stalled { stage: "generating", silent: *most });
        Poll::Ready(Err(Error::TooSlow { stage: Stage::Generating, allowed: *most }))
    }
}

impl Stream for Production {
    type Item = Result<Event, Error>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = &mut *self;
        let Some(running) = &mut this.running else {
            return Poll::Ready(None);
        };
        let mut event = match this.bounds.poll(cx) {
            Poll::Ready(error) => Err(error),
            Poll::Pending => std::task::ready!(running.poll(cx)),
        };
        match &mut event {
            Ok(Event::Delta(_)) => {
                running.started.held.piece();
                this.pieces += 1;
                if let Some(reservation) = &mut this.reservation {
                    reservation.generated(this.pieces);
                }
            }
            Ok(Event::Done(finish)) => this.done(finish),
            Err(_) => this.running = None,
        }
        Poll::Ready(Some(event))
    }
}
