//! The events of a backend on their way to the client: timed, counted, bounded by the deadline, ended exactly once.

use std::pin::Pin;
use std::task::{Context, Poll};

use futures_util::Stream;
use tokio::time::Sleep;

use super::attempt::Accepted;
use super::deadline::Deadline;
use super::error::{Error, Stage};
use super::record::Record;
use crate::backends::{self, Events};
use crate::domain::generation::Event;
use crate::models::InFlight;

/// Fuses, times and bounds a backend's events. Dropping it drops the backend's work and closes the record.
pub struct Metered {
    /// `None` once the end was reached: the backend's work is dropped at that moment, not when the client is done reading.
    running: Option<Running>,
    record: Record,
}

struct Running {
    backend: String,
    events: Events,
    deadline: Option<(Pin<Box<Sleep>>, Deadline)>,
    _in_flight: InFlight,
}

impl Metered {
    pub fn new(accepted: Accepted, deadline: Option<Deadline>, mut record: Record) -> Self {
        let deadline = deadline.map(|deadline| (Box::pin(tokio::time::sleep_until(deadline.at.into())), deadline));
        let backend = accepted.entry.backend.name().to_owned();
        record.accepted(&backend);
        Self { running: Some(Running { backend, events: accepted.events, deadline, _in_flight: accepted.in_flight }), record }
    }

    pub fn record(&self) -> &Record {
        &self.record
    }

    fn end(&mut self, outcome: Result<&Event, &Error>) {
        self.running = None;
        match outcome {
            Ok(Event::Done(finish)) => self.record.done(finish),
            Ok(Event::Delta(_)) => {}
            Err(error) => self.record.failed(error.blame(), error.kind()),
        }
    }
}

impl Running {
    /// The next event. An end without a final event is an error: the gateway owns the end of a stream.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<Event, Error>> {
        if let Some((sleep, deadline)) = &mut self.deadline
            && sleep.as_mut().poll(cx).is_ready()
        {
            return Poll::Ready(Err(Error::Deadline { stage: Stage::Generating, allowed: deadline.allowed }));
        }
        let failed = |backend: &str, source| Error::Backend { backend: backend.to_owned(), source };
        Pin::new(&mut self.events).poll_next(cx).map(|event| match event {
            Some(event) => event.map_err(|source| failed(&self.backend, source)),
            None => Err(failed(&self.backend, backends::Error::Protocol { message: "it ended without a final object".into() })),
        })
    }
}

impl Stream for Metered {
    type Item = Result<Event, Error>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let Some(running) = &mut self.running else {
            return Poll::Ready(None);
        };
        let event = std::task::ready!(running.poll(cx));
        match &event {
            Ok(Event::Delta(delta)) => self.record.piece(delta),
            end => self.end(end.as_ref()),
        }
        Poll::Ready(Some(event))
    }
}
