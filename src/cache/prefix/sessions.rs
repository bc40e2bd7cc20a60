//! Where each session was served last: bounded, the one used longest ago is forgotten first.

use std::collections::{BTreeMap, HashMap};
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;

/// Keyed by a hash, so that the length of a name costs nothing; two sessions that share one only share a hint.
#[derive(Debug, Default)]
pub(super) struct Sessions {
    most: usize,
    key: RandomState,
    backends: HashMap<u64, (Arc<str>, u64)>,
    by_age: BTreeMap<u64, u64>,
    now: u64,
}

impl Sessions {
    pub(super) fn new(most: usize) -> Self {
        Self { most, ..Self::default() }
    }

    pub(super) fn stick(&mut self, session: &str, backend: Arc<str>) {
        let id = self.key.hash_one(session);
        self.now += 1;
        if let Some((_, before)) = self.backends.insert(id, (backend, self.now)) {
            self.by_age.remove(&before);
        }
        self.by_age.insert(self.now, id);
        while self.backends.len() > self.most
            && let Some((_, oldest)) = self.by_age.pop_first()
        {
            self.backends.remove(&oldest);
        }
    }

    pub(super) fn where_is(&self, session: &str) -> Option<Arc<str>> {
        self.backends.get(&self.key.hash_one(session)).map(|(backend, _)| Arc::clone(backend))
    }

    pub(super) fn forget(&mut self, backend: &str) {
        let by_age = &mut self.by_age;
        self.backends.retain(|_, (at, age)| {
            let stays = &**at != backend;
            if !stays {
                by_age.remove(age);
            }
            stays
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_session_used_longest_ago_is_forgotten_first() {
        let mut sessions = Sessions::new(2);
        for (session, backend) in [("a", "x"), ("b", "x"), ("a", "y"), ("c", "x")] {
            sessions.stick(session, backend.into());
        }
        assert_eq!(["a", "b", "c"].map(|s| sessions.where_is(s).as_deref().map(str::to_owned)), [Some("y".into()), None, Some("x".into())]);
        assert_eq!((sessions.backends.len(), sessions.by_age.len()), (2, 2));
    }

    #[test]
    fn a_backend_that_is_gone_keeps_no_session() {
        let mut sessions = Sessions::new(9);
        sessions.stick("a", "x".into());
        sessions.stick("b", "y".into());
        sessions.forget("x");
        assert_eq!((sessions.where_is("a"), sessions.by_age.len()), (None, 1));
        assert_eq!(Sessions::new(0).where_is("a"), None);
    }
}
