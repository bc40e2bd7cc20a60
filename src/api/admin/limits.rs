//! `GET /admin/limits`: who uses how much of what.

use axum::Json;
use axum::extract::State as From;
use serde::Serialize;
use utoipa::ToSchema;

use crate::api::state::State;
use crate::limits;

/// Accounts in one answer.
const MOST: usize = 10_000;

/// What everyone uses of what they may.
#[derive(Serialize, ToSchema)]
pub struct LimitList {
    /// By scope and name; at most 10,000.
    pub accounts: Vec<LimitAccount>,
    /// How many there are.
    pub total: usize,
}

/// One key, one tenant, or all together.
#[derive(Serialize, ToSchema)]
pub struct LimitAccount {
    /// `key`, `tenant` or `global`.
    pub scope: &'static str,
    /// The key's public id, the tenant's name, or `all`.
    pub name: String,
    /// Requests that run or wait.
    pub running: u32,
    /// Tokens that they have reserved.
    pub reserved_tokens: u64,
    /// Tokens used since midnight (UTC).
    pub tokens_today: u64,
    /// Tokens used since the first of the month (UTC).
    pub tokens_this_month: u64,
    /// Tokens used beyond the rates, which time has to make good first.
    pub debt_tokens: u64,
    /// How each bound stands; none where nothing is bounded.
    pub limits: Vec<LimitStanding>,
}

/// How a bound stands.
#[derive(Serialize, ToSchema)]
pub struct LimitStanding {
    /// `requests-per-second`, `requests-per-minute`, `concurrent-requests`, `prompt-tokens-per-minute`,
    /// `generated-tokens-per-minute`, `tokens-per-day` or `tokens-per-month`.
    pub measure: &'static str,
    pub limit: u64,
    pub remaining: u64,
    /// Seconds until all of it is there again, if nothing more is used.
    pub reset_seconds: u64,
}

/// Limits
///
/// What each key, each tenant and all together use of what they may. Accounts appear with their first request.
#[utoipa::path(get, path = "/admin/limits", tag = "admin", responses((status = 200, description = "The accounts", body = LimitList)))]
pub async fn list(From(state): From<State>) -> Json<LimitList> {
    let anonymous = state.keys.anonymous();
    let of_key = |id: &str| state.keys.show(id).ok().map(|key| key.terms.allowance);
    let (accounts, total) = state.limits.all(MOST, of_key, &anonymous.allowance);
    Json(LimitList { accounts: accounts.iter().map(account).collect(), total })
}

fn account(view: &limits::AccountView) -> LimitAccount {
    LimitAccount {
        scope: view.scope.as_str(),
        name: view.name.to_string(),
        running: view.running,
        reserved_tokens: view.reserved_tokens,
        tokens_today: view.tokens_today,
        tokens_this_month: view.tokens_this_month,
        debt_tokens: view.debt_tokens,
        limits: view.quotas.iter().map(standing).collect(),
    }
}

fn standing(quota: &limits::Quota) -> LimitStanding {
    let reset_seconds = quota.reset_seconds();
    LimitStanding { measure: quota.measure.as_str(), limit: quota.limit, remaining: quota.remaining, reset_seconds }
}
