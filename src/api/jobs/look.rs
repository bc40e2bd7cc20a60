//! Looking at jobs and their kinds.

use axum::Json;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State as From};
use serde::Deserialize;
use serde_json::Value;
use utoipa::IntoParams;

use super::scope;
use super::types::{AttemptView, JobList, JobView, KindList, KindView};
use crate::api::middleware::auth::Who;
use crate::api::page;
use crate::api::path::Path;
use crate::api::problem::Problem;
use crate::api::state::State;
use crate::jobs::{Page, State as JobState};

/// Which jobs are wanted.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields, default)]
#[into_params(parameter_in = Query)]
pub struct Which {
    /// `queued`, `leased`, `running`, `succeeded`, `failed` or `cancelled`.
    pub state: Option<String>,
    pub kind: Option<String>,
    /// Only this tenant's; for operators.
    pub tenant: Option<String>,
    /// `next` of the page before.
    pub cursor: Option<String>,
    /// From 1 to 500; without it 50.
    pub limit: Option<u32>,
}

/// Jobs
///
/// The newest first.
#[utoipa::path(get, path = "/jobs", tag = "jobs", params(Which), responses(
    (status = 200, description = "A page of jobs", body = JobList),
    (status = 422, description = "A parameter that is wrong", body = Problem, content_type = "application/problem+json"),
))]
pub async fn list(From(state): From<State>, Who(who): Who, query: Result<Query<Which>, QueryRejection>) -> Result<Json<JobList>, Problem> {
    let Query(which) = query.map_err(|_| wrong("a parameter that there is not, or not a number"))?;
    let scope = scope(&who);
    let page = Page {
        tenant: scope.tenant().map(str::to_owned).or(which.tenant),
        state: which.state.map(|word| job_state(&word)).transpose()?,
        kind: which.kind,
        before: which.cursor,
        most: page::size(which.limit),
    };
    let jobs: Vec<JobView> = state.jobs.list(&page).await?.into_iter().map(JobView::from).collect();
    let is_full = jobs.len() == usize::try_from(page.most).unwrap_or(usize::MAX);
    let next = jobs.last().filter(|_| is_full).map(|job| job.id.clone());
    Ok(Json(JobList { jobs, next }))
}

fn job_state(word: &str) -> Result<JobState, Problem> {
    serde_json::from_value(Value::String(word.to_owned())).map_err(|_| wrong(&format!("state={word}, which is no state of a job")))
}

fn wrong(got: &str) -> Problem {
    Problem::new("invalid_field", format!("the query takes `state`, `kind`, `tenant`, `cursor` and `limit`, not {got}"))
}

/// A job
#[utoipa::path(get, path = "/jobs/{id}", tag = "jobs", params(("id" = String, Path, description = "Its id")), responses(
    (status = 200, description = "The job", body = JobView),
    (status = 404, description = "There is none of this id that may be seen", body = Problem, content_type = "application/problem+json"),
))]
pub async fn show(From(state): From<State>, Who(who): Who, Path(id): Path<String>) -> Result<Json<JobView>, Problem> {
    let job = state.jobs.get(&id, scope(&who)).await?;
    let history = state.jobs.attempts(&id).await?.into_iter().map(AttemptView::from).collect();
    Ok(Json(JobView { history: Some(history), ..job.into() }))
}

/// Kinds of jobs
///
/// What can be done in the background, and what each takes as `input`.
#[utoipa::path(get, path = "/jobs/kinds", tag = "jobs", responses((status = 200, description = "The kinds", body = KindList)))]
pub async fn kinds(From(state): From<State>) -> Json<KindList> {
    Json(KindList { kinds: state.jobs.kinds().iter().map(KindView::from).collect() })
}
