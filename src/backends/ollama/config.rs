//! How one server is reached and how long it is waited for.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize, Serializer};

use super::address::{Address, AddressError, hide_credentials};

/// One Ollama server. Shown (by `Debug` and when serialised) without the credentials its url may hold.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Name of the backend. Default: host and port.
    pub name: Option<String>,
    /// `http://host[:port][/prefix]`, the same with `https`, or `host:port`; `user:password@` before the host is sent as basic authentication.
    #[serde(serialize_with = "without_credentials")]
    pub url: String,
    /// PEM file of the authorities an https server is judged by. Default: those of the machine.
    pub ca_file: Option<PathBuf>,
    /// For name look-up, connection and TLS handshake together.
    #[serde(with = "crate::domain::span")]
    pub connect_timeout: Duration,
    /// Until the server begins to answer a generation: its own queue, loading the model and reading the prompt lie in this time.
    #[serde(with = "crate::domain::span")]
    pub first_token_timeout: Duration,
    /// Longest silence in the middle of an answer.
    #[serde(with = "crate::domain::span")]
    pub idle_timeout: Duration,
    /// Between two cheap checks.
    #[serde(with = "crate::domain::span")]
    pub probe_interval: Duration,
    /// For one answer to a cheap check or about the models.
    #[serde(with = "crate::domain::span")]
    pub probe_timeout: Duration,
    /// Between two checks that generate.
    #[serde(with = "crate::domain::span")]
    pub deep_probe_interval: Duration,
    /// For one token of a loaded model, waiting behind other requests included.
    #[serde(with = "crate::domain::span")]
    pub deep_probe_timeout: Duration,
    /// Longest line of an answer, in bytes.
    pub max_line_bytes: usize,
    /// Most connections kept open for later use.
    pub pool_max_idle: usize,
    /// How long they are kept. Longer than what stands before the server keeps them, and a request may meet a connection that is just closing.
    #[serde(with = "crate::domain::span")]
    pub pool_idle_timeout: Duration,
    /// Requests of one model that the server works on at a time (its OLLAMA_NUM_PARALLEL). `None`: not known.
    pub slots: Option<u32>,
    /// Models that it keeps in memory at a time (its OLLAMA_MAX_LOADED_MODELS). `None`: not known.
    pub max_loaded: Option<u32>,
    /// Between two looks at answers that make no progress, while there are answers.
    #[serde(with = "crate::domain::span")]
    pub guard_interval: Duration,
    /// How long a model that is in memory may say nothing before the server counts as stuck on it. Long prompts get longer.
    #[serde(with = "crate::domain::span")]
    pub wedged_after: Duration,
    /// How long the server may need to notice that a client has left while its prompt was being read.
    #[serde(with = "crate::domain::span")]
    pub slot_freed_within: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            name: None,
            url: "http://127.0.0.1:11434".to_owned(),
            ca_file: None,
            connect_timeout: Duration::from_secs(2),
            first_token_timeout: Duration::from_mins(5),
            idle_timeout: Duration::from_mins(2),
            probe_interval: Duration::from_secs(5),
            probe_timeout: Duration::from_secs(5),
            deep_probe_interval: Duration::from_mins(1),
            deep_probe_timeout: Duration::from_secs(30),
            max_line_bytes: 8 * 1024 * 1024,
            pool_max_idle: 256,
            pool_idle_timeout: Duration::from_secs(50),
            slots: None,
            max_loaded: None,
            guard_interval: Duration::from_secs(1),
            wedged_after: Duration::from_secs(8),
            slot_freed_within: Duration::from_millis(150),
        }
    }
}

impl Config {
    /// Whether the url is an address.
    ///
    /// # Errors
    /// When it is not.
    pub fn check(&self) -> Result<(), AddressError> {
        Address::parse(&self.url).map(drop)
    }

    /// Whether the server shares this machine's memory. One in a container of its own that has another address is not known to.
    #[must_use]
    pub fn is_on_this_machine(&self) -> bool {
        Address::parse(&self.url).is_ok_and(|address| address.is_loopback())
    }

    /// The name of the backend: what is configured, else the server's address. `None` where that is none.
    #[must_use]
    pub fn backend_name(&self) -> Option<String> {
        self.name.clone().or_else(|| Address::parse(&self.url).ok().map(|address| address.authority().to_owned()))
    }
}

fn without_credentials<S: Serializer>(url: &str, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&hide_credentials(url))
}

impl fmt::Debug for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Config").field("name", &self.name).field("url", &hide_credentials(&self.url)).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shown_without_credentials() {
        let config = Config { url: "http://me:hunter2@box".to_owned(), ..Config::default() };
        assert!(!format!("{config:?}").contains("hunter2"));
        let text = toml::to_string(&config).expect("serialises");
        assert!(!text.contains("hunter2") && text.contains("***@box"), "{text}");
    }

    #[test]
    fn read_with_defaults_and_refused_when_misspelt() {
        let config: Config = toml::from_str("url = \"box:1\"\nidle_timeout = \"90s\"").expect("valid");
        assert_eq!(config, Config { url: "box:1".to_owned(), idle_timeout: Duration::from_secs(90), ..Config::default() });
        assert!(toml::from_str::<Config>("idle_timout = \"90s\"").is_err());
    }
}
