//! The accounts of all: asked together, taken from together. Pure.
//!
//! A request is let in by all its parties (key, tenant, the gateway as a whole) or by none, and then costs none of them anything.
//! There are at most as many accounts as configured: those that nothing depends on make room for new ones, and where none does the
//! newcomers of a scope share one account, so that no flood of names gets around the bounds.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use super::account::{Account, Now, Receipt};
use super::budget::Saved;
use super::meter::Wait;
use super::refusal::{Bound, Quota, Refusal, Scope};
use super::tokens::Amount;
use crate::domain::allowance::Allowance;

/// How often, at most, accounts that nothing depends on are looked for.
const SWEEP_NS: u64 = 1_000_000_000;
/// The account shared by those beyond the bound. No key or tenant can have this name.
const OTHERS: &str = "(others)";

/// Names an account.
pub type Id = (Scope, Arc<str>);

/// One of those who have to let a request in.
#[derive(Debug, Clone)]
pub struct Party {
    pub id: Id,
    pub allowance: Allowance,
}

/// A request that was let in: what it took, and from whom.
#[derive(Debug, Clone)]
pub struct Taken {
    pub reserved: Amount,
    from: Vec<(Id, Receipt)>,
}

/// A request that was not.
#[derive(Debug, Clone)]
pub struct Blocked {
    /// The bound that takes longest to clear: who waits for it need not wait for another.
    pub refusal: Refusal,
    /// Whether nothing but rates is in the way.
    pub only_rates: bool,
}

#[derive(Debug, Default)]
pub struct Book {
    accounts: HashMap<Id, Account>,
    /// Those of whose use the database does not know all, once each.
    unsaved: Vec<Id>,
    /// Those who may owe tokens.
    indebted: HashSet<Id>,
    swept_ns: u64,
    /// How many times an account had to be shared.
    shared: u64,
}

impl Book {
    pub fn load(rows: impl IntoIterator<Item = (Id, Saved)>) -> Self {
        Self { accounts: rows.into_iter().map(|(id, saved)| (id, Account::load(saved))).collect(), ..Self::default() }
    }

    /// # Errors
    /// What is in the way. Nothing was taken then.
    pub fn admit(&mut self, mut parties: Vec<Party>, ask: Amount, now: Now, most: usize) -> Result<Taken, Blocked> {
        let mut blocked = None;
        for party in &mut parties {
            self.open(&mut party.id, now, most);
            let Some(account) = self.accounts.get_mut(&party.id) else { continue };
            account.allow(&party.allowance, now);
            for bound in account.bounds(party.id.0, ask, now).filter(|bound| bound.wait != Wait::Free) {
                blocked = Some(worse(blocked, bound));
            }
        }
        if let Some(blocked) = blocked {
            return Err(Blocked { refusal: Refusal::of(blocked.0), only_rates: blocked.1 });
        }
        let mut from = Vec::with_capacity(parties.len());
        for Party { id, .. } in parties {
            if let Some(account) = self.accounts.get_mut(&id) {
                let receipt = account.take(ask, now);
                from.push((id, receipt));
            }
        }
        Ok(Taken { reserved: ask, from })
    }

    /// Makes sure that there is such an account, or names the one to share instead.
    fn open(&mut self, id: &mut Id, now: Now, most: usize) {
        if self.accounts.contains_key(id) {
            return;
        }
        if self.accounts.len() >= most {
            self.sweep(now);
        }
        if self.accounts.len() >= most {
            self.shared = self.shared.saturating_add(1);
            id.1 = OTHERS.into();
        }
        self.accounts.entry(id.clone()).or_default();
    }

    fn sweep(&mut self, now: Now) {
        if now.steady_ns.saturating_sub(self.swept_ns) >= SWEEP_NS || self.swept_ns == 0 {
            self.swept_ns = now.steady_ns.max(1);
            self.accounts.retain(|_, account| !account.is_idle(now));
        }
    }

    /// A request has ended.
    pub fn settle(&mut self, taken: &Taken, used: Amount, now: Now) {
        for (id, receipt) in &taken.from {
            let Some(account) = self.accounts.get_mut(id) else { continue };
            let was_dirty = account.is_dirty();
            account.settle(receipt, used, now);
            if account.is_dirty() && !was_dirty {
                self.unsaved.push(id.clone());
            }
            if account.debt(now) > 0 {
                self.indebted.insert(id.clone());
            }
        }
    }

    /// How those who let a request in stand now.
    pub fn standing(&self, taken: &Taken, now: Now) -> Vec<Quota> {
        let accounts = taken.from.iter().filter_map(|(id, _)| Some((id.0, self.accounts.get(id)?)));
        accounts.flat_map(|(scope, account)| account.quotas(scope, now)).collect()
    }

    /// An account as it stands, or as it would if it were opened now.
    pub fn peek(&self, party: &Party, now: Now) -> Account {
        let mut account = self.accounts.get(&party.id).cloned().unwrap_or_default();
        account.allow(&party.allowance, now);
        account
    }

    pub fn accounts(&self) -> impl Iterator<Item = (&Id, &Account)> {
        self.accounts.iter()
    }

    /// What the database does not know yet; counts as known from now on.
    pub fn take_unsaved(&mut self) -> Vec<(Id, Saved)> {
        let ids = std::mem::take(&mut self.unsaved);
        ids.into_iter().filter_map(|id| Some((self.accounts.get_mut(&id)?.take_unsaved()?, id))).map(|(saved, id)| (id, saved)).collect()
    }

    /// These could not be written after all.
    pub fn unsaved_after_all(&mut self, rows: Vec<(Id, Saved)>) {
        for (id, _) in rows {
            if let Some(account) = self.accounts.get_mut(&id).filter(|account| !account.is_dirty()) {
                account.unsaved_after_all();
                self.unsaved.push(id);
            }
        }
    }

    /// All tokens that are owed. Looks only at those who owed some when they last used any.
    pub fn debt(&mut self, now: Now) -> u64 {
        let mut total = 0_u64;
        self.indebted.retain(|id| {
            let debt = self.accounts.get(id).map_or(0, |account| account.debt(now));
            total = total.saturating_add(debt);
            debt > 0
        });
        total
    }

    /// How many times an account had to be shared, since this was last asked.
    pub fn take_shared(&mut self) -> u64 {
        std::mem::take(&mut self.shared)
    }
}

/// The bound that takes longer to clear, and whether all so far are rates.
fn worse(so_far: Option<(Bound, bool)>, bound: Bound) -> (Bound, bool) {
    let is_rate = Refusal::of(bound).kind.is_rate() && bound.wait != Wait::Never;
    let Some((worst, only_rates)) = so_far else { return (bound, is_rate) };
    let longer = match (worst.wait, bound.wait) {
        (Wait::Never, _) | (_, Wait::Free) => false,
        (Wait::Free, _) | (_, Wait::Never) => true,
        (Wait::For(before), Wait::For(now)) => now > before,
    };
    (if longer { bound } else { worst }, only_rates && is_rate)
}

impl Blocked {
    /// Waiting makes no request smaller.
    pub fn too_large(refusal: Refusal) -> Self {
        Self { refusal, only_rates: false }
    }
}
