//! Finished answers, given again to whoever asks exactly the same.
//!
//! Two tiers: memory, bounded in bytes, and the database, bounded in bytes too, which survives a restart; at the start nothing is
//! read from it, only what memory lacks when it is asked for. An answer is found by its [`Key`] and only while it is young enough;
//! a changed model has another digest, so another key. A hit copies nothing: it is a reference to the answer.
//!
//! Only whole answers that ended by themselves or at a bound are kept. Writing to the database is [`Keeper::run`]'s: it never
//! makes a request wait, and what does not fit is dropped and counted. Damage in the database is a miss, never a wrong answer.

mod config;

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use moka::notification::RemovalCause;
use moka::sync::Cache;

use super::answer::{Answer, Speed};
use super::durable::{Durable, Waiting};
use super::key::{Key, Scope};
use super::policy::{Outcome, Policy, Status, Why};
use super::stored::decode;
use crate::domain::clock::Clock;
use crate::domain::generation::Ask;
use crate::domain::id::ModelName;
use crate::storage::Storage;
pub use crate::storage::answers::Size;
use crate::storage::answers::{Found, Which};

pub use crate::storage::Error;
use crate::telemetry::Metrics;
use crate::telemetry::metrics::answers::{Removed, Tier, Unwritten};

pub use super::durable::Keeper;
pub use config::{Config, Keep, Ttl};

/// What is noted about an answer.
#[derive(Debug, Clone, PartialEq)]
pub struct Tags {
    pub model: ModelName,
    pub digest: Option<String>,
    pub tenant: Arc<str>,
    /// Id of the key it was asked with.
    pub key_id: Option<Arc<str>>,
    /// How long it may be given again, where the route says so; else the configuration does.
    pub ttl: Option<Duration>,
}

/// An answer that was kept.
#[derive(Debug, Clone, PartialEq)]
pub struct Hit {
    pub answer: Arc<Answer>,
    /// Since it was made.
    pub age: Duration,
    /// Where it was found.
    pub why: Why,
}

impl Hit {
    #[must_use]
    pub fn outcome(&self) -> Outcome {
        Outcome { status: Status::Hit, why: self.why, age: Some(self.age) }
    }
}

/// What a look into the cache gave.
#[derive(Debug, Clone, PartialEq)]
pub enum Lookup {
    Hit(Hit),
    /// The model has to be asked.
    Miss(Outcome),
    /// The client wanted nothing else.
    Refused(NotCached),
}

/// Nothing is kept for a request that is to be answered from the cache or not at all.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the answer is not in the cache ({}), and the request wants it from there or not at all", .0.why.as_str())]
pub struct NotCached(pub Outcome);

/// Which answers are to be forgotten.
#[derive(Debug, Clone, PartialEq)]
pub enum Filter {
    Key(Key),
    Model(ModelName),
    Tenant(String),
    /// What stands for a model's content: all names of it.
    Digest(String),
    All,
}

impl Filter {
    fn which(&self) -> Which {
        match self {
            Self::Key(key) => Which::Key(*key.as_bytes()),
            Self::Model(model) => Which::Model(model.canonical().to_owned()),
            Self::Tenant(tenant) => Which::Tenant(tenant.clone()),
            Self::Digest(digest) => Which::Digest(digest.clone()),
            Self::All => Which::All,
        }
    }
}

/// What is kept now.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Stats {
    pub memory: Size,
    /// As last counted; exact after a start, a purge and every search for old answers.
    pub durable: Size,
}

/// An answer in memory.
pub(super) struct Entry {
    pub(super) answer: Arc<Answer>,
    pub(super) model: String,
    pub(super) digest: Option<String>,
    pub(super) tenant: String,
    pub(super) created_at_ms: i64,
    pub(super) expires_at_ms: i64,
    /// When the database was last told that it is used.
    told_at_ms: AtomicI64,
}

/// Memory of an entry besides its answer, roughly.
const ENTRY_BYTES: usize = 512;

/// How often the database is told that an answer is in use.
const TELL_EVERY_MS: i64 = 60_000;

/// The cache. Cheap to clone.
#[derive(Clone)]
pub struct Exact(Arc<Inner>);

struct Inner {
    config: Config,
    memory: Cache<Key, Arc<Entry>>,
    durable: Option<Durable>,
    /// Raised by every purge: what was read from the database before it must not come into memory after it.
    purges: AtomicU64,
    metrics: Metrics,
    clock: Clock,
}

