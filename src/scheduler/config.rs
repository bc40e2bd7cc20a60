//! What can be set about the queue.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::domain::generation::Priority;
use crate::domain::span;

/// How requests wait for their turn.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Requests that may wait; more are refused.
    pub max_waiting: usize,
    /// Bytes that waiting requests may hold together; more are refused.
    pub max_waiting_bytes: usize,
    /// Longest wait of a request that does not say how long it would wait.
    #[serde(with = "span")]
    pub patience: Duration,
    /// How long a class may be passed over by higher ones.
    pub max_wait: MaxWait,
    /// Turns that a class gets at least while it waits.
    pub shares: Shares,
    /// A tenant that comes back may catch up on what it left unused of its share for as long as this.
    #[serde(with = "span")]
    pub tenant_credit: Duration,
    /// How long a model keeps a backend while it has work and others wait for room.
    #[serde(with = "span")]
    pub min_residence: Duration,
    /// The same for models that are slow to load: four times as long as loading takes, but no longer than this.
    #[serde(with = "span")]
    pub max_residence: Duration,
    /// A request for a model that is not loaded should wait no longer than this for its turn.
    #[serde(with = "span")]
    pub swap_within: Duration,
    /// Whether to find out how many requests a backend serves at a time, where that is not configured.
    pub probe_slots: bool,
    /// Time after which a backend that served no more is tried again.
    #[serde(with = "span")]
    pub reprobe_after: Duration,
    /// Whether an urgent request takes the place of a lower one when no more may wait.
    pub displace_waiting: bool,
    /// Whether an urgent request stops a lower one that has given no token yet.
    pub displace_running: bool,
    /// Time between two pieces of news for a request that waits.
    #[serde(with = "span")]
    pub tell_every: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            max_waiting: 10_000,
            max_waiting_bytes: 256 << 20,
            patience: Duration::from_mins(10),
            max_wait: MaxWait::default(),
            shares: Shares::default(),
            tenant_credit: Duration::from_secs(10),
            min_residence: Duration::from_secs(8),
            max_residence: Duration::from_mins(2),
            swap_within: Duration::from_secs(10),
            probe_slots: true,
            reprobe_after: Duration::from_mins(10),
            displace_waiting: true,
            displace_running: false,
            tell_every: Duration::from_millis(500),
        }
    }
}

/// By class: after this long the oldest request of a class that is passed over goes next.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct MaxWait {
    #[serde(with = "span")]
    pub urgent: Duration,
    #[serde(with = "span")]
    pub high: Duration,
    #[serde(with = "span")]
    pub normal: Duration,
    #[serde(with = "span")]
    pub low: Duration,
    #[serde(with = "span")]
    pub batch: Duration,
}

impl Default for MaxWait {
    fn default() -> Self {
        let seconds = Duration::from_secs;
        Self { urgent: seconds(10), high: seconds(20), normal: seconds(45), low: seconds(120), batch: seconds(300) }
    }
}

impl MaxWait {
    #[must_use]
    pub fn of(&self, class: Priority) -> Duration {
        match class {
            Priority::Urgent => self.urgent,
            Priority::High => self.high,
            Priority::Normal => self.normal,
            Priority::Low => self.low,
            Priority::Batch => self.batch,
        }
    }
}

/// By class: of a hundred turns, how many it gets at least while it waits. The highest class that waits gets the rest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Shares {
    pub high: u8,
    pub normal: u8,
    pub low: u8,
    pub batch: u8,
}

impl Default for Shares {
    fn default() -> Self {
        Self { high: 20, normal: 10, low: 5, batch: 2 }
    }
}

impl Shares {
    /// The classes whose share is no part of a hundred.
    #[must_use]
    pub fn wrong(&self) -> Vec<(&'static str, String)> {
        let shares = [("high", self.high), ("normal", self.normal), ("low", self.low), ("batch", self.batch)];
        let wrong = shares.into_iter().filter(|(_, share)| *share > 100);
        wrong.map(|(class, share)| (class, format!("is {share}, but of a hundred turns a class gets at most 100"))).collect()
    }

    /// Turns in a hundred. None for the highest class, which needs no share.
    #[must_use]
    pub fn of(&self, class: Priority) -> u8 {
        match class {
            Priority::Urgent => 0,
            Priority::High => self.high,
            Priority::Normal => self.normal,
            Priority::Low => self.low,
            Priority::Batch => self.batch,
        }
    }
}
