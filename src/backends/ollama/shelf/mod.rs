//! The models a server keeps: putting files and models there, looking at them, copying and removing them.
//!
//! [`Shelf`] speaks the routes of Ollama that change its library. Promises: a file of any size goes out in pieces and is never held
//! in memory; a server that stops taking bytes, or falls silent while it builds, is given up after a bounded time; an error that comes
//! inside a stream of status 200 is an error here, and so is a stream that ends without saying that it succeeded. Dropping a
//! future stops what it was doing: the server throws an unfinished file away.
//! Does not decide what is published under which name, nor clean up after a failure: that is `jobs/publish`'s.

mod create;
mod listing;
mod patience;
mod shown;
mod upload;

use std::path::PathBuf;

use bytes::Bytes;
use http::{Method, StatusCode};
use serde::Serialize;
use serde_json::json;

use super::client::{self, Asked, Client};
use crate::backends::Error as Failure;
use crate::domain::digest::Digest;
use crate::domain::id::ModelName;

pub use create::{Created, Creation, Message, Role};
pub use listing::Listed;
pub use patience::Patience;
pub use shown::Shown;
pub use upload::{Sent, Upload};

/// Names of models that are only there while something is being published. They are not offered to clients.
pub const UNFINISHED: &str = "arriero-unfinished/";

/// What kept the shelf from being changed or looked at.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Server(#[from] Failure),
    #[error("{} cannot be read: {source}", path.display())]
    File { path: PathBuf, source: std::io::Error },
    /// The server hashed what it received.
    #[error("{} does not have the digest {digest} (the server says: {message})", path.display())]
    Digest { path: PathBuf, digest: Digest, message: String },
}

/// The models of one server. Cheap to clone.
#[derive(Clone)]
pub struct Shelf {
    client: Client,
    max_line_bytes: usize,
    patience: Patience,
}

impl Shelf {
    pub(super) fn new(client: Client, max_line_bytes: usize, patience: Patience) -> Self {
        Self { client, max_line_bytes, patience }
    }

    /// Whether the server has a file of this digest.
    pub async fn has(&self, digest: &Digest) -> Result<bool, Error> {
        let path = format!("/api/blobs/{digest}");
        let asked = Asked { method: Method::HEAD, path: &path, body: None };
        let response = self.client.head_of(asked, "saying whether it has a file", self.patience.answer).await?;
        match response.status() {
            StatusCode::OK => Ok(true),
            StatusCode::NOT_FOUND => Ok(false),
            _ => Err(client::refused(response, "").await.into()),
        }
    }

    /// Makes a copy of a model under another name, which it takes from whatever had it.
    pub async fn copy(&self, source: &ModelName, destination: &ModelName) -> Result<(), Error> {
        let body = json!({"source": source.as_str(), "destination": destination.as_str()});
        self.done(Method::POST, "/api/copy", &body, source).await
    }

    /// Removes a model, and its files where no other one uses them. Whether it was there.
    pub async fn delete(&self, model: &ModelName) -> Result<bool, Error> {
        match self.done(Method::DELETE, "/api/delete", &json!({"model": model.as_str()}), model).await {
            Ok(()) => Ok(true),
            Err(Error::Server(Failure::ModelNotFound { .. })) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// What the server says about a model; `None` when it does not have it.
    pub async fn show(&self, model: &ModelName) -> Result<Option<Shown>, Error> {
        let body = bytes(&json!({"model": model.as_str()}));
        match self.client.json(Method::POST, "/api/show", Some(body), self.patience.answer).await {
            Ok(shown) => Ok(Some(shown)),
            Err(Failure::ModelNotFound { .. }) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// A request that is answered with nothing but a status.
    async fn done(&self, method: Method, path: &str, body: &impl Serialize, model: &ModelName) -> Result<(), Error> {
        let asked = Asked { method, path, body: Some(bytes(body)) };
        let response = self.client.head_of(asked, "changing its library", self.patience.answer).await?;
        match response.status() {
            StatusCode::OK => Ok(()),
            _ => Err(client::refused(response, model.as_str()).await.into()),
        }
    }
}

/// Plain maps, lists and strings always have a form in JSON.
fn bytes(body: &impl Serialize) -> Bytes {
    serde_json::to_vec(body).unwrap_or_default().into()
}
