//! How long a generation may take, and whether whoever asked may go on.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use tokio::time::Sleep;
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

use super::error::{Error, Stage};

/// When a generation's time is up, and how long it was.
#[derive(Debug, Clone, Copy)]
pub struct Deadline {
    pub at: Instant,
    pub allowed: Duration,
}

impl Deadline {
    pub fn after(allowed: Duration) -> Self {
        Self { at: Instant::now() + allowed, allowed }
    }
}

/// What waits for its turn has its deadline watched where it waits, which can say more of it; this comes after.
const AFTER_THE_QUEUE: Duration = Duration::from_millis(100);

/// Does work, but no longer than until the deadline.
///
/// # Errors
/// That the time was up before the work was done; the work is dropped then.
pub async fn within<T>(deadline: Option<Deadline>, work: impl Future<Output = T>) -> Result<T, Error> {
    match deadline {
        None => Ok(work.await),
        Some(Deadline { at, allowed }) => {
            let late = |_| Error::Deadline { stage: Stage::Waiting, allowed };
            tokio::time::timeout_at((at + AFTER_THE_QUEUE).into(), work).await.map_err(late)
        }
    }
}

/// What ends an answer from outside: its deadline, the end of the key it was asked with, and someone who stops it.
#[derive(Default)]
pub struct Bounds {
    deadline: Option<(Pin<Box<Sleep>>, Deadline)>,
    ended: Option<Pin<Box<WaitForCancellationFutureOwned>>>,
    stopped: Option<Pin<Box<WaitForCancellationFutureOwned>>>,
}

impl Bounds {
    pub fn new(deadline: Option<Deadline>, ended: Option<CancellationToken>) -> Self {
        Self {
            deadline: deadline.map(|deadline| (Box::pin(tokio::time::sleep_until(deadline.at.into())), deadline)),
            ended: ended.map(|token| Box::pin(token.cancelled_owned())),
            stopped: None,
        }
    }

    /// The same for an answer that can be stopped.
    #[must_use]
    pub fn stopped_by(self, stop: Option<CancellationToken>) -> Self {
        Self { stopped: stop.map(|token| Box::pin(token.cancelled_owned())), ..self }
    }

    /// Ready when the answer must end, with the reason.
    pub fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Error> {
        if let Some((sleep, deadline)) = &mut self.deadline
            && sleep.as_mut().poll(cx).is_ready()
        {
            return Poll::Ready(Error::Deadline { stage: Stage::Generating, allowed: deadline.allowed });
        }
        let is_cancelled = |token: &mut Option<Pin<Box<WaitForCancellationFutureOwned>>>, cx: &mut Context<'_>| {
            token.as_mut().is_some_and(|token| token.as_mut().poll(cx).is_ready())
        };
        if is_cancelled(&mut self.ended, cx) {
            return Poll::Ready(Error::KeyEnded);
        }
        if is_cancelled(&mut self.stopped, cx) { Poll::Ready(Error::Stopped) } else { Poll::Pending }
    }
}
