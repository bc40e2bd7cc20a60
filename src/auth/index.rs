//! All keys in memory, and what holds for each of them at a moment. Pure: time and hashes come in.
//!
//! Each secret of a key has a [`Principal`] of its own, so that what was started with a replaced secret ends and the rest goes on.
//! A change of terms holds for requests that come after it; the token by which running ones are ended stays the same.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use tokio_util::sync::CancellationToken;

use super::error::Denied;
use super::key::same;
use crate::domain::principal::Principal;
use crate::storage::keys::{Hash, Key, Row, Terms};

/// Never used.
const NEVER: i64 = i64::MIN;

#[derive(Default)]
pub struct Index {
    by_id: HashMap<String, Entry>,
    /// Id of the key of each name that is not revoked.
    by_name: HashMap<String, String>,
}

struct Entry {
    row: Row,
    current: Arc<Principal>,
    /// Of the secret before the last rotation, and until when it is taken.
    previous: Option<(Arc<Principal>, i64)>,
    used_at_ms: AtomicI64,
}

impl Entry {
    /// # Errors
    /// Why the key is not taken now.
    fn check(&self, now_ms: i64) -> Result<(), Denied> {
        let key = &self.row.key;
        if key.revoked_at_ms.is_some() {
            return Err(Denied::Revoked);
        }
        if key.terms.expires_at_ms.is_some_and(|end| end <= now_ms) { Err(Denied::Expired) } else { Ok(()) }
    }

    /// Who has this secret. Both comparisons are made, whatever the first one says.
    fn holder(&self, hash: &Hash, now_ms: i64) -> Option<&Arc<Principal>> {
        let is_current = same(&self.row.hash, hash);
        let is_previous = self.row.previous.is_some_and(|(previous, _)| same(&previous, hash));
        let previous = self.previous.as_ref().filter(|(_, until)| is_previous && now_ms < *until).map(|(who, _)| who);
        if is_current { Some(&self.current) } else { previous }
    }

    /// The token of what was started with this secret.
    fn token(&self, hash: &Hash) -> Option<&CancellationToken> {
        if self.row.hash == *hash {
            return Some(&self.current.ended);
        }
        self.previous.as_ref().filter(|_| self.row.previous.is_some_and(|(previous, _)| previous == *hash)).map(|(who, _)| &who.ended)
    }

    fn end(&self) {
        self.current.ended.cancel();
        if let Some((previous, _)) = &self.previous {
            previous.ended.cancel();
        }
    }

    /// The key with what is known here and not written yet.
    fn key(&self) -> Key {
        let used = Some(self.used_at_ms.load(Ordering::Relaxed)).filter(|at| *at != NEVER);
        Key { last_used_at_ms: self.row.key.last_used_at_ms.max(used), ..self.row.key.clone() }
    }
}

impl Index {
    pub fn len(&self) -> usize {
        self.by_id.len()
    }

    /// Takes a key in, in place of what was known of it.
    pub fn put(&mut self, row: Row, now_ms: i64) {
        let old = self.by_id.remove(&row.key.id);
        if let Some(old) = &old {
            self.by_name.retain(|_, id| *id != old.row.key.id);
            for (hash, token) in old.tokens() {
                if row.hash != hash && row.previous.is_none_or(|(previous, _)| previous != hash) {
                    token.cancel();
                }
            }
        }
        if row.key.revoked_at_ms.is_none() {
            self.by_name.insert(row.key.terms.name.clone(), row.key.id.clone());
        }
        let who = |hash: &Hash| {
            let known = old.as_ref().and_then(|old| old.token(hash)).filter(|token| !token.is_cancelled());
            Arc::new(principal(&row.key.id, &row.key.terms, known.cloned().unwrap_or_default()))
        };
        let used = old.as_ref().map_or(NEVER, |old| old.used_at_ms.load(Ordering::Relaxed));
        let previous = row.previous.as_ref().map(|(hash, until)| (who(hash), *until));
        let entry = Entry { current: who(&row.hash), previous, used_at_ms: used.into(), row };
        entry.sweep(now_ms);
        self.by_id.insert(entry.row.key.id.clone(), entry);
    }

    /// Takes in all keys there are; those that are not among them are gone.
    pub fn replace(&mut self, rows: Vec<Row>, now_ms: i64) {
        let ids: std::collections::HashSet<_> = rows.iter().map(|row| row.key.id.clone()).collect();
        let gone: Vec<String> = self.by_id.keys().filter(|id| !ids.contains(*id)).cloned().collect();
        for id in gone {
            self.remove(&id);
        }
        for row in rows {
            self.put(row, now_ms);
        }
    }

