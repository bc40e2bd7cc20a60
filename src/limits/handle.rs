//! The limits as the rest of the program uses them: configuration, clock and metrics around the pure parts.

use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;

use super::account::Now;
use super::addresses::{self, Addresses};
use super::book::{Blocked, Book, Id, Party};
use super::budget::Calendar;
use super::caps::{self, Caps};
use super::config::{Config, merged};
use super::refusal::{Refusal, Scope};
use super::reservation::Reservation;
use super::tokens::Amount;
use super::view::{AccountView, View};
use super::writer::BudgetWriter;
use crate::domain::allowance::Allowance;
use crate::domain::clock::Clock;
use crate::domain::principal::Principal;
use crate::storage::{self, Storage};
use crate::telemetry::Metrics;

/// How long rows of past months are kept: long enough that a start with a wrong clock deletes none that still count.
const KEPT_MONTHS: i64 = 12;

/// What a request will use, as far as is known before it starts, and what it asked for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Estimate {
    pub prompt_tokens: u64,
    /// Tokens that will probably be generated.
    pub predict_tokens: u64,
    /// `num_predict`, if the request has one.
    pub num_predict: Option<i64>,
    /// `num_ctx`, if the request has one.
    pub num_ctx: Option<u32>,
}

/// What becomes of a request that may wait.
#[derive(Debug)]
pub enum Admission {
    Now(Reservation),
    /// Only rates are in the way, and they clear in time if nobody else uses them: to be asked again then.
    Later {
        at: Instant,
        refusal: Refusal,
    },
    Refused(Refusal),
}

/// All limits. Cheap to clone; the clones count together.
#[derive(Debug, Clone)]
pub struct Limits(Arc<Inner>);

#[derive(Debug)]
pub(super) struct Inner {
    config: ArcSwap<Config>,
    book: Mutex<Book>,
    addresses: Mutex<Addresses>,
    pub metrics: Metrics,
    clock: Clock,
    started: Instant,
    everyone: Arc<str>,
}

