//! The events of an answer whose progress is followed.

use std::pin::Pin;
use std::task::{Context, Poll};

use futures_util::Stream;
use tokio_util::sync::WaitForCancellationFutureOwned;

use super::Ticket;
use crate::backends::Error;
use crate::domain::generation::Event;

/// Passes events on, telling the guard of each; ends with [`Error::Wedged`] when the guard says that there is no use in waiting.
pub struct Tracked<S> {
    /// `None`: it has ended.
    inner: Option<S>,
    let_go: Pin<Box<WaitForCancellationFutureOwned>>,
    /// Tokens of a prompt that was allowed to be cut, and was.
    cut_from: Option<u64>,
    ticket: Ticket,
}

impl<S> Tracked<S> {
    pub fn new(inner: S, ticket: Ticket, cut_from: Option<u64>) -> Self {
        Self { inner: Some(inner), let_go: Box::pin(ticket.let_go()), cut_from, ticket }
    }
}

impl<S: Stream<Item = Result<Event, Error>> + Unpin> Stream for Tracked<S> {
    type Item = Result<Event, Error>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = self.get_mut();
        let Some(inner) = this.inner.as_mut() else { return Poll::Ready(None) };
        match Pin::new(inner).poll_next(cx) {
            Poll::Ready(Some(Ok(mut event))) => {
                this.ticket.said();
                if let Event::Done(finish) = &mut event {
                    this.ticket.finished(finish, this.cut_from);
                }
                Poll::Ready(Some(Ok(event)))
            }
            Poll::Pending if this.let_go.as_mut().poll(cx).is_ready() => {
                this.inner = None;
                Poll::Ready(Some(Err(this.ticket.wedged())))
            }
            other => other,
        }
    }
}
