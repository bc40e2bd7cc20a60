//! The answers and their bounds. Pure: time comes in.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::Config;
use super::flat::Flat;
use super::guards::{Features, Guard};
use super::scope::Scope;
use super::threshold::SAME;

/// Most similar entries that are looked at: when none of these passes the guards, none will.
const CANDIDATES: usize = 8;
/// Memory of an entry beside its vector, its features and its value.
const ENTRY_BYTES: usize = 160;

/// What is kept of one answer.
#[derive(Debug)]
struct Entry<V> {
    stamp: u64,
    features: Features,
    value: Arc<V>,
    at: Instant,
    bytes: usize,
}

/// An answer to a question that means the same.
#[derive(Debug)]
pub(super) struct Found<V> {
    pub(super) value: Arc<V>,
    pub(super) similarity: f32,
    pub(super) age: Duration,
}

/// An answer that is to be kept.
#[derive(Debug)]
pub(super) struct Kept<V> {
    pub(super) features: Features,
    /// Normalised.
    pub(super) vector: Vec<f32>,
    pub(super) value: Arc<V>,
    /// About how much memory the value takes.
    pub(super) value_bytes: usize,
}

/// Why there is none.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum NotFound {
    Empty,
    Below,
    Guarded(Guard),
}

/// Why entries left.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Left {
    pub(super) expired: usize,
    pub(super) full: usize,
}

#[derive(Debug)]
pub(super) struct Store<V> {
    scopes: HashMap<Scope, Flat<Entry<V>>>,
    /// Entries by when they were used last.
    order: BTreeMap<u64, Scope>,
    bytes: usize,
    now: u64,
}

impl<V> Store<V> {
    pub(super) fn new() -> Self {
        Self { scopes: HashMap::new(), order: BTreeMap::new(), bytes: 0, now: 0 }
    }

