//! The figures of the cache of answers, of recordings and of shared generations.

use super::{
    ANSWER_BYTES, ANSWER_ENTRIES, ANSWER_LOOKUPS, ANSWERS_DROPPED, ANSWERS_REMOVED, FLIGHTS_JOINED, FLIGHTS_REFUSED, Metrics,
    RECORDINGS_OVER_BOUND, number,
};

/// Where answers are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tier {
    Memory,
    /// The database.
    Durable,
}

impl Tier {
    pub const ALL: [Self; 2] = [Self::Memory, Self::Durable];

    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Memory => "memory",
            Self::Durable => "durable",
        }
    }
}

/// Why an answer is no longer kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Removed {
    /// Others needed the room.
    Size,
    Age,
    Purge,
    /// It could not be read.
    Damage,
}

impl Removed {
    pub const ALL: [Self; 4] = [Self::Size, Self::Age, Self::Purge, Self::Damage];

    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Size => "size",
            Self::Age => "age",
            Self::Purge => "purge",
            Self::Damage => "damage",
        }
    }
}

/// Why an answer did not reach the database.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unwritten {
    /// As many wait to be written as may.
    QueueFull,
    /// The database could not be written before the process ended, or the answer has no form there.
    Storage,
    /// It is larger than any one may be.
    TooLarge,
}

impl Unwritten {
    pub const ALL: [Self; 3] = [Self::QueueFull, Self::Storage, Self::TooLarge];

    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::QueueFull => "queue_full",
            Self::Storage => "storage",
            Self::TooLarge => "too_large",
        }
    }
}

impl Metrics {
    /// A request for which the cache did something; both words are from closed sets.
    pub fn answer_lookup(&self, status: &'static str, why: &'static str) {
        self.0.registry.counter(&ANSWER_LOOKUPS, &[status, why]).increment(1);
    }

    /// What a tier holds now.
    pub fn answers_kept(&self, tier: Tier, entries: u64, bytes: u64) {
        self.0.registry.gauge(&ANSWER_ENTRIES, &[tier.as_str()]).set(number(entries));
        self.0.registry.gauge(&ANSWER_BYTES, &[tier.as_str()]).set(number(bytes));
    }

    pub fn answers_removed(&self, tier: Tier, reason: Removed, answers: u64) {
        self.0.registry.counter(&ANSWERS_REMOVED, &[tier.as_str(), reason.as_str()]).increment(answers);
    }

    pub fn answers_dropped(&self, reason: Unwritten, answers: u64) {
        self.0.registry.counter(&ANSWERS_DROPPED, &[reason.as_str()]).increment(answers);
    }

    /// A request reads along with an equal one.
    pub fn flight_joined(&self) {
        self.0.registry.counter(&FLIGHTS_JOINED, &[]).increment(1);
    }

    /// A request could not be made joinable.
    pub fn flight_refused(&self) {
        self.0.registry.counter(&FLIGHTS_REFUSED, &[]).increment(1);
    }

    /// An answer outgrew what is kept of one while it is made.
    pub fn recording_over_bound(&self) {
        self.0.registry.counter(&RECORDINGS_OVER_BOUND, &[]).increment(1);
    }

    pub(super) fn start_answers_at_zero(&self) {
        for tier in Tier::ALL {
            self.answers_kept(tier, 0, 0);
            for reason in Removed::ALL {
                self.answers_removed(tier, reason, 0);
            }
        }
        for reason in Unwritten::ALL {
            self.answers_dropped(reason, 0);
        }
        for counter in [&FLIGHTS_JOINED, &FLIGHTS_REFUSED, &RECORDINGS_OVER_BOUND] {
            self.0.registry.counter(counter, &[]).absolute(0);
        }
    }
}
