//! Reading a request's body: bounded in size, in the pauses it may make and in the time it may take altogether.

use std::time::Duration;

use axum::body::Body;
use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt;
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use crate::domain::span;

/// What a client may send.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Largest body, in bytes.
    pub max_bytes: usize,
    /// Longest pause between two pieces of a body.
    #[serde(with = "span")]
    pub idle_timeout: Duration,
    /// Slowest average rate, in bytes per second, after the first `idle_timeout`.
    pub min_bytes_per_second: u32,
}

impl Default for Config {
    fn default() -> Self {
        Self { max_bytes: 64 << 20, idle_timeout: Duration::from_secs(10), min_bytes_per_second: 1024 }
    }
}

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("the body has more than {bound_bytes} bytes")]
    TooLarge { bound_bytes: usize },
    #[error("the body comes too slowly: {received_bytes} bytes arrived")]
    TooSlow { received_bytes: usize },
    #[error("the body could not be read: {0}")]
    Broken(String),
}

/// Room that is reserved on a client's word for how much will come, in bytes.
const RESERVED_AT_MOST: u64 = 1 << 20;

/// A body piece by piece, under the same bounds.
pub struct Pieces {
    body: Body,
    config: Config,
    started: Instant,
    /// When something came last.
    last: Instant,
    received_bytes: usize,
}

impl Pieces {
    /// # Errors
    /// When more is announced than may come.
    pub fn new(body: Body, config: Config) -> Result<Self, Error> {
        let now = Instant::now();
        let pieces = Self { body, config, started: now, last: now, received_bytes: 0 };
        if pieces.announced_bytes() > pieces.config.max_bytes as u64 { Err(pieces.too_large()) } else { Ok(pieces) }
    }

    /// What the client says is going to come, at least.
    #[must_use]
    pub fn announced_bytes(&self) -> u64 {
        http_body::Body::size_hint(&self.body).lower()
    }

    fn too_large(&self) -> Error {
        Error::TooLarge { bound_bytes: self.config.max_bytes }
    }

    /// The next piece; `None` at the end. Who stops waiting and asks again loses nothing.
    ///
    /// # Errors
    /// When it breaks a bound, or the connection breaks.
    pub async fn next(&mut self) -> Result<Option<Bytes>, Error> {
        loop {
            let until = (self.last + self.config.idle_timeout).min(slowest(self.started, self.received_bytes, &self.config));
            let frame = tokio::time::timeout_at(until, self.body.frame()).await;
            let frame = frame.map_err(|_| Error::TooSlow { received_bytes: self.received_bytes })?;
            let Some(frame) = frame else { return Ok(None) };
            let Ok(data) = frame.map_err(|error| Error::Broken(error.to_string()))?.into_data() else { continue };
            self.received_bytes += data.len();
            self.last = Instant::now();
            return if self.received_bytes > self.config.max_bytes { Err(self.too_large()) } else { Ok(Some(data)) };
        }
    }
}

/// Reads a whole body.
pub async fn read(body: Body, config: &Config) -> Result<Bytes, Error> {
    let mut pieces = Pieces::new(body, config.clone())?;
    let mut whole = BytesMut::new();
    whole.reserve(usize::try_from(pieces.announced_bytes().min(RESERVED_AT_MOST)).unwrap_or_default());
    while let Some(piece) = pieces.next().await? {
        whole.extend_from_slice(&piece);
    }
    Ok(whole.freeze())
}

/// When more than `received` bytes must have come.
fn slowest(started: Instant, received: usize, config: &Config) -> Instant {
    let at_slowest_rate = received as u64 / u64::from(config.min_bytes_per_second.max(1));
    started + config.idle_timeout + Duration::from_secs(at_slowest_rate)
}

#[cfg(test)]
mod tests {
    use futures_util::stream;

    use super::*;

    fn dripping(pieces: usize, pause: Duration) -> Body {
        let drip = move |n| async move {
            if n == pieces {
                return None;
            }
            tokio::time::sleep(pause).await;
            Some((Ok::<_, std::io::Error>(Bytes::from_static(b"x")), n + 1))
        };
        Body::from_stream(stream::unfold(0, drip))
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_is_read_whole_up_to_the_bound() {
        let config = Config { max_bytes: 10, ..Config::default() };
        assert_eq!(read(Body::from("0123456789"), &config).await.expect("fits").len(), 10);
        assert!(matches!(read(Body::from("0123456789a"), &config).await, Err(Error::TooLarge { bound_bytes: 10 })));
        assert!(matches!(read(dripping(11, Duration::ZERO), &config).await, Err(Error::TooLarge { .. })));
    }

    #[tokio::test(start_paused = true)]
    async fn pauses_and_drips_are_bounded() {
        let config = Config::default();
        assert!(matches!(read(dripping(1, Duration::from_secs(11)), &config).await, Err(Error::TooSlow { received_bytes: 0 })));
        // Each pause is short enough, all of them together are not.
        assert!(matches!(read(dripping(1000, Duration::from_secs(1)), &config).await, Err(Error::TooSlow { .. })));
        assert_eq!(read(dripping(5, Duration::from_secs(1)), &config).await.expect("in time").len(), 5);
    }
}
