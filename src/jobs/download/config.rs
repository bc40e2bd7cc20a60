//! From where models are fetched, and with how much patience.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// The Hub, or a mirror.
    pub url: String,
    /// For models that are not open to all; empty: none. Sent to the address above and to nobody it redirects to.
    pub token: String,
    #[serde(with = "crate::domain::span")]
    pub connect_timeout: Duration,
    /// Longest time without a byte.
    #[serde(with = "crate::domain::span")]
    pub stall_timeout: Duration,
    /// Failures in a row, without a byte in between, before a fetch is given up.
    pub retries: u32,
    /// After the first of them; doubled after each further one.
    #[serde(with = "crate::domain::span")]
    pub retry_pause: Duration,
    /// Most that is fetched of one model.
    pub max_bytes: u64,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            url: "https://huggingface.co".to_owned(),
            token: String::new(),
            connect_timeout: Duration::from_secs(10),
            stall_timeout: Duration::from_secs(30),
            retries: 5,
            retry_pause: Duration::from_secs(1),
            max_bytes: 2 << 40,
        }
    }
}

impl fmt::Debug for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Not the token: what is printed ends in logs.
        f.debug_struct("Config").field("url", &self.url).finish_non_exhaustive()
    }
}

impl Config {
    /// The address without a slash at its end.
    pub(super) fn base(&self) -> &str {
        self.url.trim_end_matches('/')
    }
}
