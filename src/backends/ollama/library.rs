//! What a server has: its models, and which of them are in memory.
//!
//! Names, digests and families come from `/api/tags`, what is loaded from `/api/ps`; the exact number of weights and the context
//! length from `/api/show`, once for each digest. A server that is slow about the last two still has its models listed.

use std::collections::{HashMap, HashSet};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream;
use http::Method;
use serde::{Deserialize, Deserializer};
use serde_json::{Map, Value};

use super::client::Client;
use super::shelf::UNFINISHED;
use crate::backends::Error;
use crate::domain::id::ModelName;
use crate::domain::model::ModelInfo;

/// Descriptions that are kept, and how many are asked for at a time and by one listing.
const MAX_DETAILS: usize = 4096;
const SHOWS_AT_ONCE: usize = 4;
const SHOWS_A_LISTING: usize = 64;

/// What `/api/show` says, by digest.
#[derive(Default)]
pub struct Library {
    details: Mutex<HashMap<String, Details>>,
}

/// What only a description of the model says exactly.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Details {
    parameters: Option<u64>,
    context_length: Option<u32>,
}

impl Library {
    /// # Errors
    /// `/api/tags` failed. Failures of the other two only leave things unsaid.
    pub async fn models(&self, client: &Client, patience: Duration) -> Result<Vec<ModelInfo>, Error> {
        let (tags, loaded) = tokio::join!(client.json::<Tags>(Method::GET, "/api/tags", None, patience), resident(client, patience));
        let tags = tags?;
        let loaded = loaded.unwrap_or_else(|error| {
            tracing::debug!(backend = %client.address(), %error, "which models are loaded is not known");
            Vec::new()
        });
        // Descriptions are welcome, not waited for longer than the lists were.
        let _ = tokio::time::timeout(patience, self.learn(client, &tags.models, patience)).await;
        Ok(self.join(tags.models, &loaded))
    }

    async fn learn(&self, client: &Client, tags: &[Tag], patience: Duration) {
        let unknown: Vec<&Tag> = {
            let details = self.details.lock().unwrap_or_else(PoisonError::into_inner);
            tags.iter().filter(|tag| !tag.digest.is_empty() && !details.contains_key(&tag.digest)).take(SHOWS_A_LISTING).collect()
        };
        stream::iter(unknown)
            .for_each_concurrent(SHOWS_AT_ONCE, |tag| async move {
                let body = Bytes::from(serde_json::json!({"model": tag.name}).to_string());
                if let Ok(shown) = client.json::<Shown>(Method::POST, "/api/show", Some(body), patience).await {
                    self.keep(&tag.digest, shown.details());
                }
            })
            .await;
    }

    fn keep(&self, digest: &str, known: Details) {
        let mut details = self.details.lock().unwrap_or_else(PoisonError::into_inner);
        if details.len() >= MAX_DETAILS {
            details.clear();
        }
        details.insert(digest.to_owned(), known);
    }

    fn join(&self, tags: Vec<Tag>, loaded: &[Resident]) -> Vec<ModelInfo> {
        let loaded: HashSet<String> =
            loaded.iter().filter_map(|r| ModelName::parse(&r.name).ok()).map(|name| name.canonical().to_owned()).collect();
        let details = self.details.lock().unwrap_or_else(PoisonError::into_inner);
        tags.into_iter().filter_map(|tag| tag.info(&details, &loaded)).collect()
    }
}

/// The models in memory.
pub async fn resident(client: &Client, patience: Duration) -> Result<Vec<Resident>, Error> {
    client.json::<Loaded>(Method::GET, "/api/ps", None, patience).await.map(|loaded| loaded.models)
}

/// Go writes an empty list as `null`.
fn list<'de, D: Deserializer<'de>, T: Deserialize<'de>>(deserializer: D) -> Result<Vec<T>, D::Error> {
    Option::deserialize(deserializer).map(Option::unwrap_or_default)
}

#[derive(Deserialize)]
struct Tags {
    #[serde(deserialize_with = "list")]
    models: Vec<Tag>,
}

#[derive(Deserialize)]
struct Loaded {
    #[serde(deserialize_with = "list")]
    models: Vec<Resident>,
}

/// A model in memory.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct Resident {
    pub name: String,
    /// Until when, if nobody asks for it again; as the server writes it.
    pub expires_at: String,
    /// Of the context it was loaded with, in tokens.
    pub context_length: Option<u32>,
    pub size: Option<u64>,
    pub size_vram: Option<u64>,
}

#[derive(Deserialize)]
struct Tag {
    name: String,
    #[serde(default)]
    digest: String,
    #[serde(default)]
    size: Option<u64>,
    #[serde(default)]
    details: TagDetails,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct TagDetails {
    family: Option<String>,
    parameter_size: Option<String>,
    quantization_level: Option<String>,
    context_length: Option<u32>,
}

impl Tag {
    fn info(self, known: &HashMap<String, Details>, loaded: &HashSet<String>) -> Option<ModelInfo> {
        let name = ModelName::parse(&self.name).ok().filter(|name| !name.canonical().starts_with(UNFINISHED))?;
        let known = known.get(&self.digest).copied().unwrap_or_default();
        let said = |text: Option<String>| text.filter(|text| !text.is_empty());
        Some(ModelInfo {
            loaded: loaded.contains(name.canonical()),
            name,
            digest: said(Some(self.digest)),
            family: said(self.details.family),
            parameters: known.parameters.or_else(|| self.details.parameter_size.as_deref().and_then(parameters)),
            quantization: said(self.details.quantization_level),
            context_length: known.context_length.or(self.details.context_length),
            size_bytes: self.size,
        })
    }
}

#[derive(Deserialize)]
struct Shown {
    #[serde(default)]
    model_info: Option<Map<String, Value>>,
}

impl Shown {
    fn details(&self) -> Details {
        let field = |name: &str| self.model_info.as_ref()?.get(name);
        let architecture = field("general.architecture").and_then(Value::as_str).unwrap_or_default();
        Details {
            parameters: field("general.parameter_count").and_then(Value::as_u64),
            context_length: field(&format!("{architecture}.context_length")).and_then(Value::as_u64).and_then(|n| n.try_into().ok()),
        }
    }
}

/// `268.10M` as a number.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a count of weights, checked to be positive and far below 2^63"
)]
fn parameters(text: &str) -> Option<u64> {
    let unit_at = text.find(|c: char| c.is_ascii_alphabetic()).unwrap_or(text.len());
    let (number, unit) = text.split_at(unit_at);
    let scale = match unit {
        "" => 1.0,
        "K" => 1e3,
        "M" => 1e6,
        "B" => 1e9,
        "T" => 1e12,
        _ => return None,
    };
    let count = number.parse::<f64>().ok()? * scale;
    (1.0..1e18).contains(&count).then(|| count.round() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_in_words_become_numbers() {
        for (text, count) in
            [("268.10M", Some(268_100_000)), ("7.6B", Some(7_600_000_000)), ("1T", Some(1_000_000_000_000)), ("512", Some(512))]
        {
            assert_eq!(parameters(text), count, "{text}");
        }
        for text in ["", "8x7B", "M", "-1B", "NaN", "infB", "7.6 B"] {
            assert_eq!(parameters(text), None, "{text}");
        }
    }

    #[test]
    fn a_list_that_is_null_is_empty() {
        assert!(serde_json::from_str::<Tags>(r#"{"models":null}"#).expect("valid").models.is_empty());
        assert!(serde_json::from_str::<Tags>("{}").is_err());
    }
}
