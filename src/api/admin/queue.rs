//! `/admin/queue` and `/admin/backends`: who waits, and for what.

use axum::Json;
use axum::extract::State as From;
use serde_json::{Value, json};

use crate::api::state::State;

/// Queue
///
/// By class and tenant how many wait, by backend and model the slots and what is loaded, and every request that waits, in the order in
/// which they are expected to go: `ahead`, `reason`, `waited_ms`, `eta_ms`.
#[utoipa::path(get, path = "/admin/queue", tag = "admin", responses((status = 200, description = "The queue", body = Object)))]
pub async fn queue(From(state): From<State>) -> Json<Value> {
    Json(json!(state.gateway.queue()))
}

/// Backends
///
/// Of each backend: health, what is in its memory, what is stuck there and what is done about it (`troubles`), and what routing thinks of
/// it (`routing`: ejected or not, circuit breakers, times to the first token).
#[utoipa::path(get, path = "/admin/backends", tag = "admin", responses((status = 200, description = "The backends", body = Object)))]
pub async fn backends(From(state): From<State>) -> Json<Value> {
    Json(json!({ "backends": state.gateway.backends() }))
}
