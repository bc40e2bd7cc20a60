//! All that one key, one tenant or the gateway as a whole uses. Pure.

use super::budget::{Budget, Saved, Stamp};
use super::concurrency::Running;
use super::refusal::{Bound, Quota, Scope};
use super::requests::Requests;
use super::tokens::{Amount, Tokens};
use crate::domain::allowance::Allowance;

/// The time on both clocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Now {
    /// Nanoseconds of the steady clock, for rates.
    pub steady_ns: u64,
    /// Milliseconds since 1970, for budgets.
    pub unix_ms: i64,
}

/// What a request took from an account.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Receipt {
    stamp: Stamp,
    reserved: Amount,
    /// What of it is on the meters of tokens: less, where a rate came only later.
    metered: Amount,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Account {
    /// What was allowed when it was last asked.
    allowance: Allowance,
    requests: Requests,
    running: Running,
    tokens: Tokens,
    budget: Budget,
    /// Whether more was used than the database knows.
    is_dirty: bool,
}

impl Account {
    pub fn load(saved: Saved) -> Self {
        Self { budget: Budget::load(saved), ..Self::default() }
    }

    /// Whether more was used than the database knows.
    pub fn is_dirty(&self) -> bool {
        self.is_dirty
    }

    /// What was used, when the database does not know it yet; from then on it counts as known.
    pub fn take_unsaved(&mut self) -> Option<Saved> {
        std::mem::take(&mut self.is_dirty).then(|| self.budget.save())
    }

    /// What was used could not be written after all.
    pub fn unsaved_after_all(&mut self) {
        self.is_dirty = true;
    }

    /// From now on this much is allowed. What was used stays used.
    pub fn allow(&mut self, allowance: &Allowance, now: Now) {
        if self.allowance != *allowance {
            self.requests.catch_up(&self.allowance, now.steady_ns);
            self.tokens.catch_up(&self.allowance, now.steady_ns);
            self.allowance = allowance.clone();
        }
    }

    /// How every bound stands for a request with this estimate.
    pub fn bounds(&self, scope: Scope, ask: Amount, now: Now) -> impl Iterator<Item = Bound> {
        let allowance = &self.allowance;
        let requests = self.requests.bounds(scope, allowance, now.steady_ns);
        let tokens = self.tokens.bounds(scope, allowance, ask, now.steady_ns);
        let budgets = self.budget.bounds(scope, allowance, ask, now.unix_ms);
        requests.chain(self.running.bound(scope, allowance)).chain(tokens).chain(budgets)
    }

    /// How every bound stands now.
    pub fn quotas(&self, scope: Scope, now: Now) -> impl Iterator<Item = Quota> {
        self.bounds(scope, Amount::default(), now).map(|bound| bound.quota)
    }

    /// Lets a request in, whether or not it fits: that was asked before, of all accounts.
    pub fn take(&mut self, ask: Amount, now: Now) -> Receipt {
        self.requests.take(&self.allowance, now.steady_ns);
        self.running.take();
        let metered = self.tokens.reserve(&self.allowance, ask, now.steady_ns);
        Receipt { stamp: self.budget.reserve(ask, now.unix_ms), reserved: ask, metered }
    }

    /// A request has ended, and used this much instead of what was reserved.
    pub fn settle(&mut self, receipt: &Receipt, used: Amount, now: Now) {
        self.running.give_back();
        self.tokens.settle(&self.allowance, receipt.metered, used, now.steady_ns);
        self.budget.settle(receipt.stamp, receipt.reserved, used);
        self.is_dirty |= used.total() > 0;
    }

    pub fn running(&self) -> u32 {
        self.running.count()
    }

    /// Tokens that running requests have reserved.
    pub fn held(&self) -> u64 {
        self.budget.held()
    }

    /// Tokens used today and this month.
    pub fn used(&self, now: Now) -> (u64, u64) {
        self.budget.used(now.unix_ms)
    }

    pub fn debt(&self, now: Now) -> u64 {
        self.tokens.debt(&self.allowance, now.steady_ns)
    }

    /// Whether forgetting it changes nothing.
    pub fn is_idle(&self, now: Now) -> bool {
        self.running.count() == 0
            && !self.is_dirty
            && self.requests.is_idle(&self.allowance, now.steady_ns)
            && self.tokens.is_idle(&self.allowance, now.steady_ns)
            && self.budget.is_idle(now.unix_ms)
    }
}
