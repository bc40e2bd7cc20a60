//! Which gateway answers for teachers, and with how much patience it is asked.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Empty: the gateway that the job belongs to. One that ends in `/v1` is asked as OpenAI's API is, any other as this gateway's own.
    pub url: String,
    /// Empty: none. Sent to the address above and to nobody it redirects to.
    pub key: String,
    pub requests_at_once: usize,
    #[serde(with = "crate::domain::span")]
    pub connect_timeout: Duration,
    /// For an answer, waiting for its turn included.
    #[serde(with = "crate::domain::span")]
    pub answer_timeout: Duration,
    /// Failures of one question before all of it is given up; what has been answered stays.
    pub retries: u32,
    /// After the first of them; doubled after each further one. What the gateway asks for comes before it.
    #[serde(with = "crate::domain::span")]
    pub retry_pause: Duration,
    /// Longest pause, whatever the gateway asks for.
    #[serde(with = "crate::domain::span")]
    pub max_retry_pause: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            url: String::new(),
            key: String::new(),
            requests_at_once: 4,
            connect_timeout: Duration::from_secs(10),
            answer_timeout: Duration::from_mins(15),
            retries: 6,
            retry_pause: Duration::from_secs(1),
            max_retry_pause: Duration::from_mins(2),
        }
    }
}

impl fmt::Debug for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Not the key, nor an address that may hold one: what is printed ends in logs.
        f.debug_struct("Config").field("requests_at_once", &self.requests_at_once).finish_non_exhaustive()
    }
}
