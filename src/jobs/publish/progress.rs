//! What is heard while a publication goes on, and what it came to.

use std::time::Duration;

use serde::Serialize;

use crate::domain::digest::Digest;

/// Where a publication stands on one server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Step {
    Looking,
    Uploading,
    Building,
    Trying,
    Naming,
    Tidying,
}

impl Step {
    /// For people, as in `while building the model`.
    #[must_use]
    pub fn in_words(self) -> &'static str {
        match self {
            Self::Looking => "looking at what is there",
            Self::Uploading => "sending the file",
            Self::Building => "building the model",
            Self::Trying => "trying the model",
            Self::Naming => "giving the model its name",
            Self::Tidying => "tidying up",
        }
    }
}

/// One piece of news.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Progress<'a> {
    pub backend: &'a str,
    pub step: Step,
    /// Bytes of the file that went out, and how many it has.
    pub bytes: Option<(u64, u64)>,
    /// The server's own words.
    pub words: Option<&'a str>,
}

/// Who hears the news. Must return at once.
pub type Told<'a> = &'a (dyn Fn(Progress<'_>) + Sync);

/// What was done to the name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    /// There was no model of that name.
    Created,
    /// There was another one.
    Replaced,
    /// This very model was there.
    Unchanged,
}

/// Whether the server keeps the file as it was sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Kept {
    AsSent,
    /// Written anew under this digest: the file was not laid out as the server wants it.
    Rewritten(Digest),
    /// The server does not say.
    Unknown,
}

/// A publication that succeeded.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Outcome {
    pub action: Action,
    /// The server's version.
    pub version: String,
    /// Bytes that were sent; 0 when the server had the files.
    pub uploaded_bytes: u64,
    pub kept: Kept,
    /// The first words of the model. `None`: it was not tried, because it was there already.
    pub says: Option<String>,
    /// What is worth knowing though nothing failed.
    pub remarks: Vec<String>,
    #[serde(with = "crate::domain::span")]
    pub took: Duration,
}
