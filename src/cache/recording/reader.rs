//! One of those who read an answer while it is made, or after.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::Stream;

use super::{End, Recording, State, wake};
use crate::cache::answer::Piece;
use crate::domain::generation::Event;

/// Reads events from a number on; a stream that ends after [`Event::Done`] or an error.
pub struct Reader<E> {
    pub(super) recording: Recording<E>,
    pub(super) id: u64,
    pub(super) last: u64,
    pub(super) over: bool,
}

impl<E> Reader<E> {
    /// Number of the event that was read last: what a client gives as `Last-Event-ID`.
    #[must_use]
    pub fn last(&self) -> u64 {
        self.last
    }

    #[must_use]
    pub fn recording(&self) -> Recording<E> {
        self.recording.clone()
    }

    /// When the event that is read next was made, from the start of the recording; `None` while there is none.
    #[must_use]
    pub fn next_at(&self) -> Option<Duration> {
        let state = self.recording.state();
        piece(&state, self.last + 1).map(|piece| piece.at)
    }
}

/// The event with this number, which is not among the forgotten.
fn piece<E>(state: &State<E>, number: u64) -> Option<&Arc<Piece>> {
    state.kept.get(usize::try_from(number.checked_sub(state.first)?).ok()?)
}

impl<E: Clone> Reader<E> {
    fn advance(&mut self, state: &mut State<E>, context: &Context<'_>) -> Poll<Option<Result<Arc<Piece>, E>>> {
        if let Some(found) = piece(state, self.last + 1).cloned() {
            self.last += 1;
            if let Some(place) = state.readers.get_mut(&self.id) {
                place.next = self.last + 1;
            }
            return Poll::Ready(Some(Ok(found)));
        }
        match &state.end {
            None => {
                if let Some(place) = state.readers.get_mut(&self.id) {
                    place.waker = Some(context.waker().clone());
                }
                Poll::Pending
            }
            Some(end) => {
                self.over = true;
                match end {
                    End::Failed(error) => Poll::Ready(Some(Err(error.clone()))),
                    End::Done | End::Cut => Poll::Ready(None),
                }
            }
        }
    }
}

impl<E: Clone> Stream for Reader<E> {
    type Item = Result<Event, E>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if self.over {
            return Poll::Ready(None);
        }
        let recording = self.recording.clone();
        let mut state = recording.state();
        let taken = self.advance(&mut state, context);
        // Only a writer that waits for room has a reason to hear of it.
        let writer = if state.is_over_bound() && taken.is_ready() {
            state.forget();
            state.writer.take()
        } else {
            None
        };
        drop(state);
        wake(writer);
        // The copy is made without the lock.
        taken.map(|item| item.map(|result| result.map(|piece| piece.event.clone())))
    }
}

impl<E> Drop for Reader<E> {
    fn drop(&mut self) {
        let writer = {
            let mut state = self.recording.state();
            state.readers.remove(&self.id);
            state.left()
        };
        wake(writer);
    }
}
