//! Why a request is not served by the queue.

use std::time::Duration;

use crate::domain::blame::{Blame, Retry};

#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum Refusal {
    #[error("the queue is full: {ahead} requests wait already, and no more than {most} may")]
    Full {
        ahead: usize,
        most: usize,
        /// When there may be room.
        retry_after: Duration,
    },
    #[error(
        "the queue is full: {ahead} requests with {ahead_bytes} bytes wait already, and with the {own_bytes} of this one it would be more than {most_bytes}"
    )]
    TooLarge {
        ahead: usize,
        ahead_bytes: usize,
        own_bytes: usize,
        most_bytes: usize,
        /// When there may be room.
        retry_after: Duration,
    },
    #[error("the request would wait about {:.1} s, which is longer than it can", eta.as_secs_f64())]
    TooLate {
        eta: Duration,
        /// When the wait may have become short enough.
        retry_after: Duration,
    },
    #[error("no slot fell free within {:.1} s", waited.as_secs_f64())]
    Expired { waited: Duration },
    #[error("an urgent request took the place of this one")]
    Displaced { retry_after: Duration },
    #[error("no backend is there to serve the request")]
    NoBackend,
}

impl Refusal {
    #[must_use]
    pub fn blame(&self) -> Blame {
        match self {
            Self::Full { .. } | Self::TooLarge { .. } | Self::TooLate { .. } | Self::Expired { .. } | Self::Displaced { .. } => {
                Blame::Gateway
            }
            Self::NoBackend => Blame::Upstream,
        }
    }

    #[must_use]
    pub fn retry(&self) -> Retry {
        match *self {
            Self::Full { retry_after, .. }
            | Self::TooLarge { retry_after, .. }
            | Self::TooLate { retry_after, .. }
            | Self::Displaced { retry_after } => Retry::After(retry_after),
            Self::Expired { .. } | Self::NoBackend => Retry::Elsewhere,
        }
    }

    /// A short word from a closed set, for metrics, rows and clients.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Full { .. } | Self::TooLarge { .. } => "queue_full",
            Self::TooLate { .. } => "queue_too_long",
            Self::Expired { .. } => "queue_expired",
            Self::Displaced { .. } => "displaced",
            Self::NoBackend => "no_backend",
        }
    }

    /// Every word of [`Refusal::kind`].
    pub const KINDS: [&'static str; 5] = ["queue_full", "queue_too_long", "queue_expired", "displaced", "no_backend"];
}
