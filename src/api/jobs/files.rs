//! `/files`: what clients send for their jobs to read.

use axum::Json;
use axum::body::Body;
use axum::extract::State as From;
use axum::response::{IntoResponse, Response};
use http::{StatusCode, header};
use serde::Serialize;
use utoipa::ToSchema;

use super::scope;
use crate::api::body::{self, Pieces};
use crate::api::middleware::auth::Who;
use crate::api::path::Path;
use crate::api::problem::Problem;
use crate::api::state::State;
use crate::jobs::upload::Upload;
use crate::jobs::{Artifact, REFERENCE};

/// A file that was uploaded.
#[derive(Debug, Serialize, ToSchema)]
pub struct FileView {
    /// By which it is deleted, and what a job that reads it names in `after`.
    pub id: String,
    pub name: String,
    /// How the input of such a job names it: `artifact:ID/NAME`.
    pub path: String,
    pub size_bytes: u64,
    pub sha256: String,
    /// Milliseconds since 1970.
    pub created_at_ms: i64,
}

/// Upload a file
///
/// The body is the file, of any kind. It belongs to the key's tenant; a job reads it by the `path` of the answer, with the `id` in its
/// `after`. It is kept as what jobs make is (`jobs.retention`), as the artifact of a job of the kind `upload`, with which it is listed and
/// downloaded.
#[utoipa::path(put, path = "/files/{file}", tag = "jobs",
    params(("file" = String, Path, description = "What it is to be called: letters, digits, `-`, `_` and `.`; the ending tells what is in it")),
    request_body(content = Vec<u8>, content_type = "application/octet-stream"),
    responses(
    (status = 201, description = "It is kept", body = FileView),
    (status = 408, description = "It came too slowly", body = Problem, content_type = "application/problem+json"),
    (status = 413, description = "It is larger than `jobs.max_upload_bytes`", body = Problem, content_type = "application/problem+json"),
    (status = 422, description = "A name that it cannot have", body = Problem, content_type = "application/problem+json"),
    (status = 507, description = "There is no room for it", body = Problem, content_type = "application/problem+json"),
))]
pub async fn upload(From(state): From<State>, Who(who): Who, Path(name): Path<String>, body: Body) -> Result<Response, Problem> {
    let max_bytes = usize::try_from(state.jobs.config().max_upload_bytes).unwrap_or(usize::MAX);
    let pieces = Pieces::new(body, body::Config { max_bytes, ..state.config.body.clone() })?;
    let upload = state.jobs.upload(&who.tenant, &name, pieces.announced_bytes()).await?;
    // A client that goes away ends the request, but what has come of the file is still to be cleared away.
    let received = state.tasks.spawn(receive(pieces, upload)).await;
    let (id, artifact) = received.unwrap_or_else(|panic| std::panic::resume_unwind(panic.into_panic()))?;
    let location = [(header::LOCATION, format!("/jobs/{id}"))];
    Ok((StatusCode::CREATED, location, Json(view(id, artifact))).into_response())
}

async fn receive(mut pieces: Pieces, mut upload: Upload) -> Result<(String, Artifact), Problem> {
    let received = async {
        loop {
            match tokio::time::timeout(upload.longest_silence(), pieces.next()).await {
                Ok(Ok(Some(piece))) => upload.write(&piece).await?,
                Ok(Ok(None)) => return Ok::<_, Problem>(upload.finish().await?),
                Ok(Err(error)) => return Err(error.into()),
                Err(_) => upload.renew().await?,
            }
        }
    };
    let received = received.await;
    if let Err(problem) = &received {
        upload.give_up(&problem.detail).await;
    }
    received
}

fn view(id: String, artifact: Artifact) -> FileView {
    let Artifact { name, size_bytes, sha256, created_at_ms, .. } = artifact;
    FileView { path: format!("{REFERENCE}{id}/{name}"), id, name, size_bytes, sha256, created_at_ms }
}

/// Delete an uploaded file
///
/// At once and for good. What jobs made of it stays.
#[utoipa::path(delete, path = "/files/{file}", tag = "jobs", params(("file" = String, Path, description = "Its id")), responses(
    (status = 204, description = "It is gone"),
    (status = 404, description = "There is no file of this id that may be seen", body = Problem, content_type = "application/problem+json"),
    (status = 409, description = "It is still coming, or a job that has not ended is going to read it", body = Problem, content_type = "application/problem+json"),
))]
pub async fn delete(From(state): From<State>, Who(who): Who, Path(id): Path<String>) -> Result<StatusCode, Problem> {
    state.jobs.delete_upload(&id, scope(&who)).await?;
    Ok(StatusCode::NO_CONTENT)
}
