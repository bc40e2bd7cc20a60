//! What jobs made.

use async_stream::try_stream;
use axum::Json;
use axum::body::Body;
use axum::extract::State as From;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures_util::Stream;
use http::{HeaderValue, header};
use tokio::fs::File;
use tokio::io::AsyncReadExt;

use super::scope;
use super::types::{ArtifactList, ArtifactView};
use crate::api::middleware::auth::Who;
use crate::api::path::Path;
use crate::api::problem::Problem;
use crate::api::state::State;

const CHUNK_BYTES: usize = 256 << 10;

/// Artifacts of a job
#[utoipa::path(get, path = "/jobs/{id}/artifacts", tag = "jobs", params(("id" = String, Path, description = "The job's id")), responses(
    (status = 200, description = "What it has made", body = ArtifactList),
    (status = 404, description = "There is no job of this id that may be seen", body = Problem, content_type = "application/problem+json"),
))]
pub async fn list(From(state): From<State>, Who(who): Who, Path(id): Path<String>) -> Result<Json<ArtifactList>, Problem> {
    state.jobs.get(&id, scope(&who)).await?;
    let artifacts = state.jobs.artifacts(&id).await?;
    Ok(Json(ArtifactList { artifacts: artifacts.into_iter().map(|artifact| ArtifactView::new(&id, artifact)).collect() }))
}

/// Download an artifact
///
/// Its `ETag` is its SHA-256.
#[utoipa::path(get, path = "/jobs/{id}/artifacts/{name}", tag = "jobs",
    params(("id" = String, Path, description = "The job's id"), ("name" = String, Path, description = "The artifact's name")),
    responses(
    (status = 200, description = "The file", content_type = "application/octet-stream"),
    (status = 404, description = "There is none that may be seen", body = Problem, content_type = "application/problem+json"),
))]
pub async fn download(From(state): From<State>, Who(who): Who, Path((id, name)): Path<(String, String)>) -> Result<Response, Problem> {
    state.jobs.get(&id, scope(&who)).await?;
    let (artifact, path) = state.jobs.artifact(&id, &name).await?;
    let file = File::open(&path).await.map_err(|error| {
        tracing::error!(path = %path.display(), %error, "an artifact cannot be read");
        Problem::new("internal", format!("the file of `{name}` cannot be read"))
    })?;
    let mut response = Body::from_stream(pieces(file)).into_response();
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
    headers.insert(header::CONTENT_LENGTH, HeaderValue::from(artifact.size_bytes));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    // Names of artifacts and hashes are made of harmless characters.
    for (name, value) in [
        (header::ETAG, format!("\"{}\"", artifact.sha256)),
        (header::CONTENT_DISPOSITION, format!("attachment; filename=\"{}\"", artifact.name)),
    ] {
        if let Ok(value) = HeaderValue::from_str(&value) {
            headers.insert(name, value);
        }
    }
    Ok(response)
}

fn pieces(mut file: File) -> impl Stream<Item = std::io::Result<Bytes>> {
    try_stream! {
        let mut chunk = vec![0; CHUNK_BYTES];
        loop {
            let count = file.read(&mut chunk).await?;
            if count == 0 {
                return;
            }
            yield Bytes::copy_from_slice(&chunk[..count]);
        }
    }
}
