//! The body of an answer as events.
//!
//! Promises: what one chunk says comes out as soon as the chunk is there; the last item is [`Event::Done`] or an error, and exactly one
//! of them; dropping the stream before closes the connection, dropping it after the end lets the connection serve again.
//! Only time spent waiting for the server counts as its silence: a slow reader does not.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use bytes::Bytes;
use futures_util::Stream;
use http_body::Body;
use http_body_util::BodyExt;
use hyper::rt::Executor;
use hyper_util::rt::TokioExecutor;
use tokio::time::{Instant, Sleep};

use super::connect;
use super::ndjson::Framer;
use super::pulse::Pulse;
use super::wire;
use crate::backends::Error;
use crate::domain::generation::Event;

/// What is read after the end, so that the connection can be used again: the mark that the body is over, usually 5 bytes.
const DRAIN_BYTES: usize = 16 * 1024;
const DRAIN_TIMEOUT: Duration = Duration::from_secs(1);

/// The events of one answer. See the promises of the module.
pub struct Answer<B>
where
    B: Body<Data = Bytes> + Send + Unpin + 'static,
    B::Error: std::error::Error + Send + 'static,
{
    /// `None`: the stream has ended with an error.
    body: Option<B>,
    input: Bytes,
    framer: Framer,
    /// The end, when it came in one line with the last piece.
    last: Option<Event>,
    finished: bool,
    idle: Idle,
    pulse: Arc<Pulse>,
}

impl<B> Answer<B>
where
    B: Body<Data = Bytes> + Send + Unpin + 'static,
    B::Error: std::error::Error + Send + 'static,
{
    pub fn new(body: B, max_line_bytes: usize, idle_timeout: Duration, pulse: Arc<Pulse>) -> Self {
        Self {
            body: Some(body),
            input: Bytes::new(),
            framer: Framer::new(max_line_bytes),
            last: None,
            finished: false,
            idle: Idle::new(idle_timeout),
            pulse,
        }
    }

    /// The next event from what has already come.
    fn take(&mut self) -> Result<Option<Event>, Error> {
        match self.framer.next_line(&mut self.input) {
            Ok(Some(line)) => self.say(&line).map(Some),
            Ok(None) => Ok(None),
            Err(error) => Err(Error::Protocol { message: error.to_string() }),
        }
    }

    fn say(&mut self, line: &[u8]) -> Result<Event, Error> {
        let said = wire::read(line)?;
        let done = said.finish.map(Event::Done);
        self.finished = done.is_some();
        match said.delta {
            Some(delta) => {
                self.last = done;
                Ok(Event::Delta(delta))
            }
            None => done.ok_or_else(|| Error::Protocol { message: "a line says nothing".to_owned() }),
        }
    }

    /// The stream is over without a line that says so, unless that line lacks only its line feed.
    fn end(&mut self) -> Result<Event, Error> {
        let cut = || Error::Protocol { message: "the answer ends without its final object".to_owned() };
        let line = self.framer.finish().ok_or_else(cut)?;
        match self.say(&line)? {
            Event::Delta(_) if !self.finished => Err(cut()),
            event => Ok(event),
        }
    }

    fn fail(&mut self, error: Error) -> Poll<Option<Result<Event, Error>>> {
        self.body = None;
        Poll::Ready(Some(Err(error)))
    }

    /// More bytes into `input`. `Ready(Ok(false))`: there are none.
    fn poll_input(&mut self, cx: &mut Context<'_>) -> Poll<Result<bool, Error>> {
        let Some(body) = self.body.as_mut() else { return Poll::Ready(Ok(false)) };
        loop {
            match Pin::new(&mut *body).poll_frame(cx) {
                Poll::Ready(Some(Ok(frame))) => {
                    self.idle.rest();
                    if let Ok(data) = frame.into_data() {
                        self.pulse.beat();
                        self.input = data;
                        return Poll::Ready(Ok(true));
                    }
                }
                Poll::Ready(Some(Err(error))) => {
                    let message = format!("the connection broke in the middle of the answer ({})", connect::root(&error));
                    return Poll::Ready(Err(Error::Failed { status: None, message }));
                }
                Poll::Ready(None) => return Poll::Ready(Ok(false)),
                Poll::Pending => {
                    ready!(self.idle.poll(cx));
                    return Poll::Ready(Err(Error::Stalled { stage: "generating", silent: self.idle.patience }));
                }
            }
        }
    }
}

impl<B> Stream for Answer<B>
where
    B: Body<Data = Bytes> + Send + Unpin + 'static,
    B::Error: std::error::Error + Send + 'static,
{
    type Item = Result<Event, Error>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = self.get_mut();
        if let Some(event) = this.last.take() {
            return Poll::Ready(Some(Ok(event)));
        }
        if this.finished || this.body.is_none() {
            return Poll::Ready(None);
        }
        loop {
            match this.take() {
                Ok(Some(event)) => return Poll::Ready(Some(Ok(event))),
                Ok(None) => {}
                Err(error) => return this.fail(error),
            }
            match ready!(this.poll_input(cx)) {
                Ok(true) => {}
                Ok(false) => return this.end().map_or_else(|error| this.fail(error), |event| Poll::Ready(Some(Ok(event)))),
                Err(error) => return this.fail(error),
            }
        }
    }
}

impl<B> Drop for Answer<B>
where
    B: Body<Data = Bytes> + Send + Unpin + 'static,
    B::Error: std::error::Error + Send + 'static,
{
    /// A finished answer is read to its very end, for a moment, where the connection itself is driven: its last bytes come
    /// in a packet of their own, and a connection left before them could not be used again.
    fn drop(&mut self) {
        let Some(mut body) = self.body.take().filter(|_| self.finished) else { return };
        let over = matches!(Pin::new(&mut body).poll_frame(&mut Context::from_waker(Waker::noop())), Poll::Ready(None | Some(Err(_))));
        if !over && tokio::runtime::Handle::try_current().is_ok() {
            TokioExecutor::new().execute(async move {
                let _ = tokio::time::timeout(DRAIN_TIMEOUT, drain(body)).await;
            });
        }
    }
}

async fn drain<B: Body<Data = Bytes> + Unpin>(mut body: B) {
    let mut room = DRAIN_BYTES;
    while let Some(Ok(frame)) = body.frame().await {
        let read = frame.data_ref().map_or(0, Bytes::len);
        match room.checked_sub(read) {
            Some(left) => room = left,
            None => return,
        }
    }
}

/// Measures the server's silence, from the first wait after something came.
struct Idle {
    patience: Duration,
    timer: Option<Pin<Box<Sleep>>>,
    running: bool,
}

impl Idle {
    fn new(patience: Duration) -> Self {
        Self { patience, timer: None, running: false }
    }

    fn rest(&mut self) {
        self.running = false;
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let until = Instant::now() + self.patience;
        let timer = self.timer.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(until)));
        if !std::mem::replace(&mut self.running, true) {
            timer.as_mut().reset(until);
        }
        timer.as_mut().poll(cx)
    }
}