impl Exact {
    /// The cache, and what writes to the database while [`Keeper::run`] is polled.
    #[must_use]
    pub fn new(config: Config, storage: &Storage, metrics: Metrics, clock: Clock) -> (Self, Keeper) {
        let durable = (config.enabled && config.durable_max_bytes > 0).then(|| Durable::new(&config, storage, &metrics, &clock));
        let (durable, keeper) = durable.map_or_else(|| (None, Keeper::idle()), |(durable, keeper)| (Some(durable), keeper));
        let memory = memory(config.max_bytes, metrics.clone());
        (Self(Arc::new(Inner { config, memory, durable, purges: AtomicU64::new(0), metrics, clock })), keeper)
    }

    /// How fast answers are given back.
    #[must_use]
    pub fn speed(&self) -> Speed {
        self.0.config.replay
    }

    /// What the cache may do for a request.
    #[must_use]
    pub fn policy(&self, mode: Option<crate::domain::generation::CacheMode>, ask: &Ask) -> Policy {
        Policy::new(&self.0.config, mode, ask)
    }

    /// The key of a request of this tenant; for everyone's, where answers are shared.
    #[must_use]
    pub fn key(&self, tenant: &str, model: &ModelName, digest: Option<&str>, ask: &Ask) -> Key {
        let scope = if self.0.config.shared { Scope::Shared } else { Scope::Tenant(tenant) };
        Key::new(scope, model, digest, ask)
    }

    /// Looks for an answer, as far as the policy allows; counts what came of it.
    pub async fn get(&self, key: &Key, policy: &Policy) -> Lookup {
        if !policy.read {
            return self.unread(policy);
        }
        self.told(self.find(key).await.map_err(Outcome::miss), *policy)
    }

    /// What is said of a request for which the policy reads nothing. It needs no key, which takes time to make of a long prompt.
    #[must_use]
    pub fn unread(&self, policy: &Policy) -> Lookup {
        self.told(Err(policy.unread()), *policy)
    }

    fn told(&self, found: Result<Hit, Outcome>, policy: Policy) -> Lookup {
        let outcome = found.as_ref().map_or_else(|outcome| *outcome, Hit::outcome);
        self.0.metrics.answer_lookup(outcome.status.as_str(), outcome.why.as_str());
        match found {
            Ok(hit) => Lookup::Hit(hit),
            Err(outcome) if policy.only => Lookup::Refused(NotCached(outcome)),
            Err(outcome) => Lookup::Miss(outcome),
        }
    }

    async fn find(&self, key: &Key) -> Result<Hit, Why> {
        let now_ms = self.0.clock.unix_ms();
        if let Some(entry) = self.0.memory.get(key) {
            return self.give(key, &entry, Why::Memory, now_ms);
        }
        let Some(durable) = &self.0.durable else { return Err(Why::Absent) };
        let purges = self.0.purges.load(Ordering::SeqCst);
        let found = match durable.table().read(key.as_bytes()).await {
            Ok(found) => found.ok_or(Why::Absent)?,
            Err(error) => {
                tracing::debug!(%error, "a kept answer could not be read");
                return Err(Why::Storage);
            }
        };
        let Some(entry) = entry(key, found).map(Arc::new) else {
            durable.forget(*key);
            return Err(Why::Damaged);
        };
        let hit = self.give(key, &entry, Why::Durable, now_ms)?;
        if self.0.purges.load(Ordering::SeqCst) == purges {
            self.0.memory.insert(*key, entry);
        }
        Ok(hit)
    }

    /// The answer of an entry that is young enough.
    fn give(&self, key: &Key, entry: &Entry, why: Why, now_ms: i64) -> Result<Hit, Why> {
        if entry.expires_at_ms <= now_ms {
            if self.0.memory.remove(key).is_some() {
                self.0.metrics.answers_removed(Tier::Memory, Removed::Age, 1);
            }
            return Err(Why::Expired);
        }
        let told_at_ms = entry.told_at_ms.load(Ordering::Relaxed);
        if let Some(durable) = &self.0.durable
            && now_ms.saturating_sub(told_at_ms) >= TELL_EVERY_MS
        {
            entry.told_at_ms.store(now_ms, Ordering::Relaxed);
            durable.used(*key, now_ms);
        }
        let age_ms = u64::try_from(now_ms.saturating_sub(entry.created_at_ms)).unwrap_or(0);
        Ok(Hit { answer: Arc::clone(&entry.answer), age: Duration::from_millis(age_ms), why })
    }

