//! Sending a file: read in pieces while it goes out, watched for whether it does.

use std::io;
use std::path::Path;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http::{Response, StatusCode};
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use tokio::fs::File;
use tokio::io::{AsyncRead, ReadBuf};
use tokio::time::{Instant, MissedTickBehavior, interval};

use super::{Error, Shelf};
use crate::backends::Error as Failure;
use crate::backends::ollama::client;
use crate::domain::digest::Digest;

/// What is read and sent at a time.
const PIECE_BYTES: usize = 256 * 1024;
/// Between two looks at whether bytes go out.
const TICK: Duration = Duration::from_millis(100);
/// How the server begins when the bytes were other ones.
const MISMATCH: &str = "digest mismatch";

/// A file on its way out. The body of a request.
#[derive(Debug)]
pub struct Upload {
    file: File,
    left: u64,
    piece: Box<[u8]>,
    sent: Arc<Sent>,
}

/// How far a file has come.
#[derive(Debug, Default)]
pub struct Sent {
    bytes: AtomicU64,
    /// The file ended before its length, or could not be read.
    broken: AtomicBool,
}

impl Sent {
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }
}

impl Upload {
    /// # Errors
    /// A file that is not there or cannot be read.
    pub async fn open(path: &Path) -> io::Result<Self> {
        let file = File::open(path).await?;
        let about = file.metadata().await?;
        if !about.is_file() {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is not a file"));
        }
        Ok(Self { file, left: about.len(), piece: vec![0; PIECE_BYTES].into(), sent: Arc::default() })
    }

    #[must_use]
    pub fn size_bytes(&self) -> u64 {
        self.left
    }

    #[must_use]
    pub fn sent(&self) -> Arc<Sent> {
        Arc::clone(&self.sent)
    }

    fn poll_piece(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Bytes>> {
        let wanted = usize::try_from(self.left).unwrap_or(usize::MAX).min(self.piece.len());
        let mut piece = ReadBuf::new(&mut self.piece[..wanted]);
        ready!(Pin::new(&mut self.file).poll_read(cx, &mut piece))?;
        if piece.filled().is_empty() {
            return Poll::Ready(Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the file became shorter while it was sent")));
        }
        Poll::Ready(Ok(Bytes::copy_from_slice(piece.filled())))
    }
}

impl Body for Upload {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        let this = self.get_mut();
        if this.left == 0 {
            return Poll::Ready(None);
        }
        let piece = ready!(this.poll_piece(cx));
        Poll::Ready(Some(match piece {
            Ok(piece) => {
                this.left -= piece.len() as u64;
                this.sent.bytes.fetch_add(piece.len() as u64, Ordering::Relaxed);
                Ok(Frame::data(piece))
            }
            Err(error) => {
                this.sent.broken.store(true, Ordering::Relaxed);
                Err(error)
            }
        }))
    }

    fn is_end_stream(&self) -> bool {
        self.left == 0
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left)
    }
}

impl Shelf {
    /// Gives the server a file, whether it has it or not. `told` hears now and then how many bytes of how many have gone out.
    ///
    /// # Errors
    /// A file that cannot be read or has another digest, and whatever the server or the way to it failed with.
    pub async fn upload(&self, path: &Path, digest: &Digest, told: &(dyn Fn(u64, u64) + Sync)) -> Result<u64, Error> {
        let unreadable = |source| Error::File { path: path.to_owned(), source };
        let upload = Upload::open(path).await.map_err(unreadable)?;
        let (size_bytes, sent) = (upload.size_bytes(), upload.sent());
        let target = format!("/api/blobs/{digest}");
        let sending = self.client.upload(&target, upload);
        let answered = self.watched(sending, &sent, size_bytes, told).await;
        if sent.broken.load(Ordering::Relaxed) {
            return Err(unreadable(io::Error::new(io::ErrorKind::UnexpectedEof, "it changed, or could not be read, while it was sent")));
        }
        match answered {
            Ok(response) => judge(response, path, digest).await?,
            // A server that has the file may answer and close without reading it.
            Err(error) => self.has(digest).await.unwrap_or(false).then_some(()).ok_or(error)?,
        }
        told(size_bytes, size_bytes);
        Ok(size_bytes)
    }

    /// Waits for the answer as long as bytes go out.
    async fn watched(
        &self,
        sending: impl Future<Output = Result<Response<Incoming>, Failure>>,
        sent: &Sent,
        size_bytes: u64,
        told: &(dyn Fn(u64, u64) + Sync),
    ) -> Result<Response<Incoming>, Failure> {
        let mut sending = pin!(sending);
        let mut ticks = interval(TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (mut before, mut moved) = (0, Instant::now());
        loop {
            tokio::select! {
                biased;
                answered = &mut sending => return answered,
                _ = ticks.tick() => {}
            }
            let now = sent.bytes();
            if now != before {
                (before, moved) = (now, Instant::now());
                told(now, size_bytes);
            }
            let (stage, silent) = if now < size_bytes {
                ("taking a file", self.patience.upload_stall)
            } else {
                ("checking a file it was given", self.patience.upload_end)
            };
            if moved.elapsed() > silent {
                return Err(Failure::Stalled { stage, silent });
            }
        }
    }
}

/// 201: taken. 200: it was there.
async fn judge(response: Response<Incoming>, path: &Path, digest: &Digest) -> Result<(), Error> {
    if matches!(response.status(), StatusCode::OK | StatusCode::CREATED) {
        return Ok(());
    }
    match client::refused(response, "").await {
        Failure::Refused { message, .. } if message.starts_with(MISMATCH) => {
            Err(Error::Digest { path: path.to_owned(), digest: *digest, message })
        }
        error => Err(error.into()),
    }
}
