//! `/jobs/schedules`. `POST /jobs` makes them.

use axum::Json;
use axum::extract::State as From;
use http::StatusCode;

use super::scope;
use super::types::{ScheduleList, ScheduleView};
use crate::api::middleware::auth::Who;
use crate::api::path::Path;
use crate::api::problem::Problem;
use crate::api::state::State;

/// Schedules
///
/// Jobs that are made again and again. POST /jobs with `schedule` adds one.
#[utoipa::path(get, path = "/jobs/schedules", tag = "jobs", responses((status = 200, description = "The schedules", body = ScheduleList)))]
pub async fn list(From(state): From<State>, Who(who): Who) -> Result<Json<ScheduleList>, Problem> {
    let schedules = state.jobs.schedules(scope(&who)).await?;
    Ok(Json(ScheduleList { schedules: schedules.into_iter().map(ScheduleView::from).collect() }))
}

/// Remove a schedule
///
/// Jobs that it has made stay.
#[utoipa::path(delete, path = "/jobs/schedules/{id}", tag = "jobs", params(("id" = String, Path, description = "Its id")), responses(
    (status = 204, description = "Done"),
    (status = 404, description = "There is none of this id that may be seen", body = Problem, content_type = "application/problem+json"),
))]
pub async fn remove(From(state): From<State>, Who(who): Who, Path(id): Path<String>) -> Result<StatusCode, Problem> {
    state.jobs.remove_schedule(&id, scope(&who)).await?;
    Ok(StatusCode::NO_CONTENT)
}
