//! Which models are in memory, and bringing them there and away.

use std::time::Duration;

use bytes::Bytes;
use http::Method;
use jiff::Timestamp;
use serde::de::IgnoredAny;
use serde_json::{Map, Value, json};

use super::client::Client;
use super::library;
use crate::backends::{Error, Resident};
use crate::domain::id::ModelName;

/// The models in memory. Those with names that cannot be are left out.
pub async fn resident(client: &Client, patience: Duration) -> Result<Vec<Resident>, Error> {
    Ok(library::resident(client, patience).await?.iter().filter_map(known).collect())
}

/// What `/api/ps` says of one model.
pub fn known(listed: &library::Resident) -> Option<Resident> {
    Some(Resident {
        model: ModelName::parse(&listed.name).ok()?,
        expires_at_unix_ms: listed.expires_at.parse::<Timestamp>().ok().map(Timestamp::as_millisecond),
        context_length: listed.context_length,
        size_bytes: listed.size,
        size_vram_bytes: listed.size_vram,
    })
}

/// Loads a model: an empty prompt asks for nothing else.
pub async fn load(
    client: &Client,
    model: &ModelName,
    mut options: Map<String, Value>,
    keep_alive: Option<Value>,
    patience: Duration,
) -> Result<(), Error> {
    let mut body = json!({"model": model.as_str(), "stream": false});
    // Not an option in Ollama's eyes, yet part of what a runner is.
    if let Some(shift) = options.remove("shift") {
        body["shift"] = shift;
    }
    if !options.is_empty() {
        body["options"] = options.into();
    }
    if let Some(keep_alive) = keep_alive {
        body["keep_alive"] = keep_alive;
    }
    ask(client, model, &body, patience).await
}

/// Lets a model go as soon as nobody uses it. It need not be loaded.
pub async fn unload(client: &Client, model: &ModelName, patience: Duration) -> Result<(), Error> {
    ask(client, model, &json!({"model": model.as_str(), "stream": false, "keep_alive": 0}), patience).await
}

async fn ask(client: &Client, model: &ModelName, body: &Value, patience: Duration) -> Result<(), Error> {
    let asked = client.json::<IgnoredAny>(Method::POST, "/api/generate", Some(Bytes::from(body.to_string())), patience).await;
    match asked {
        Err(Error::ModelNotFound { .. }) => Err(Error::ModelNotFound { model: model.as_str().to_owned() }),
        other => other.map(drop),
    }
}
