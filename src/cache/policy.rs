//! What the cache may do for one request, and what it did.
//!
//! Pure: the client's wish and the configuration decide, the request itself says whether its answer is determined.

use std::time::Duration;

use super::exact::{Config, Keep};
use super::key::is_deterministic;
use crate::domain::generation::{Ask, CacheMode};

/// What may be done for one request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Policy {
    /// Whether an answer may be taken from the cache.
    pub read: bool,
    /// Whether the answer may be kept.
    pub write: bool,
    /// Whether nothing but the cache may answer.
    pub only: bool,
    /// What is said when nothing is read.
    unread: (Status, Why),
}

impl Policy {
    /// By default, requests whose answer is determined read and write. A client that asks for `refresh` or `only` knows what it
    /// wants: for it, that does not matter. A cache that is switched off neither reads nor writes; `only` is then refused.
    #[must_use]
    pub fn new(config: &Config, mode: Option<CacheMode>, ask: &Ask) -> Self {
        let only = mode == Some(CacheMode::Only);
        let none = |why| Self { read: false, write: false, only, unread: (Status::Bypass, why) };
        if !config.enabled {
            return none(Why::Disabled);
        }
        let reads_and_writes = Self { read: true, write: true, only, unread: (Status::Miss, Why::Absent) };
        match mode {
            Some(CacheMode::Bypass) => none(Why::Asked),
            Some(CacheMode::Refresh) => Self { read: false, unread: (Status::Refresh, Why::Asked), ..reads_and_writes },
            Some(CacheMode::Only) => Self { write: false, ..reads_and_writes },
            Some(CacheMode::Default) | None if config.keep == Keep::Everything || is_deterministic(ask) => reads_and_writes,
            Some(CacheMode::Default) | None => none(Why::NotDeterministic),
        }
    }

    /// Whether the request may share a generation with an equal one: only where an answer from the cache would do, too.
    #[must_use]
    pub fn may_join(&self) -> bool {
        self.read && self.write
    }

    /// What is said of a request for which the cache was not read.
    #[must_use]
    pub fn unread(&self) -> Outcome {
        Outcome { status: self.unread.0, why: self.unread.1, age: None }
    }
}

/// What the cache did for a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Outcome {
    pub status: Status,
    pub why: Why,
    /// Since the answer was made; with [`Status::Hit`] only.
    pub age: Option<Duration>,
}

impl Outcome {
    #[must_use]
    pub fn miss(why: Why) -> Self {
        Self { status: Status::Miss, why, age: None }
    }

    /// An equal request that was running already gave the answer.
    #[must_use]
    pub fn joined() -> Self {
        Self { status: Status::Joined, why: Why::Running, age: None }
    }
}

macro_rules! words {
    ($(#[$about:meta])* $name:ident { $($(#[$doc:meta])* $variant:ident = $word:literal,)* }) => {
        $(#[$about])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum $name { $($(#[$doc])* $variant,)* }

        impl $name {
            pub const ALL: &[Self] = &[$(Self::$variant),*];

            #[must_use]
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $word,)* }
            }
        }
    };
}

words! {
    /// What became of a request in the cache.
    Status {
        Hit = "hit",
        Miss = "miss",
        /// Not looked for, and not kept.
        Bypass = "bypass",
        /// Not looked for, but kept.
        Refresh = "refresh",
        /// Read along with an equal request.
        Joined = "joined",
    }
}

words! {
    /// Why it became that.
    Why {
        /// Found in memory.
        Memory = "memory",
        /// Found in the database.
        Durable = "durable",
        /// An equal request is running.
        Running = "running",
        /// Nothing is kept under the key.
        Absent = "absent",
        /// Something is, but it is too old.
        Expired = "expired",
        /// Something is, but it cannot be read; it was deleted.
        Damaged = "damaged",
        /// The database could not be asked.
        Storage = "storage",
        /// The answer is not determined: neither temperature 0 nor a seed.
        NotDeterministic = "not_deterministic",
        /// The client asked for it.
        Asked = "asked",
        /// The cache is switched off.
        Disabled = "disabled",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::options::Options;

    fn ask(temperature: Option<f64>, seed: Option<i64>) -> Ask {
        Ask { options: Options { seed, temperature, ..Options::default() }, ..Ask::default() }
    }

    #[test]
    fn every_wish_under_every_configuration() {
        use CacheMode::{Bypass, Default as Usual, Only, Refresh};
        let determined = ask(Some(0.0), None);
        let open = ask(None, None);
        let config = |enabled, keep| Config { enabled, keep, ..Config::default() };
        let (on, all, off) = (config(true, Keep::Deterministic), config(true, Keep::Everything), config(false, Keep::Everything));
        for (config, mode, ask, read, write, status, why) in [
            (&on, None, &determined, true, true, Status::Miss, Why::Absent),
            (&on, Some(Usual), &determined, true, true, Status::Miss, Why::Absent),
            (&on, None, &open, false, false, Status::Bypass, Why::NotDeterministic),
            (&on, Some(Usual), &open, false, false, Status::Bypass, Why::NotDeterministic),
            (&all, None, &open, true, true, Status::Miss, Why::Absent),
            (&on, Some(Bypass), &determined, false, false, Status::Bypass, Why::Asked),
            (&all, Some(Bypass), &open, false, false, Status::Bypass, Why::Asked),
            (&on, Some(Refresh), &determined, false, true, Status::Refresh, Why::Asked),
            (&on, Some(Refresh), &open, false, true, Status::Refresh, Why::Asked),
            (&on, Some(Only), &open, true, false, Status::Miss, Why::Absent),
            (&on, Some(Only), &determined, true, false, Status::Miss, Why::Absent),
            (&off, None, &determined, false, false, Status::Bypass, Why::Disabled),
            (&off, Some(Refresh), &determined, false, false, Status::Bypass, Why::Disabled),
            (&off, Some(Only), &determined, false, false, Status::Bypass, Why::Disabled),
        ] {
            let policy = Policy::new(config, mode, ask);
            assert_eq!((policy.read, policy.write, policy.only), (read, write, mode == Some(Only)), "{mode:?} {ask:?}");
            assert_eq!(policy.unread(), Outcome { status, why, age: None });
            assert_eq!(policy.may_join(), read && write);
        }
    }

    #[test]
    fn no_two_words_are_the_same() {
        let words: std::collections::HashSet<_> = Why::ALL.iter().map(|why| why.as_str()).collect();
        assert_eq!(words.len(), Why::ALL.len());
        assert_eq!(Status::ALL.len(), 5);
    }
}