impl Limits {
    /// The limits, with what was used before this process began, and what keeps it.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn new(config: Config, storage: &Storage, metrics: Metrics, clock: Clock) -> Result<(Self, BudgetWriter), storage::Error> {
        let table = storage.budgets();
        table.delete_before(Calendar::Month.period(clock.unix_ms()) - KEPT_MONTHS).await?;
        let rows = table.load(config.max_accounts).await?;
        let book = Book::load(rows.into_iter().filter_map(super::writer::from_row));
        let started = clock.now();
        let config = ArcSwap::from_pointee(config);
        let (book, addresses) = (Mutex::new(book), Mutex::default());
        let limits = Self(Arc::new(Inner { config, book, addresses, metrics, clock, started, everyone: "all".into() }));
        let writer = BudgetWriter::new(limits.clone(), table);
        Ok((limits, writer))
    }

    /// From now on this is allowed. What was used stays used, and what runs goes on.
    pub fn reconfigure(&self, config: Config) {
        self.0.config.store(Arc::new(config));
    }

    /// Before it is known who asks.
    ///
    /// # Errors
    /// When the address has to wait.
    pub fn address(&self, address: IpAddr) -> Result<(), Refusal> {
        let (config, now) = (self.0.config.load(), self.0.now());
        let mut addresses = self.0.addresses.lock().unwrap_or_else(PoisonError::into_inner);
        let answer = addresses.admit(address, &config.address, now.steady_ns);
        let forgotten = addresses.take_forgotten();
        drop(addresses);
        self.0.metrics.limit_addresses_forgotten(forgotten);
        answer.inspect_err(|refusal| self.0.count(refusal))
    }

    /// A request from this address came with a key that is none: enough of them, and the address has to wait.
    pub fn wrong_key(&self, address: IpAddr) {
        let (config, now) = (self.0.config.load(), self.0.now());
        self.0.addresses.lock().unwrap_or_else(PoisonError::into_inner).wrong_key(address, &config.address, now.steady_ns);
    }

    /// The client behind a connection, which is not its peer where that is a trusted proxy.
    #[must_use]
    pub fn client(&self, peer: IpAddr, forwarded_for: &str) -> IpAddr {
        addresses::client(peer, forwarded_for, &self.0.config.load().address.trusted_proxies)
    }

    /// What a request must be changed to, to be within the largest that may be asked for. Costs nothing.
    ///
    /// # Errors
    /// When it has to be refused instead.
    pub fn caps(&self, who: &Principal, estimate: &Estimate) -> Result<Caps, Refusal> {
        let config = self.0.config.load();
        caps(&config, &self.0.parties(&config, who), estimate).inspect_err(|refusal| self.0.count(refusal))
    }

    /// Sizes, rates, concurrency and budgets of the key, its tenant and the gateway as a whole: all or nothing.
    ///
    /// # Errors
    /// When one of them is in the way; nothing was taken then.
    pub fn admit(&self, who: &Principal, estimate: &Estimate) -> Result<Reservation, Refusal> {
        self.ask(who, estimate).map_err(|blocked| {
            self.0.count(&blocked.refusal);
            blocked.refusal
        })
    }

    /// Like [`Limits::admit`], for a request that may wait until then for a rate to clear.
    pub fn admit_before(&self, who: &Principal, estimate: &Estimate, until: Instant) -> Admission {
        let Blocked { refusal, only_rates } = match self.ask(who, estimate) {
            Ok(reservation) => return Admission::Now(reservation),
            Err(blocked) => blocked,
        };
        let at = refusal.retry_after.filter(|_| only_rates).and_then(|after| self.0.clock.now().checked_add(after));
        match at {
            Some(at) if at <= until => Admission::Later { at, refusal },
            _ => {
                self.0.count(&refusal);
                Admission::Refused(refusal)
            }
        }
    }

    fn ask(&self, who: &Principal, estimate: &Estimate) -> Result<Reservation, Blocked> {
        let (config, now) = (self.0.config.load(), self.0.now());
        let parties = self.0.parties(&config, who);
        let caps = caps(&config, &parties, estimate).map_err(Blocked::too_large)?;
        let generated = estimate.predict_tokens.min(caps.num_predict.unwrap_or(u64::MAX));
        let ask = Amount { prompt: estimate.prompt_tokens, generated };
        let mut book = self.0.book();
        let taken = book.admit(parties, ask, now, config.max_accounts);
        let shared = book.take_shared();
        let quotas = taken.as_ref().map(|taken| book.standing(taken, now)).unwrap_or_default();
        drop(book);
        self.0.metrics.limit_accounts_shared(shared);
        Ok(Reservation::new(Arc::clone(&self.0), taken?, caps, quotas))
    }

    /// What a principal, its tenant and all together use of what they may.
    #[must_use]
    pub fn usage(&self, who: &Principal) -> View {
        let (config, now) = (self.0.config.load(), self.0.now());
        let (parties, book) = (self.0.parties(&config, who), self.0.book());
        View { accounts: parties.iter().map(|party| AccountView::of(&party.id, &book.peek(party, now), now)).collect() }
    }

    /// What everyone uses of what they may now, by scope and name; at most so many, and how many there are. `of_key`: what the key
    /// of an id allows by itself; `anonymous`: what whoever needs none may by itself.
    #[must_use]
    pub fn all(&self, most: usize, of_key: impl Fn(&str) -> Option<Allowance>, anonymous: &Allowance) -> (Vec<AccountView>, usize) {
        let (config, now, book) = (self.0.config.load(), self.0.now(), self.0.book());
        let mut accounts: Vec<(&Id, _)> = book.accounts().collect();
        accounts.sort_unstable_by_key(|(id, _)| *id);
        let total = accounts.len();
        let own = |name: &str| match of_key(name) {
            Some(own) => merged(&own, &config.keys),
            None => merged(anonymous, &config.anonymous),
        };
        let view = |(id, _): (&Id, _)| {
            // What an account was allowed when it was last asked may no longer hold.
            let party = Party { id: id.clone(), allowance: allowance(&config, id, own) };
            AccountView::of(id, &book.peek(&party, now), now)
        };
        (accounts.into_iter().take(most).map(view).collect(), total)
    }

    pub(super) fn inner(&self) -> &Inner {
        &self.0
    }
}

impl Inner {
    pub fn now(&self) -> Now {
        let since = self.clock.now().saturating_duration_since(self.started);
        Now { steady_ns: u64::try_from(since.as_nanos()).unwrap_or(u64::MAX), unix_ms: self.clock.unix_ms() }
    }

    pub fn book(&self) -> MutexGuard<'_, Book> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn flush_interval(&self) -> Duration {
        self.config.load().flush_interval.max(Duration::from_millis(1))
    }

    fn count(&self, refusal: &Refusal) {
        self.metrics.limit_refused(refusal.kind.as_str(), refusal.scope.as_str());
    }

    /// Who has to let a request in, and what each allows.
    fn parties(&self, config: &Config, who: &Principal) -> Vec<Party> {
        let (name, default) = match &who.key_id {
            Some(id) => (id, &config.keys),
            None => (&who.name, &config.anonymous),
        };
        let ids = [(Scope::Key, Arc::clone(name)), (Scope::Tenant, Arc::clone(&who.tenant)), (Scope::Global, Arc::clone(&self.everyone))];
        let party = |id: Id| Party { allowance: allowance(config, &id, |_| merged(&who.allowance, default)), id };
        ids.into_iter().map(party).collect()
    }
}

/// What holds for an account. `own`: what the key of a name allows, defaults included.
fn allowance(config: &Config, (scope, name): &Id, own: impl Fn(&str) -> Allowance) -> Allowance {
    match scope {
        Scope::Tenant => config.tenants.get(&**name).cloned().unwrap_or_default(),
        Scope::Global => config.global.clone(),
        _ => own(name),
    }
}

fn caps(config: &Config, parties: &[Party], estimate: &Estimate) -> Result<Caps, Refusal> {
    let allowances: Vec<_> = parties.iter().map(|party| (party.id.0, &party.allowance)).collect();
    caps::decide(&allowances, estimate, config.above_maximum)
}