    /// Keeps an answer, if it is one to be kept and not too large; tells whether it is. Never waits.
    pub fn put(&self, key: Key, answer: Answer, tags: Tags) -> bool {
        let config = &self.0.config;
        let ttl = tags.ttl.or_else(|| config.ttl_of(&tags.model));
        if !config.enabled || !answer.is_worth_keeping() || ttl.is_some_and(|ttl| ttl.is_zero()) {
            return false;
        }
        if answer.bytes() > config.max_answer_bytes {
            self.0.metrics.answers_dropped(Unwritten::TooLarge, 1);
            return false;
        }
        let now_ms = self.0.clock.unix_ms();
        let entry = Arc::new(Entry {
            answer: Arc::new(answer),
            model: tags.model.canonical().to_owned(),
            digest: tags.digest,
            tenant: tags.tenant.as_ref().to_owned(),
            created_at_ms: now_ms,
            expires_at_ms: ttl.map_or(i64::MAX, |ttl| now_ms.saturating_add(i64::try_from(ttl.as_millis()).unwrap_or(i64::MAX))),
            told_at_ms: AtomicI64::new(now_ms),
        });
        if let Some(durable) = &self.0.durable {
            durable.put(Waiting::new(key, Arc::clone(&entry), tags.key_id));
        }
        self.0.memory.insert(key, entry);
        self.publish();
        true
    }

    /// Forgets answers, in memory and in the database; tells how many. Answers that are being made now may come after it.
    ///
    /// # Errors
    /// When the database could not delete them; memory has forgotten them all the same.
    pub async fn purge(&self, filter: &Filter) -> Result<u64, Error> {
        self.forget(filter.which()).await
    }

    /// Forgets the answers of a model that were made by content which no backend has any more: `digests` are all those that
    /// backends have now. With none given nothing is known, and nothing is forgotten.
    ///
    /// # Errors
    /// As [`Exact::purge`].
    pub async fn keep_only_digests(&self, model: &ModelName, digests: Vec<String>) -> Result<u64, Error> {
        if digests.is_empty() {
            return Ok(0);
        }
        self.forget(Which::OtherDigests { model: model.canonical().to_owned(), digests }).await
    }

    async fn forget(&self, which: Which) -> Result<u64, Error> {
        self.0.purges.fetch_add(1, Ordering::SeqCst);
        let mut gone: HashSet<Key> = self.0.memory.iter().filter(|(key, entry)| covers(&which, key, entry)).map(|(key, _)| *key).collect();
        for key in &gone {
            self.0.memory.invalidate(key);
        }
        self.0.metrics.answers_removed(Tier::Memory, Removed::Purge, gone.len() as u64);
        let deleted = match &self.0.durable {
            Some(durable) => durable.purge(which).await,
            None => Ok(HashSet::new()),
        };
        self.publish();
        gone.extend(deleted?);
        Ok(gone.len() as u64)
    }

    /// What is kept now.
    #[must_use]
    pub fn stats(&self) -> Stats {
        self.0.memory.run_pending_tasks();
        self.publish();
        let memory = Size { rows: self.0.memory.entry_count(), bytes: self.0.memory.weighted_size() };
        Stats { memory, durable: self.0.durable.as_ref().map(Durable::size).unwrap_or_default() }
    }

    /// Waits until everything put before this call is in the database or dropped.
    pub async fn flush(&self) {
        if let Some(durable) = &self.0.durable {
            durable.flush().await;
        }
    }

    fn publish(&self) {
        self.0.metrics.answers_kept(Tier::Memory, self.0.memory.entry_count(), self.0.memory.weighted_size());
    }
}

fn memory(max_bytes: u64, metrics: Metrics) -> Cache<Key, Arc<Entry>> {
    Cache::builder()
        .max_capacity(max_bytes)
        .weigher(|_, entry: &Arc<Entry>| u32::try_from(entry.answer.bytes() + ENTRY_BYTES).unwrap_or(u32::MAX))
        .eviction_listener(move |_, _, cause| {
            if cause == RemovalCause::Size {
                metrics.answers_removed(Tier::Memory, Removed::Size, 1);
            }
        })
        .build()
}

/// What the database gave, if it can be read.
fn entry(key: &Key, found: Found) -> Option<Entry> {
    let answer = decode(key, &found.answer).filter(Answer::is_worth_keeping)?;
    let Found { model, digest, tenant, created_at_ms, expires_at_ms, .. } = found;
    // Long ago, so that the first hit tells the database of its use.
    Some(Entry { answer: Arc::new(answer), model, digest, tenant, created_at_ms, expires_at_ms, told_at_ms: AtomicI64::new(0) })
}

/// Whether an answer is among those meant. The same as the database's conditions, for what is not there.
pub(super) fn covers(which: &Which, key: &Key, entry: &Entry) -> bool {
    match which {
        Which::Key(wanted) => key.as_bytes() == wanted,
        Which::Model(model) => entry.model == *model,
        Which::Tenant(tenant) => entry.tenant == *tenant,
        Which::Digest(digest) => entry.digest.as_ref() == Some(digest),
        Which::OtherDigests { model, digests } => {
            entry.model == *model && entry.digest.as_ref().is_none_or(|digest| !digests.contains(digest))
        }
        Which::ExpiredAt(at_ms) => entry.expires_at_ms <= *at_ms,
        Which::All => true,
    }
}

#[cfg(test)]
mod tests;
