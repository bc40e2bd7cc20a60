//! The keys: checked in memory, changed in the database first.
//!
//! Changes are made one after another. One whose caller leaves in the middle may or may not have reached the database; then all
//! keys are read again, so that memory never differs from it for longer than a moment.

use std::path::Path;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::Duration;

use tokio::sync::{Mutex, Notify};
use tokio::time::{Instant, MissedTickBehavior};
use tokio_util::sync::CancellationToken;

use super::error::{Denied, Error, Wrong};
use super::index::Index;
use super::key::{Hasher, Presented};
use super::terms::{self, Change};
use super::{Config, Required, pepper};
use crate::domain::clock::Clock;
use crate::domain::principal::{Principal, Role};
use crate::domain::secret::Secret;
use crate::storage::Storage;
use crate::storage::keys::{Key, KeyTable, Row, Terms};
use crate::telemetry::Metrics;

/// How often keys are looked through for those whose time is over: well within the second in which their streams must end.
const SWEEP_INTERVAL: Duration = Duration::from_millis(250);

/// Name of the key that is made at the first start.
const FIRST_KEY: &str = "bootstrap";

/// Cheap to clone.
#[derive(Clone)]
pub struct Keys(Arc<Inner>);

struct Inner {
    config: Config,
    table: KeyTable,
    hasher: Hasher,
    clock: Clock,
    metrics: Metrics,
    /// Whether other machines reach an address that is listened on.
    exposed: bool,
    anonymous: Arc<Principal>,
    index: RwLock<Index>,
    /// Held by whoever changes a key.
    changing: Mutex<()>,
    /// Told when the index may differ from the database.
    doubt: Notify,
}

impl Keys {
    /// Reads all keys. `exposed` says whether other machines can reach an address that is listened on.
    ///
    /// # Errors
    /// When the keys or the pepper cannot be read, or the pepper cannot be made.
    pub async fn open(config: &Config, storage: &Storage, clock: Clock, metrics: Metrics, exposed: bool) -> Result<Self, Error> {
        let table = storage.keys();
        let rows = table.all().await?;
        let folder = storage.path().parent().unwrap_or(Path::new("."));
        let hasher = pepper::open(folder, !rows.is_empty())?;
        let mut index = Index::default();
        index.replace(rows, clock.unix_ms());
        let anonymous =
            Principal { allowance: Arc::new(config.anonymous.allowance.clone()), ..Principal::anonymous(config.anonymous.role) };
        let keys = Self(Arc::new(Inner {
            config: config.clone(),
            table,
            hasher,
            clock,
            metrics,
            exposed,
            anonymous: Arc::new(anonymous),
            index: index.into(),
            changing: Mutex::default(),
            doubt: Notify::new(),
        }));
        keys.sweep();
        Ok(keys)
    }

    /// Whose key this is. Never waits and never reads the database, also when there is no such key.
    ///
    /// # Errors
    /// Why it is not taken.
    pub fn authenticate(&self, presented: &str) -> Result<Arc<Principal>, Denied> {
        let presented = Presented::parse(presented).ok_or(Denied::Malformed)?;
        let hash = self.0.hasher.hash(&presented);
        self.index().authenticate(presented.id(), &hash, self.0.clock.unix_ms())
    }

    /// The holder of the key of this name: for connections that stand for a key without showing it.
    ///
    /// # Errors
    /// Why there is none.
    pub fn named(&self, name: &str) -> Result<Arc<Principal>, Denied> {
        self.index().named(name, self.0.clock.unix_ms())
    }

    /// Whoever bears no key, where none is required.
    #[must_use]
    pub fn anonymous(&self) -> Arc<Principal> {
        Arc::clone(&self.0.anonymous)
    }

    /// Whether requests must bear a key. A key that was revoked counts for `auto`: revoking the last one opens nothing.
    #[must_use]
    pub fn required(&self) -> bool {
        match self.0.config.required {
            Required::Always => true,
            Required::Never => false,
            Required::Auto => self.0.exposed || self.any_exist(),
        }
    }

    /// Whether there is a key, revoked and expired ones included.
    #[must_use]
    pub fn any_exist(&self) -> bool {
        self.index().len() > 0
    }

    /// Whether there is a key that is taken now.
    #[must_use]
    pub fn any_usable(&self) -> bool {
        self.index().has_usable(self.0.clock.unix_ms())
    }

