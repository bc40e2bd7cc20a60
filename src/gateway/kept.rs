//! Generations that can be read again: detached ones, and those whose client may come back.
//!
//! An entry keeps its generation going: a detached one until it ends, another one for a bounded time after its last reader left.
//! What has ended is kept for a bounded time. When the key ends that asked for it, a generation that still runs is let go. Ids belong to a tenant: nobody sees, stops or blocks another tenant's.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;

use super::about::About;
use super::error::Error;
use crate::cache::recording::{Gone, Hold, Reader, Recording};
use crate::domain::id::RequestId;
use crate::domain::principal::{Principal, Role};
use crate::domain::span;

/// How long generations wait for their clients.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// How long a generation whose client left goes on, so that the client can come back with `Last-Event-ID`. 0: it ends at once.
    #[serde(with = "span")]
    pub resume_window: Duration,
    /// How long a generation that has ended can be read again.
    #[serde(with = "span")]
    pub keep_finished: Duration,
    /// Generations that are kept at a time; beyond it the one that ended first goes, and while none has ended no other is detached.
    pub max_kept: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self { resume_window: Duration::ZERO, keep_finished: Duration::from_mins(5), max_kept: 1_000 }
    }
}

/// How often entries are looked at.
const SWEEP_INTERVAL: Duration = Duration::from_millis(250);

type Id = (Arc<str>, RequestId);
pub type Events = Reader<Arc<Error>>;

/// An answer that more than one may read: its events, and what is known of it once it has begun.
#[derive(Clone)]
pub struct Shared {
    pub recording: Recording<Arc<Error>>,
    pub about: Arc<OnceLock<Arc<About>>>,
    /// Cancelled when it is stopped: those who read it under its own id stop reading. Others, who asked the same, do not.
    pub stop: CancellationToken,
}

struct Entry {
    shared: Shared,
    hold: Option<Hold<Arc<Error>>>,
    detached: bool,
    /// Cancelled when the key it was asked for with ends.
    ended: Option<CancellationToken>,
    /// When its last reader was seen to have left, or its end was seen.
    idle_since: Option<Instant>,
    ended_since: Option<Instant>,
}

/// What can be told of a kept generation without reading it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Status {
    pub ended: bool,
    /// Events so far.
    pub events: u64,
}

/// Cheap to clone.
#[derive(Clone, Default)]
pub struct Kept(Arc<Mutex<HashMap<Id, Entry>>>);

impl Kept {
    fn entries(&self) -> MutexGuard<'_, HashMap<Id, Entry>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps a generation under its id.
    ///
    /// # Errors
    /// The id is in use for a generation that still runs, or too many are kept.
    pub fn keep(&self, who: &Principal, id: &RequestId, shared: Shared, detached: bool, most: usize) -> Result<(), Error> {
        let key = (Arc::clone(&who.tenant), id.clone());
        let mut entries = self.entries();
        if entries.get(&key).is_some_and(|entry| !entry.shared.recording.is_over()) {
            return Err(Error::IdInUse { id: id.to_string() });
        }
        if entries.len() >= most && !drop_oldest_ended(&mut entries) {
            return Err(Error::TooManyKept { most });
        }
        let hold = shared.recording.hold();
        let ended = who.key_id.is_some().then(|| who.ended.clone());
        entries.insert(key, Entry { shared, hold, detached, ended, idle_since: None, ended_since: None });
        Ok(())
    }

    /// # Errors
    /// There is none of this id for this caller.
    pub fn find(&self, who: &Principal, id: &RequestId) -> Result<Shared, Error> {
        let entries = self.entries();
        let own = entries.get(&(Arc::clone(&who.tenant), id.clone()));
        let found = own.or_else(|| entries.iter().find(|((_, kept), _)| who.role >= Role::Admin && kept == id).map(|(_, entry)| entry));
        found.map(|entry| entry.shared.clone()).ok_or_else(|| Error::NothingToResume { id: id.to_string() })
    }

    /// Its events after the first `past`.
    ///
    /// # Errors
    /// There is none of this id for this caller, or what was to come first is no longer kept.
    pub fn read(&self, who: &Principal, id: &RequestId, past: u64) -> Result<(Shared, Events), Error> {
        let shared = self.find(who, id)?;
        let events = shared.recording.read(past + 1).map_err(|gone| match gone {
            Gone::Forgotten { first } => Error::ResumeGone { missing: first.saturating_sub(past + 1) },
            Gone::Unknown { last, .. } => Error::EventAhead { last },
            Gone::Abandoned => Error::NothingToResume { id: id.to_string() },
        })?;
        Ok((shared, events))
    }

    /// Stops and forgets one.
    ///
    /// # Errors
    /// There is none of this id for this caller.
    pub fn forget(&self, who: &Principal, id: &RequestId) -> Result<(), Error> {
        let shared = self.find(who, id)?;
        let gone: Vec<Entry> = {
            let mut entries = self.entries();
            let ids: Vec<Id> = entries
                .iter()
                .filter(|(key, entry)| key.1 == *id && Arc::ptr_eq(&entry.shared.about, &shared.about))
                .map(|(key, _)| key.clone())
                .collect();
            ids.iter().filter_map(|key| entries.remove(key)).collect()
        };
        for entry in &gone {
            entry.shared.stop.cancel();
        }
        drop(gone); // outside the lock: it may wake who writes
        Ok(())
    }

