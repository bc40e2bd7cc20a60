//! From where models are fetched, and with how much patience.

use std::time::Duration;

use serde::{Deserialize, Serialize};

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// The Hub, or a mirror.
    pub url: String,
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
            connect_timeout: Duration::from_secs(10),
            stall_timeout: Duration::from_secs(30),
            retries: 5,
            retry_pause: Duration::from_secs(1),
            max_bytes: 2 << 40,
        }
    }
}

impl Config {
    /// The address without a slash at its end.
    pub(super) fn base(&self) -> &str {
        self.url.trim_end_matches('/')
    }
}
