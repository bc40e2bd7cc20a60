//! What is told to the person who starts the process: who serves what, where, and a first request to paste.

use std::fmt;
use std::net::SocketAddr;

use crate::domain::secret::Secret;
use crate::models::{Entry, Registry};

/// What serves, at start.
#[derive(Debug, Clone)]
pub struct Summary {
    pub address: SocketAddr,
    pub backends: Vec<Answering>,
    /// Whether requests must bear a key.
    pub keys_required: bool,
    /// The key that was made because there was none. Shown this once.
    pub first_key: Option<Secret>,
}

/// One backend and what it serves.
#[derive(Debug, Clone)]
pub struct Answering {
    pub name: String,
    pub kind: &'static str,
    pub about: String,
    /// Why it does not answer, if it does not.
    pub down: Option<String>,
    pub models: Vec<String>,
    /// The first of them that can be asked to generate.
    pub first: Option<String>,
}

/// Most models that are listed for a backend.
const LISTED: usize = 8;

impl Summary {
    pub fn of(address: SocketAddr, registry: &Registry) -> Self {
        let backends = registry.entries().iter().map(|entry| answering(entry)).collect();
        Self { address, backends, keys_required: false, first_key: None }
    }

    /// A model to try, when there is one.
    pub fn model(&self) -> Option<&str> {
        let mut up = self.backends.iter().filter(|backend| backend.down.is_none());
        up.find_map(|backend| backend.first.as_deref())
    }

    /// Where to reach it from this machine.
    pub fn url(&self) -> String {
        let mut address = self.address;
        if address.ip().is_unspecified() {
            address.set_ip(if address.is_ipv4() { [127, 0, 0, 1].into() } else { std::net::Ipv6Addr::LOCALHOST.into() });
        }
        format!("http://{address}")
    }
}

fn answering(entry: &Entry) -> Answering {
    Answering {
        name: entry.backend.name().to_owned(),
        kind: entry.backend.kind().as_str(),
        about: entry.backend.describe(),
        down: entry.down(),
        models: entry.models().iter().map(|model| model.name.to_string()).collect(),
        first: entry.models().iter().find(|model| model.generates()).map(|model| model.name.to_string()),
    }
}

impl fmt::Display for Answering {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "  {} ({}, {})", self.name, self.kind, self.about)?;
        match &self.down {
            Some(reason) => write!(f, ": down, {reason}"),
            None if self.models.is_empty() => f.write_str(": has no models yet (`ollama pull` brings one)"),
            None => {
                write!(f, ": {}", self.models[..self.models.len().min(LISTED)].join(", "))?;
                if self.models.len() > LISTED { write!(f, " and {} more", self.models.len() - LISTED) } else { Ok(()) }
            }
        }
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "Arriero {} listens on {}", env!("CARGO_PKG_VERSION"), self.url())?;
        if !self.address.ip().is_loopback() {
            writeln!(f, "Other machines can reach it, at {}.", self.address)?;
        }
        writeln!(f, "Backends:")?;
        for backend in &self.backends {
            writeln!(f, "{backend}")?;
        }
        if let Some(model) = self.model() {
            let key = if self.keys_required { "-H \"authorization: Bearer $ARRIERO_KEY\" " } else { "" };
            let body = serde_json::json!({"model": model, "prompt": "Why is the sky blue?", "stream": true});
            writeln!(f, "Try it:\n  curl -N {}/generate {key}-d '{body}'", self.url())?;
        }
        match &self.first_key {
            Some(key) => writeln!(f, "The first key, for an admin; it is not shown again:\n  export ARRIERO_KEY={}", key.reveal())?,
            None if self.keys_required => {}
            None => writeln!(f, "No key is asked for. `arriero keys create --role admin`, while this is stopped, makes the first.")?,
        }
        write!(f, "API page: {}/docs/", self.url())
    }
}