    /// Lets go of what nobody will come back for.
    pub fn sweep(&self, now: Instant, config: &Config) {
        let mut gone = Vec::new();
        {
            let mut entries = self.entries();
            let ids: Vec<Id> = entries.iter_mut().filter_map(|(id, entry)| entry.is_past(now, config).then(|| id.clone())).collect();
            gone.extend(ids.iter().filter_map(|id| entries.remove(id)));
        }
        drop(gone);
    }

    /// Sweeps for ever.
    pub async fn run(self, config: impl Fn() -> Config) {
        loop {
            tokio::time::sleep(SWEEP_INTERVAL).await;
            self.sweep(Instant::now(), &config());
        }
    }

    /// How many are kept.
    #[must_use]
    pub fn count(&self) -> usize {
        self.entries().len()
    }
}

impl Entry {
    fn is_past(&mut self, now: Instant, config: &Config) -> bool {
        if self.shared.recording.is_over() {
            self.hold = None;
            return now.saturating_duration_since(*self.ended_since.get_or_insert(now)) >= config.keep_finished;
        }
        if self.ended.as_ref().is_some_and(CancellationToken::is_cancelled) {
            return true;
        }
        if self.detached || self.shared.recording.readers() > 0 {
            self.idle_since = None;
            return false;
        }
        now.saturating_duration_since(*self.idle_since.get_or_insert(now)) >= config.resume_window
    }
}

fn drop_oldest_ended(entries: &mut HashMap<Id, Entry>) -> bool {
    let ended = entries.iter().filter(|(_, entry)| entry.shared.recording.is_over());
    let oldest = ended.min_by_key(|(_, entry)| entry.ended_since.unwrap_or_else(Instant::now)).map(|(id, _)| id.clone());
    oldest.is_some_and(|id| entries.remove(&id).is_some())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cache::recording::{self, Recorder, recording};
    use crate::domain::clock::Clock;
    use crate::domain::generation::{Delta, Event};
    use crate::telemetry::Metrics;

    fn principal(tenant: &str) -> Principal {
        Principal { tenant: tenant.into(), ..Principal::anonymous(Role::User) }
    }

    fn made() -> (Recorder<Arc<Error>>, Events, Shared) {
        let (recorder, reader) = recording(&recording::Config::default(), Clock::system(), Metrics::default());
        let shared = Shared { recording: recorder.recording(), about: Arc::default(), stop: CancellationToken::new() };
        (recorder, reader, shared)
    }

    fn id(text: &str) -> RequestId {
        RequestId::from_client(text).expect("an id")
    }

    const WINDOW: Config = Config { resume_window: Duration::from_secs(10), keep_finished: Duration::from_mins(1), max_kept: 2 };

    #[test]
    fn a_detached_one_goes_on_and_another_one_only_for_its_window() {
        for detached in [true, false] {
            let kept = Kept::default();
            let (mut recorder, reader, shared) = made();
            kept.keep(&principal("a"), &id("1"), shared.clone(), detached, 2).expect("kept");
            recorder.push(Event::Delta(Delta::default()));
            drop(reader);
            let left = Instant::now();
            kept.sweep(left, &WINDOW);
            assert!(!shared.recording.is_over());
            kept.sweep(left + Duration::from_secs(11), &WINDOW);
            assert_eq!(shared.recording.is_over(), !detached);
            assert_eq!(kept.count(), usize::from(detached));
        }
    }

    #[test]
    fn what_has_ended_is_kept_for_a_while() {
        let kept = Kept::default();
        let (recorder, _reader, shared) = made();
        kept.keep(&principal("a"), &id("1"), shared, true, 2).expect("kept");
        drop(recorder);
        let ended = Instant::now();
        kept.sweep(ended, &WINDOW);
        assert_eq!(kept.count(), 1);
        kept.sweep(ended + Duration::from_secs(61), &WINDOW);
        assert_eq!(kept.count(), 0);
    }

    #[test]
    fn another_tenants_are_not_there() {
        let kept = Kept::default();
        let (_recorder, _reader, shared) = made();
        let (_other_recorder, _other_reader, other) = made();
        kept.keep(&principal("a"), &id("1"), shared, true, 2).expect("kept");
        assert!(matches!(kept.find(&principal("b"), &id("1")), Err(Error::NothingToResume { .. })));
        assert!(matches!(kept.forget(&principal("b"), &id("1")), Err(Error::NothingToResume { .. })));
        kept.keep(&principal("b"), &id("1"), other, true, 2).expect("the id is free for this tenant");
        kept.forget(&principal("a"), &id("1")).expect("its own");
        assert!(kept.find(&principal("b"), &id("1")).is_ok());
    }

    #[test]
    fn ids_in_use_and_more_than_allowed_are_refused() {
        let kept = Kept::default();
        let (_r1, _e1, first) = made();
        let (r2, _e2, second) = made();
        kept.keep(&principal("a"), &id("1"), first.clone(), true, 2).expect("kept");
        assert!(matches!(kept.keep(&principal("a"), &id("1"), second.clone(), true, 2), Err(Error::IdInUse { .. })));
        kept.keep(&principal("a"), &id("2"), second, true, 2).expect("kept");
        let (_r3, _e3, third) = made();
        assert!(matches!(kept.keep(&principal("a"), &id("3"), third.clone(), true, 2), Err(Error::TooManyKept { most: 2 })));
        drop(r2);
        kept.keep(&principal("a"), &id("3"), third, true, 2).expect("one that had ended made room");
        assert!(kept.find(&principal("a"), &id("2")).is_err());
        assert!(kept.find(&principal("a"), &id("1")).is_ok());
    }
}
