//! What is allowed, by configuration. Read anew with every request, so that it can change while the process runs.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::caps::AboveMaximum;
use super::network::Network;
use crate::domain::allowance::Allowance;
use crate::domain::span;

/// What holds for everyone, whatever their key says.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// What happens to a `num_predict` or `num_ctx` beyond its bound.
    pub above_maximum: AboveMaximum,
    /// Keys and tenants whose use is remembered; the ones beyond share an account.
    pub max_accounts: usize,
    /// Longest time that settled use is only in memory.
    #[serde(with = "span")]
    pub flush_interval: Duration,
    /// Each address, before it is known who asks.
    pub address: Address,
    /// Each key, where the key itself does not say otherwise.
    pub keys: Allowance,
    /// All together who need no key.
    pub anonymous: Allowance,
    /// All together.
    pub global: Allowance,
    /// All keys of a tenant together, by the tenant's name.
    pub tenants: BTreeMap<String, Allowance>,
}

/// Bounds on one address.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Address {
    /// Requests a second. `None`: no bound.
    pub requests_per_second: Option<u32>,
    /// Requests that may come at once. `None`: those of a second.
    pub burst: Option<u32>,
    /// Requests with a wrong key a minute, before all requests of the address are held back. `None`: no bound.
    pub wrong_keys_per_minute: Option<u32>,
    /// Addresses that are remembered, twice over.
    pub max_addresses: usize,
    /// Proxies whose `X-Forwarded-For` is believed.
    pub trusted_proxies: Vec<Network>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            above_maximum: AboveMaximum::Refuse,
            max_accounts: 100_000,
            flush_interval: Duration::from_millis(500),
            address: Address::default(),
            keys: Allowance::default(),
            anonymous: Allowance::default(),
            global: Allowance::default(),
            tenants: BTreeMap::new(),
        }
    }
}

impl Default for Address {
    fn default() -> Self {
        Self { requests_per_second: None, burst: None, wrong_keys_per_minute: Some(60), max_addresses: 50_000, trusted_proxies: Vec::new() }
    }
}

/// What is allowed by `own`, or by `default` where it says nothing.
#[must_use]
pub fn merged(own: &Allowance, default: &Allowance) -> Allowance {
    Allowance {
        requests_per_second: own.requests_per_second.or(default.requests_per_second),
        requests_per_minute: own.requests_per_minute.or(default.requests_per_minute),
        burst: own.burst.or(default.burst),
        concurrent_requests: own.concurrent_requests.or(default.concurrent_requests),
        prompt_tokens_per_minute: own.prompt_tokens_per_minute.or(default.prompt_tokens_per_minute),
        generated_tokens_per_minute: own.generated_tokens_per_minute.or(default.generated_tokens_per_minute),
        tokens_per_day: own.tokens_per_day.or(default.tokens_per_day),
        tokens_per_month: own.tokens_per_month.or(default.tokens_per_month),
        max_prompt_tokens: own.max_prompt_tokens.or(default.max_prompt_tokens),
        max_num_predict: own.max_num_predict.or(default.max_num_predict),
        max_num_ctx: own.max_num_ctx.or(default.max_num_ctx),
    }
}
