//! What is collected to learn from.

use super::{COLLECTED, COLLECTED_BYTES, COLLECTED_EXCHANGES, COLLECTED_REMOVED, Metrics, UNCOLLECTED, number};

/// Why an exchange that might have been collected was not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Uncollected {
    /// More came than could be written, and the queue was full.
    QueueFull,
    /// The database could not be written.
    Storage,
    /// It is larger than what is kept of one.
    TooLarge,
    /// It is no conversation of texts: images, a gap to be filled, a text without its template, …
    NotText,
    /// The prompt was cut to fit, or the answer was cut and mended.
    NotWhole,
}

impl Uncollected {
    pub const ALL: [Self; 5] = [Self::QueueFull, Self::Storage, Self::TooLarge, Self::NotText, Self::NotWhole];

    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::QueueFull => "queue_full",
            Self::Storage => "storage",
            Self::TooLarge => "too_large",
            Self::NotText => "not_text",
            Self::NotWhole => "not_whole",
        }
    }
}

/// Why an exchange is no longer there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Forgotten {
    /// Room for others.
    Size,
    Age,
    /// Somebody wanted it.
    Request,
}

impl Forgotten {
    pub const ALL: [Self; 3] = [Self::Size, Self::Age, Self::Request];

    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Size => "size",
            Self::Age => "age",
            Self::Request => "request",
        }
    }
}

impl Metrics {
    pub(super) fn start_collection_at_zero(&self) {
        self.0.registry.counter(&COLLECTED, &[]).absolute(0);
        for reason in Uncollected::ALL {
            self.0.registry.counter(&UNCOLLECTED, &[reason.as_str()]).absolute(0);
        }
        for reason in Forgotten::ALL {
            self.0.registry.counter(&COLLECTED_REMOVED, &[reason.as_str()]).absolute(0);
        }
        self.collection_size(0, 0);
    }

    /// So many exchanges reached the database.
    pub fn collected(&self, exchanges: u64) {
        self.0.registry.counter(&COLLECTED, &[]).increment(exchanges);
    }

    pub fn uncollected(&self, reason: Uncollected, exchanges: u64) {
        self.0.registry.counter(&UNCOLLECTED, &[reason.as_str()]).increment(exchanges);
    }

    pub fn collected_removed(&self, reason: Forgotten, exchanges: u64) {
        self.0.registry.counter(&COLLECTED_REMOVED, &[reason.as_str()]).increment(exchanges);
    }

    /// How much is there.
    pub fn collection_size(&self, exchanges: u64, bytes: u64) {
        self.0.registry.gauge(&COLLECTED_EXCHANGES, &[]).set(number(exchanges));
        self.0.registry.gauge(&COLLECTED_BYTES, &[]).set(number(bytes));
    }
}
