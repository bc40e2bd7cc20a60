//! How much someone may use.

use serde::{Deserialize, Serialize};

/// Bounds on what a key, a tenant or an address may use. `None`: no bound.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Allowance {
    /// Requests that may start in a second.
    pub requests_per_second: Option<u32>,
    /// Requests that may start in a minute.
    pub requests_per_minute: Option<u32>,
    /// Requests that may come at once before the two rates above hold them back. Default: what the rate allows in its own span.
    pub burst: Option<u32>,
    /// Requests that may run or wait at the same time.
    pub concurrent_requests: Option<u32>,
    /// Tokens of prompts read in a minute.
    pub prompt_tokens_per_minute: Option<u64>,
    /// Tokens generated in a minute.
    pub generated_tokens_per_minute: Option<u64>,
    /// Tokens, of prompts and generated, in a day (UTC).
    pub tokens_per_day: Option<u64>,
    /// Tokens, of prompts and generated, in a calendar month (UTC).
    pub tokens_per_month: Option<u64>,
    /// Largest prompt, in tokens.
    pub max_prompt_tokens: Option<u64>,
    /// Largest `num_predict`; also what a request without one gets.
    pub max_num_predict: Option<u64>,
    /// Largest `num_ctx`.
    pub max_num_ctx: Option<u32>,
}
