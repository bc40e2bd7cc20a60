//! Cancelling and retrying jobs, and telling the workers what is wanted of them.

use axum::Json;
use axum::body::Body;
use axum::extract::State as From;

use super::scope;
use super::types::{JobNeeds, JobView, PoolView, PoolWish};
use crate::api::body;
use crate::api::fields::{Fields, object};
use crate::api::middleware::auth::Who;
use crate::api::path::Path;
use crate::api::problem::Problem;
use crate::api::state::State;
use crate::jobs::PoolOrder;

/// Cancel a job
///
/// A job that waits ends at once. One that runs is asked to stop at its next good place, and is killed when it does not.
#[utoipa::path(delete, path = "/jobs/{id}", tag = "jobs", params(("id" = String, Path, description = "Its id")), responses(
    (status = 200, description = "The job: `cancelled`, or with `cancel_requested`", body = JobView),
    (status = 404, description = "There is none of this id that may be seen", body = Problem, content_type = "application/problem+json"),
    (status = 409, description = "It has ended", body = Problem, content_type = "application/problem+json"),
))]
pub async fn cancel(From(state): From<State>, Who(who): Who, Path(id): Path<String>) -> Result<Json<JobView>, Problem> {
    Ok(Json(state.jobs.cancel(&id, scope(&who)).await?.into()))
}

/// Retry a job
///
/// One that failed or was cancelled, with as many attempts as at first. Steps that have ended are not done again.
#[utoipa::path(post, path = "/jobs/{id}/retry", tag = "jobs", params(("id" = String, Path, description = "Its id")), responses(
    (status = 200, description = "The job, which waits again", body = JobView),
    (status = 404, description = "There is none of this id that may be seen", body = Problem, content_type = "application/problem+json"),
    (status = 409, description = "It has neither failed nor been cancelled", body = Problem, content_type = "application/problem+json"),
))]
pub async fn retry(From(state): From<State>, Who(who): Who, Path(id): Path<String>) -> Result<Json<JobView>, Problem> {
    Ok(Json(state.jobs.retry(&id, scope(&who)).await?.into()))
}

/// Workers
///
/// What is wanted of all workers on the database, how many jobs stand how, and what jobs may take.
#[utoipa::path(get, path = "/jobs/pool", tag = "jobs", responses((status = 200, description = "The workers", body = PoolView)))]
pub async fn pool(From(state): From<State>) -> Result<Json<PoolView>, Problem> {
    let (pool, capacity) = (state.jobs.pool().await?, state.jobs.capacity());
    let capacity = JobNeeds {
        cpu_threads: capacity.cpu_threads,
        gpus: capacity.gpus,
        memory_bytes: capacity.memory_bytes,
        disk_bytes: capacity.disk_bytes,
    };
    Ok(Json(PoolView { order: pool.order.as_str(), jobs: pool.jobs.into_iter().collect(), capacity }))
}

/// Pause, drain or resume the workers
///
/// Holds for all workers on the database, across restarts, until it is changed.
#[utoipa::path(post, path = "/jobs/pool", tag = "jobs", request_body = PoolWish, responses(
    (status = 200, description = "The workers", body = PoolView),
    (status = 422, description = "`order` is none", body = Problem, content_type = "application/problem+json"),
))]
pub async fn order_pool(From(state): From<State>, body: Body) -> Result<Json<PoolView>, Problem> {
    let body = body::read(body, &state.config.body).await?;
    let mut fields = Fields::new(object(&body)?);
    let order: Option<PoolOrder> = fields.typed("order", "`run`, `pause` or `drain`");
    if order.is_none() && !fields.has_problem_with("order") {
        fields.problem("order", "`run`, `pause` or `drain`", "nothing");
    }
    fields.done().map_err(Problem::fields)?;
    state.jobs.order_pool(order.unwrap_or_default()).await?;
    pool(From(state)).await
}
