//! How the process is doing, for whoever runs it.

use axum::Json;
use axum::extract::State as From;
use axum::response::{IntoResponse, Response};
use http::{StatusCode, header};
use serde::Serialize;
use utoipa::ToSchema;

use super::state::State;

/// A state in one word.
#[derive(Serialize, ToSchema)]
pub struct Status {
    pub status: &'static str,
}

/// Which build runs.
#[derive(Serialize, ToSchema)]
pub struct Version {
    pub version: &'static str,
    /// Parts that are compiled in.
    pub features: Vec<&'static str>,
}

/// Alive
///
/// 200 as long as the process can answer at all.
#[utoipa::path(get, path = "/livez", tag = "operations", responses((status = 200, description = "Alive", body = Status)))]
pub async fn live() -> Json<Status> {
    Json(Status { status: "alive" })
}

/// Ready
///
/// Whether this process wants to be given requests. Its own state only: a backend that is down does not make it unready.
#[utoipa::path(get, path = "/readyz", tag = "operations", responses(
    (status = 200, description = "Ready", body = Status),
    (status = 503, description = "Starting or shutting down", body = Status),
))]
pub async fn ready(From(state): From<State>) -> (StatusCode, Json<Status>) {
    match state.readiness.check() {
        Ok(()) => (StatusCode::OK, Json(Status { status: "ready" })),
        Err(status) => (StatusCode::SERVICE_UNAVAILABLE, Json(Status { status })),
    }
}

/// Version
#[utoipa::path(get, path = "/version", tag = "operations", responses((status = 200, description = "The build", body = Version)))]
pub async fn version() -> Json<Version> {
    let features = [
        ("embedded", cfg!(feature = "embedded")),
        ("cuda", cfg!(feature = "cuda")),
        ("metal", cfg!(feature = "metal")),
        ("accelerate", cfg!(feature = "accelerate")),
    ];
    Json(Version {
        version: env!("CARGO_PKG_VERSION"),
        features: features.into_iter().filter(|(_, on)| *on).map(|(name, _)| name).collect(),
    })
}

/// Metrics
///
/// In Prometheus' text format.
#[utoipa::path(get, path = "/metrics", tag = "operations", responses((status = 200, description = "The metrics", body = String, content_type = "text/plain")))]
pub async fn metrics(From(state): From<State>) -> Response {
    if let Some(process) = state.sensors.process() {
        state.metrics.process(&process);
    }
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], state.metrics.render()).into_response()
}
