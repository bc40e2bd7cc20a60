//! Vectors for texts, from `/api/embed`.
//!
//! Promises one vector for each text, in their order, all of one length and of finite numbers; anything else the server says is an
//! error. Texts longer than the model reads are cut by the server, as it does by default.

use std::time::Duration;

use bytes::Bytes;
use http::Method;
use serde::{Deserialize, Serialize};

use super::client::Client;
use crate::backends::Error;
use crate::domain::id::ModelName;

#[derive(Serialize)]
struct Asked<'a> {
    model: &'a str,
    input: &'a [String],
}

#[derive(Deserialize)]
struct Answer {
    embeddings: Vec<Vec<f32>>,
}

/// Everything must be there within `patience`; the loading of the model lies in it.
pub async fn embed(client: &Client, model: &ModelName, texts: &[String], patience: Duration) -> Result<Vec<Vec<f32>>, Error> {
    if texts.is_empty() {
        return Ok(Vec::new());
    }
    let asked = Asked { model: model.as_str(), input: texts };
    let body = serde_json::to_vec(&asked).map_err(|error| Error::Unsupported { field: "input", why: error.to_string() })?;
    let answer = client.json::<Answer>(Method::POST, "/api/embed", Some(Bytes::from(body)), patience).await;
    check(answer.map_err(|error| about(model, error))?.embeddings, texts.len())
}

/// The client does not know which model was asked for, nor that 501 is the answer of a model that only generates.
fn about(model: &ModelName, error: Error) -> Error {
    match error {
        Error::ModelNotFound { .. } => Error::ModelNotFound { model: model.as_str().to_owned() },
        Error::Failed { status: Some(501), .. } => {
            Error::Unsupported { field: "model", why: format!("`{model}` gives no embeddings: it is a model that generates") }
        }
        other => other,
    }
}

fn check(vectors: Vec<Vec<f32>>, texts: usize) -> Result<Vec<Vec<f32>>, Error> {
    let length = vectors.first().map_or(0, Vec::len);
    let message = if vectors.len() != texts {
        format!("{} vectors for {texts} texts", vectors.len())
    } else if length == 0 || vectors.iter().any(|vector| vector.len() != length) {
        "its vectors are empty or differ in length".to_owned()
    } else if vectors.iter().flatten().any(|number| !number.is_finite()) {
        "a vector holds what is no number".to_owned()
    } else {
        return Ok(vectors);
    };
    Err(Error::Protocol { message })
}
