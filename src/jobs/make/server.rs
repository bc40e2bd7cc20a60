//! An Ollama server, as a child process is told of it.

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::Value;

use crate::backends::ollama;

/// A server that may be published to. Unlike its settings elsewhere it is written with the credentials its address may hold: a child
/// process is told them over a pipe, and must be able to use them. Never put one into a log or an answer.
#[derive(Debug, Clone, PartialEq)]
pub struct Server(pub ollama::Config);

impl Server {
    /// What it is called.
    #[must_use]
    pub fn name(&self) -> String {
        self.0.backend_name().unwrap_or_default()
    }
}

impl Serialize for Server {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut settings = serde_json::to_value(&self.0).map_err(serde::ser::Error::custom)?;
        settings["url"] = Value::String(self.0.url.clone());
        settings.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Server {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        ollama::Config::deserialize(deserializer).map(Self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_child_is_told_everything() {
        let server = Server(ollama::Config { url: "http://me:hunter2@box".into(), name: Some("box".into()), ..ollama::Config::default() });
        let told = serde_json::to_string(&server).expect("JSON");
        assert_eq!(serde_json::from_str::<Server>(&told).expect("read"), server);
        assert!(!format!("{server:?}").contains("hunter2"));
    }
}