    pub fn remove(&mut self, id: &str) {
        if let Some(entry) = self.by_id.remove(id) {
            entry.end();
            self.by_name.retain(|_, known| known != id);
        }
    }

    /// Whose key this is.
    ///
    /// # Errors
    /// Why it is not taken; only for the right secret whether it was revoked or has expired.
    pub fn authenticate(&self, id: &str, hash: &Hash, now_ms: i64) -> Result<Arc<Principal>, Denied> {
        let entry = self.by_id.get(id).ok_or(Denied::Unknown)?;
        let who = entry.holder(hash, now_ms).ok_or(Denied::Unknown)?;
        entry.check(now_ms)?;
        entry.used_at_ms.fetch_max(now_ms, Ordering::Relaxed);
        Ok(Arc::clone(who))
    }

    /// The holder of the key of this name, for whoever needs not show it.
    ///
    /// # Errors
    /// Why there is none.
    pub fn named(&self, name: &str, now_ms: i64) -> Result<Arc<Principal>, Denied> {
        let entry = self.by_name.get(name).and_then(|id| self.by_id.get(id)).ok_or(Denied::Unknown)?;
        entry.check(now_ms)?;
        entry.used_at_ms.fetch_max(now_ms, Ordering::Relaxed);
        Ok(Arc::clone(&entry.current))
    }

    /// Id of the key that has this name and is not revoked.
    pub fn id_of(&self, name: &str) -> Option<&str> {
        self.by_name.get(name).map(String::as_str)
    }

    /// Ends what was started with keys and secrets whose time is over; tells how many keys are taken.
    pub fn sweep(&self, now_ms: i64) -> usize {
        self.by_id.values().filter(|entry| entry.sweep(now_ms)).count()
    }

    pub fn has_usable(&self, now_ms: i64) -> bool {
        self.by_id.values().any(|entry| entry.check(now_ms).is_ok())
    }

    /// All keys, oldest first.
    pub fn list(&self) -> Vec<Key> {
        let mut keys: Vec<Key> = self.by_id.values().map(Entry::key).collect();
        keys.sort_by(|a, b| (a.created_at_ms, &a.id).cmp(&(b.created_at_ms, &b.id)));
        keys
    }

    pub fn row(&self, id: &str) -> Option<Row> {
        self.by_id.get(id).map(|entry| Row { key: entry.key(), ..entry.row.clone() })
    }

    /// The key that was revoked longest ago.
    pub fn oldest_revoked(&self) -> Option<&str> {
        let revoked = self.by_id.values().filter_map(|entry| Some((entry.row.key.revoked_at_ms?, entry.row.key.id.as_str())));
        revoked.min().map(|(_, id)| id)
    }

    /// Ids and times of keys that were used since that was last written.
    pub fn used(&self) -> Vec<(String, i64)> {
        let since = |entry: &Entry| {
            let used = entry.used_at_ms.load(Ordering::Relaxed);
            (used != NEVER && entry.row.key.last_used_at_ms.is_none_or(|written| written < used)).then(|| (entry.row.key.id.clone(), used))
        };
        self.by_id.values().filter_map(since).collect()
    }

    /// Notes what was written of [`Index::used`].
    pub fn written(&mut self, used: &[(String, i64)]) {
        for (id, at_ms) in used {
            if let Some(entry) = self.by_id.get_mut(id) {
                entry.row.key.last_used_at_ms = entry.row.key.last_used_at_ms.max(Some(*at_ms));
            }
        }
    }
}

impl Entry {
    fn tokens(&self) -> Vec<(Hash, &CancellationToken)> {
        let hashes = std::iter::once(self.row.hash).chain(self.row.previous.map(|(hash, _)| hash));
        hashes.filter_map(|hash| Some((hash, self.token(&hash)?))).collect()
    }

    /// Whether the key is taken now; what its time is over for is ended.
    fn sweep(&self, now_ms: i64) -> bool {
        let taken = self.check(now_ms).is_ok();
        if !taken {
            self.end();
        }
        if let Some((previous, _)) = self.previous.as_ref().filter(|(_, until)| *until <= now_ms) {
            previous.ended.cancel();
        }
        taken
    }
}

fn principal(id: &str, terms: &Terms, ended: CancellationToken) -> Principal {
    Principal {
        key_id: Some(id.into()),
        name: terms.name.as_str().into(),
        tenant: terms.tenant.as_str().into(),
        role: terms.role,
        models: terms.models.clone().into(),
        default_priority: terms.default_priority,
        priority_ceiling: terms.priority_ceiling,
        weight: terms.weight,
        allowance: Arc::new(terms.allowance.clone()),
        collect: terms.collect,
        ended,
    }
}

#[cfg(test)]
#[path = "index_tests.rs"]
mod tests;
