//! A socket that gives up on a peer that does not read.
//!
//! Hyper bounds the time a head may take and `api::body` the time a body may; this bounds the other direction: a write that makes no
//! progress for the configured time fails, which ends the connection and with it the work behind it.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep, sleep};

pub struct Guarded<S> {
    socket: S,
    stall_timeout: Duration,
    stalled: Pin<Box<Sleep>>,
    waiting: bool,
}

impl<S> Guarded<S> {
    pub fn new(socket: S, stall_timeout: Duration) -> Self {
        Self { socket, stall_timeout, stalled: Box::pin(sleep(stall_timeout)), waiting: false }
    }

    /// Starts, checks or forgets the time a write has been waiting.
    fn watch<T>(&mut self, cx: &mut Context<'_>, written: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if written.is_ready() {
            self.waiting = false;
            return written;
        }
        if !self.waiting {
            self.waiting = true;
            self.stalled.as_mut().reset(Instant::now() + self.stall_timeout);
        }
        self.stalled.as_mut().poll(cx).map(|()| Err(io::Error::new(io::ErrorKind::TimedOut, "the peer does not read")))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Guarded<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_read(cx, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Guarded<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.socket).poll_write(cx, bytes);
        self.watch(cx, written)
    }

    fn poll_write_vectored(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.socket).poll_write_vectored(cx, bytes);
        self.watch(cx, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.socket.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.socket).poll_flush(cx);
        self.watch(cx, flushed)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let shut = Pin::new(&mut self.socket).poll_shutdown(cx);
        self.watch(cx, shut)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_peer_that_does_not_read_is_given_up() {
        let (near, _far) = duplex(8);
        let mut guarded = Guarded::new(near, Duration::from_secs(5));
        let error = guarded.write_all(&[0; 100]).await.expect_err("the pipe is full");
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    }

    #[tokio::test(start_paused = true)]
    async fn a_slow_reader_is_not() {
        let (near, mut far) = duplex(8);
        let mut guarded = Guarded::new(near, Duration::from_secs(5));
        let read = async {
            let mut total = 0;
            while total < 100 {
                tokio::time::sleep(Duration::from_secs(4)).await;
                total += far.read(&mut [0; 8]).await.expect("open");
            }
        };
        let (written, ()) = tokio::join!(guarded.write_all(&[0; 100]), read);
        written.expect("every pause is short enough");
    }
}