    pub(super) fn entries(&self) -> usize {
        self.order.len()
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// The most similar entry that is young enough and passes the guards.
    pub(super) fn find(
        &mut self,
        scope: &Scope,
        features: &Features,
        vector: &[f32],
        least: f32,
        ttl: Duration,
        now: Instant,
    ) -> Result<Found<V>, NotFound> {
        let flat = self.scopes.get(scope).filter(|flat| flat.length() == vector.len()).ok_or(NotFound::Empty)?;
        let (near, best) = flat.nearest(vector, least, CANDIDATES);
        let mut refused = None;
        for (index, similarity) in near {
            let entry = &flat.items()[index];
            let age = now.saturating_duration_since(entry.at);
            if age > ttl {
                continue;
            }
            match entry.features.disagree(features) {
                None => {
                    let found = Found { value: Arc::clone(&entry.value), similarity, age };
                    self.touch(scope, index);
                    return Ok(found);
                }
                Some(guard) => refused = refused.or(Some(guard)),
            }
        }
        Err(refused.map_or(if best.is_some() { NotFound::Below } else { NotFound::Empty }, NotFound::Guarded))
    }

    /// Keeps an answer, in the place of one to the same question, and lets go of others where a bound asks for it.
    pub(super) fn put(&mut self, config: &Config, scope: &Scope, kept: Kept<V>, now: Instant) -> Left {
        let Kept { features, vector, value, value_bytes } = kept;
        let bytes = size_of_val(vector.as_slice()) + features.bytes() + value_bytes + ENTRY_BYTES;
        if bytes > config.max_bytes || config.max_entries_per_scope == 0 {
            return Left { expired: 0, full: 1 };
        }
        if self.scopes.get(scope).is_some_and(|flat| flat.length() != vector.len()) {
            // Another embedding model: what it knew cannot be compared any more.
            self.drop_where(|kept| kept == scope, |_| true);
        }
        self.drop_same(scope, &features, &vector);
        let expired = self.drop_where(|kept| kept == scope, |entry| now.saturating_duration_since(entry.at) > config.ttl);
        let mut full = 0;
        while self.scopes.get(scope).is_some_and(|flat| flat.items().len() >= config.max_entries_per_scope) {
            full += self.drop_oldest_of(scope);
        }
        self.add(scope, &vector, Entry { stamp: 0, features, value, at: now, bytes });
        while self.bytes > config.max_bytes {
            full += self.drop_oldest();
        }
        Left { expired, full }
    }

    /// Drops what is too old, in all scopes; tells how many.
    pub(super) fn prune(&mut self, ttl: Duration, now: Instant) -> usize {
        self.drop_where(|_| true, |entry| now.saturating_duration_since(entry.at) > ttl)
    }

    /// Drops whole scopes; tells how many entries.
    pub(super) fn purge(&mut self, scopes: impl Fn(&Scope) -> bool) -> usize {
        self.drop_where(scopes, |_| true)
    }

    fn add(&mut self, scope: &Scope, vector: &[f32], mut entry: Entry<V>) {
        self.now += 1;
        entry.stamp = self.now;
        self.bytes += entry.bytes;
        self.order.insert(self.now, scope.clone());
        self.scopes.entry(scope.clone()).or_insert_with(|| Flat::new(vector.len())).push(vector, entry);
    }

    fn touch(&mut self, scope: &Scope, index: usize) {
        self.now += 1;
        let Some(entry) = self.scopes.get_mut(scope).and_then(|flat| flat.item_mut(index)) else { return };
        let before = std::mem::replace(&mut entry.stamp, self.now);
        self.order.remove(&before);
        self.order.insert(self.now, scope.clone());
    }

    fn drop_same(&mut self, scope: &Scope, features: &Features, vector: &[f32]) {
        let Some(flat) = self.scopes.get(scope) else { return };
        let (near, _) = flat.nearest(vector, SAME, CANDIDATES);
        let same = near.into_iter().find(|(index, _)| flat.items()[*index].features == *features);
        if let Some((index, _)) = same {
            self.drop_at(scope, index);
        }
    }

    fn drop_oldest(&mut self) -> usize {
        let Some((stamp, scope)) = self.order.first_key_value().map(|(stamp, scope)| (*stamp, scope.clone())) else { return 0 };
        self.drop_stamped(&scope, stamp)
    }

    fn drop_oldest_of(&mut self, scope: &Scope) -> usize {
        let oldest = self.scopes.get(scope).and_then(|flat| flat.items().iter().map(|entry| entry.stamp).min());
        oldest.map_or(0, |stamp| self.drop_stamped(scope, stamp))
    }

    fn drop_stamped(&mut self, scope: &Scope, stamp: u64) -> usize {
        let found = self.scopes.get(scope).and_then(|flat| flat.items().iter().position(|entry| entry.stamp == stamp));
        found.map_or(0, |index| {
            self.drop_at(scope, index);
            1
        })
    }

    fn drop_at(&mut self, scope: &Scope, index: usize) {
        let Some(flat) = self.scopes.get_mut(scope) else { return };
        let entry = flat.swap_remove(index);
        self.bytes -= entry.bytes;
        self.order.remove(&entry.stamp);
        if flat.items().is_empty() {
            self.scopes.remove(scope);
        }
    }

    fn drop_where(&mut self, scopes: impl Fn(&Scope) -> bool, entries: impl Fn(&Entry<V>) -> bool) -> usize {
        let chosen = self.scopes.iter().filter(|(scope, _)| scopes(scope));
        let stamps = |(scope, flat): (&Scope, &Flat<Entry<V>>)| {
            flat.items().iter().filter(|entry| entries(entry)).map(|entry| (scope.clone(), entry.stamp)).collect::<Vec<_>>()
        };
        let leaving: Vec<(Scope, u64)> = chosen.flat_map(stamps).collect();
        leaving.iter().map(|(scope, stamp)| self.drop_stamped(scope, *stamp)).sum()
    }

    #[cfg(test)]
    pub(super) fn check(&self) {
        let all = || self.scopes.values().flat_map(Flat::items);
        assert_eq!(self.bytes, all().map(|entry| entry.bytes).sum::<usize>());
        assert_eq!(self.order.len(), all().count());
        assert!(all().all(|entry| self.order.contains_key(&entry.stamp)));
        assert!(self.scopes.values().all(|flat| !flat.items().is_empty()));
    }
}