    /// All keys, oldest first, revoked ones included.
    #[must_use]
    pub fn list(&self) -> Vec<Key> {
        self.index().list()
    }

    /// # Errors
    /// When there is no such key.
    pub fn show(&self, id: &str) -> Result<Key, Error> {
        self.row(id).map(|row| row.key)
    }

    /// Makes a key. The secret is nowhere else.
    ///
    /// # Errors
    /// Terms that cannot be so, a name that is taken, too many keys, or the database.
    pub async fn create(&self, new: Terms) -> Result<(Key, Secret), Error> {
        check(&new)?;
        self.is_to_come(&new)?;
        let _turn = self.0.changing.lock().await;
        self.name_is_free(&new.name, None)?;
        self.make_room().await?;
        let presented = Presented::generate()?;
        let key = Key {
            id: presented.id().to_owned(),
            terms: new,
            created_at_ms: self.0.clock.unix_ms(),
            revoked_at_ms: None,
            rotated_at_ms: None,
            last_used_at_ms: None,
        };
        let key = self.put(Row { key, hash: self.0.hasher.hash(&presented), previous: None }).await?;
        tracing::info!(id = key.id, name = key.terms.name, role = key.terms.role.as_str(), "a key was made");
        Ok((key, presented.text()))
    }

    /// Gives a key a new secret. The old one is taken for `grace` more.
    ///
    /// # Errors
    /// When there is no such key, it was revoked, or the database cannot be written.
    pub async fn rotate(&self, id: &str, grace: Duration) -> Result<(Key, Secret), Error> {
        let _turn = self.0.changing.lock().await;
        let mut row = self.changeable(id)?;
        let presented = Presented::renewed(id)?;
        let now = self.0.clock.unix_ms();
        let until = now.saturating_add(i64::try_from(grace.as_millis()).unwrap_or(i64::MAX));
        row.previous = (until > now).then_some((row.hash, until));
        row.hash = self.0.hasher.hash(&presented);
        row.key.rotated_at_ms = Some(now);
        let key = self.put(row).await?;
        tracing::info!(id, ?grace, "a key has a new secret");
        Ok((key, presented.text()))
    }

    /// Ends a key for good, and what was started with it. Doing so again changes nothing.
    ///
    /// # Errors
    /// When there is no such key or the database cannot be written.
    pub async fn revoke(&self, id: &str) -> Result<Key, Error> {
        let _turn = self.0.changing.lock().await;
        let mut row = self.row(id)?;
        if row.key.revoked_at_ms.is_some() {
            return Ok(row.key);
        }
        row.key.revoked_at_ms = Some(self.0.clock.unix_ms());
        let key = self.put(row).await?;
        tracing::info!(id, "a key was revoked");
        Ok(key)
    }

    /// Changes the terms of a key, for requests from now on.
    ///
    /// # Errors
    /// Terms that cannot be so, a name that is taken, a key that is not there or was revoked, or the database.
    pub async fn update(&self, id: &str, change: Change) -> Result<Key, Error> {
        let _turn = self.0.changing.lock().await;
        let mut row = self.changeable(id)?;
        change.apply(&mut row.key.terms);
        check(&row.key.terms)?;
        self.name_is_free(&row.key.terms.name, Some(id))?;
        let key = self.put(row).await?;
        tracing::info!(id, "the terms of a key were changed");
        Ok(key)
    }

    /// Whether the first start makes a key: where keys are always required and there has never been one.
    #[must_use]
    pub fn offers_first(&self) -> bool {
        self.0.config.required == Required::Always && !self.any_exist()
    }

    /// At the first start: a key for an admin, to make others with. `None` unless [`Keys::offers_first`].
    ///
    /// # Errors
    /// When the database cannot be written.
    pub async fn bootstrap(&self) -> Result<Option<Secret>, Error> {
        if !self.offers_first() {
            return Ok(None);
        }
        let terms = Terms { role: Role::Admin, ..terms::new(FIRST_KEY) };
        self.create(terms).await.map(|(_, secret)| Some(secret))
    }

