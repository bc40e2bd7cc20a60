//! What was published under each name.

use axum::Json;
use axum::extract::State as From;
use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;

use crate::api::problem::Problem;
use crate::api::state::State;
use crate::jobs::publish::versions::{History, Version};

/// Names with their versions.
#[derive(Debug, Serialize, ToSchema)]
pub struct VersionList {
    pub names: Vec<HistoryView>,
}

/// A name that models were published under.
#[derive(Debug, Serialize, ToSchema)]
pub struct HistoryView {
    #[schema(example = "me/support")]
    pub name: String,
    /// Number of the version that has the name; null: it is not kept.
    pub current: Option<u32>,
    /// The one that had it before, to which a job of the kind `promote` goes back.
    pub previous: Option<u32>,
    /// The oldest first.
    pub versions: Vec<VersionView>,
}

/// What a name stands for, or stood for.
#[derive(Debug, Serialize, ToSchema)]
pub struct VersionView {
    /// From 1.
    pub number: u32,
    /// Milliseconds since 1970.
    pub made_at_unix_ms: i64,
    /// Of the file, in hexadecimal.
    pub sha256: String,
    pub size_bytes: u64,
    /// Names of the servers it was published to.
    pub to: Vec<String>,
    /// Whether it was put into the embedded engine's library.
    pub library: bool,
    /// What it was made from and how, and what it is worth, in the words of what made it.
    #[schema(value_type = Object)]
    pub lineage: Value,
}

/// Versions of published models
///
/// What was published under each name from here and is still kept, with where it came from. A job of the kind `promote` gives the name to another one.
#[utoipa::path(get, path = "/versions", tag = "jobs", responses((status = 200, description = "The names", body = VersionList)))]
pub async fn list(From(state): From<State>) -> Result<Json<VersionList>, Problem> {
    Ok(Json(VersionList { names: state.jobs.versions().await?.into_iter().map(HistoryView::from).collect() }))
}

impl std::convert::From<History> for HistoryView {
    fn from(history: History) -> Self {
        let History { name, current, previous, versions } = history;
        Self { name: name.to_string(), current, previous, versions: versions.into_iter().map(VersionView::from).collect() }
    }
}

impl std::convert::From<Version> for VersionView {
    fn from(version: Version) -> Self {
        let Version { number, made_at_unix_ms, sha256, size_bytes, to, library, lineage, .. } = version;
        Self { number, made_at_unix_ms, sha256, size_bytes, to, library, lineage }
    }
}
