//! The events of an answer on their way to one client: timed, counted, and its end noted exactly once.

use std::pin::Pin;
use std::task::{Context, Poll};

use futures_util::Stream;
use futures_util::stream::BoxStream;

use super::deadline::Bounds;
use super::error::Error;
use super::record::Record;
use crate::backends;
use crate::domain::generation::Event;

/// Fuses, times and bounds events. Dropping it drops what makes them and closes the record.
pub struct Metered {
    /// `None` once the end was reached.
    events: Option<BoxStream<'static, Result<Event, Error>>>,
    bounds: Bounds,
    record: Record,
}

impl Metered {
    pub fn new(events: BoxStream<'static, Result<Event, Error>>, record: Record, bounds: Bounds) -> Self {
        Self { events: Some(events), bounds, record }
    }

    pub fn record(&self) -> &Record {
        &self.record
    }

    fn end(&mut self, outcome: Result<&Event, &Error>) {
        self.events = None;
        match outcome {
            Ok(Event::Done(finish)) => self.record.done(finish),
            Ok(Event::Delta(_)) => {}
            Err(error) => self.record.failed(error.blame(), error.kind()),
        }
    }
}

impl Stream for Metered {
    type Item = Result<Event, Error>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = &mut *self;
        let Some(events) = &mut this.events else {
            return Poll::Ready(None);
        };
        let event = match this.bounds.poll(cx) {
            Poll::Ready(error) => Err(error),
            Poll::Pending => std::task::ready!(events.as_mut().poll_next(cx)).unwrap_or_else(|| Err(cut())),
        };
        match &event {
            Ok(Event::Delta(delta)) => self.record.piece(delta),
            end => self.end(end.as_ref()),
        }
        Poll::Ready(Some(event))
    }
}

/// A recording that ends without its last event.
fn cut() -> Error {
    let source = backends::Error::Protocol { message: "the answer ended without its final object".into() };
    Error::Backend { backend: "shared".to_owned(), source }
}
