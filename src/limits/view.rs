//! What is used of what, for those who look.

use std::sync::Arc;

use super::account::{Account, Now};
use super::book::Id;
use super::refusal::{Quota, Scope};

/// One key, one tenant, or all together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AccountView {
    pub scope: Scope,
    /// The key's id, the tenant's name, or `all`.
    pub name: Arc<str>,
    /// Requests that run or wait.
    pub running: u32,
    /// Tokens that they have reserved.
    pub reserved_tokens: u64,
    pub tokens_today: u64,
    pub tokens_this_month: u64,
    /// Tokens used beyond the rates, which time has to make good first.
    pub debt_tokens: u64,
    /// How each bound stands.
    pub quotas: Vec<Quota>,
}

/// A principal and those it belongs to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct View {
    /// The key, the tenant, all together.
    pub accounts: Vec<AccountView>,
}

impl AccountView {
    pub(super) fn of(id: &Id, account: &Account, now: Now) -> Self {
        let (tokens_today, tokens_this_month) = account.used(now);
        Self {
            scope: id.0,
            name: Arc::clone(&id.1),
            running: account.running(),
            reserved_tokens: account.held(),
            tokens_today,
            tokens_this_month,
            debt_tokens: account.debt(now),
            quotas: account.quotas(id.0, now).collect(),
        }
    }
}
