//! `POST /admin/config/reload`: another configuration, without a new start.

use axum::Json;
use axum::extract::State as From;

use crate::api::native::stream::ended;
use crate::api::problem::Problem;
use crate::api::reload::Applied;
use crate::api::state::State;

/// Reload the configuration
///
/// Reads file, variables and flags anew, as SIGHUP does. With anything wrong, nothing changes and every problem is told. Nothing that
/// runs or waits is dropped.
#[utoipa::path(post, path = "/admin/config/reload", tag = "admin", responses(
    (status = 200, description = "What changed", body = Applied),
    (status = 422, description = "What is wrong; the old configuration stays in force", body = Problem, content_type = "application/problem+json"),
))]
pub async fn reload(From(state): From<State>) -> Result<Json<Applied>, Problem> {
    let outcome = state.reloader.reload().await.ok_or_else(ended)?;
    outcome.map(Json).map_err(|refused| {
        let detail = refused.problems.join("; ");
        Problem::new("invalid_configuration", detail).with("problems", refused.problems)
    })
}