    /// Ends what the time of keys is over for and writes down when they were used, until cancelled.
    pub async fn run(self, cancel: CancellationToken) {
        let mut ticks = tokio::time::interval(SWEEP_INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut due = Instant::now() + self.0.config.last_used_interval;
        loop {
            tokio::select! {
                () = cancel.cancelled() => break,
                () = self.0.doubt.notified() => self.read_again().await,
                _ = ticks.tick() => self.sweep(),
            }
            if Instant::now() >= due {
                self.write_uses().await;
                due = Instant::now() + self.0.config.last_used_interval;
            }
        }
        self.write_uses().await;
    }

    fn sweep(&self) {
        let taken = self.index().sweep(self.0.clock.unix_ms());
        self.0.metrics.keys_active(taken);
    }

    async fn write_uses(&self) {
        let used = self.index().used();
        if used.is_empty() {
            return;
        }
        match self.0.table.touch(&used).await {
            Ok(()) => self.index_mut().written(&used),
            // They are told again next time.
            Err(error) => tracing::warn!(%error, "when keys were used could not be written down"),
        }
    }

    async fn read_again(&self) {
        let _turn = self.0.changing.lock().await;
        match self.0.table.all().await {
            Ok(rows) => self.index_mut().replace(rows, self.0.clock.unix_ms()),
            Err(error) => {
                tracing::warn!(%error, "the keys could not be read again");
                tokio::time::sleep(SWEEP_INTERVAL).await;
                self.0.doubt.notify_one();
            }
        }
    }

    /// A new key that has ended already is a slip of whoever makes it.
    fn is_to_come(&self, new: &Terms) -> Result<(), Error> {
        let ended = new.expires_at_ms.is_some_and(|end| end <= self.0.clock.unix_ms());
        let wrong =
            || Wrong { field: "expires_at".into(), takes: "a time to come, or \"never\"".into(), got: "one that has passed".into() };
        if ended { Err(Error::Invalid(vec![wrong()])) } else { Ok(()) }
    }

    /// Writes a key, then takes it in.
    async fn put(&self, row: Row) -> Result<Key, Error> {
        let doubt = Doubt(Some(&self.0.doubt));
        self.0.table.put(&row).await?;
        let key = row.key.clone();
        self.index_mut().put(row, self.0.clock.unix_ms());
        doubt.settled();
        self.sweep();
        Ok(key)
    }

    /// Forgets the key that was revoked longest ago when there are as many as allowed.
    async fn make_room(&self) -> Result<(), Error> {
        let most = self.0.config.max_keys;
        if self.index().len() < most {
            return Ok(());
        }
        let id = self.index().oldest_revoked().map(str::to_owned).ok_or(Error::TooMany { most })?;
        let doubt = Doubt(Some(&self.0.doubt));
        self.0.table.delete(&id).await?;
        self.index_mut().remove(&id);
        doubt.settled();
        Ok(())
    }

    fn row(&self, id: &str) -> Result<Row, Error> {
        self.index().row(id).ok_or_else(|| Error::NotFound { id: id.to_owned() })
    }

    fn changeable(&self, id: &str) -> Result<Row, Error> {
        let row = self.row(id)?;
        if row.key.revoked_at_ms.is_some() { Err(Error::Revoked { id: id.to_owned() }) } else { Ok(row) }
    }

    fn name_is_free(&self, name: &str, of: Option<&str>) -> Result<(), Error> {
        match self.index().id_of(name).filter(|id| Some(*id) != of) {
            Some(id) => Err(Error::NameTaken { name: name.to_owned(), id: id.to_owned() }),
            None => Ok(()),
        }
    }

    fn index(&self) -> RwLockReadGuard<'_, Index> {
        self.0.index.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn index_mut(&self) -> RwLockWriteGuard<'_, Index> {
        self.0.index.write().unwrap_or_else(PoisonError::into_inner)
    }
}

fn check(terms: &Terms) -> Result<(), Error> {
    let wrong = terms::wrong(terms);
    if wrong.is_empty() { Ok(()) } else { Err(Error::Invalid(wrong)) }
}

/// That the database may have changed and the index not. Dropped unsettled, all keys are read again.
struct Doubt<'a>(Option<&'a Notify>);

impl Doubt<'_> {
    fn settled(mut self) {
        self.0 = None;
    }
}

impl Drop for Doubt<'_> {
    fn drop(&mut self) {
        if let Some(doubt) = self.0 {
            doubt.notify_one();
        }
    }
}

#[cfg(test)]
#[path = "keys_tests.rs"]
mod tests;
