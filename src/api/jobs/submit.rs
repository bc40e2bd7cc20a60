//! `POST /jobs`.

use std::collections::BTreeMap;

use axum::Json;
use axum::body::Body;
use axum::extract::State as From;
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use serde_json::Value;

use super::types::{JobView, NewJob, ScheduleView};
use crate::api::body;
use crate::api::fields::{Fields, object};
use crate::api::middleware::auth::Who;
use crate::api::problem::Problem;
use crate::api::state::State;
use crate::domain::generation::Priority;
use crate::domain::principal::Principal;
use crate::jobs::{Calendar, Made, Submission};

const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");
/// Says that a submission was made before.
const REPLAYED: HeaderName = HeaderName::from_static("idempotency-replayed");

const MAX_KEY_BYTES: usize = 255;
const MAX_NAME_BYTES: usize = 200;
const MAX_LABELS: usize = 32;
const MAX_INPUT_BYTES: usize = 256 << 10;

/// Submit a job
///
/// It is not lost once this is answered. With the header `Idempotency-Key`, the same submission sent again gives the same job. With a
/// `schedule`, a job is made at each of its times instead, and the answer is the schedule.
#[utoipa::path(post, path = "/jobs", tag = "jobs", request_body = NewJob,
    params(("idempotency-key" = Option<String>, Header, description = "Up to 255 characters, the same for each time the same submission is sent")),
    responses(
    (status = 201, description = "The job, or with `schedule` the schedule", body = JobView),
    (status = 200, description = "It was submitted before with this `Idempotency-Key`", body = JobView),
    (status = 403, description = "A path that jobs may not read", body = Problem, content_type = "application/problem+json"),
    (status = 422, description = "What is wrong with it", body = Problem, content_type = "application/problem+json"),
    (status = 503, description = "Too many jobs wait", body = Problem, content_type = "application/problem+json"),
    (status = 507, description = "It does not fit: `resource`, `needed`, `available`", body = Problem, content_type = "application/problem+json"),
))]
pub async fn submit(From(state): From<State>, Who(who): Who, headers: HeaderMap, body: Body) -> Result<Response, Problem> {
    let body = body::read(body, &state.config.body).await?;
    let submission = read(&body, &who)?;
    may_ask(&state, &submission, &who)?;
    let key = key(&headers)?;
    let made = state.jobs.submit(&who.tenant, submission, key).await?;
    Ok(answer(made))
}

/// What a job would do decides who may ask for it. An unknown kind is refused with those there are.
fn may_ask(state: &State, submission: &Submission, who: &Principal) -> Result<(), Problem> {
    let needed = state.jobs.kinds().get(&submission.kind).map(|kind| kind.role(&submission.input)).unwrap_or_default();
    if who.role >= needed {
        return Ok(());
    }
    let (needed, role) = (needed.as_str(), who.role.as_str());
    Err(Problem::new(
        "forbidden",
        format!("a job of the kind `{}` with this input needs the role {needed}, and yours is {role}", submission.kind),
    ))
}

fn answer(made: Made) -> Response {
    let (path, view, before) = match made {
        Made::Job { job, before } => (format!("/jobs/{}", job.order.id), Json(JobView::from(*job)).into_response(), before),
        Made::Schedule { schedule, before } => {
            (format!("/jobs/schedules/{}", schedule.id), Json(ScheduleView::from(*schedule)).into_response(), before)
        }
    };
    let mut response = view;
    *response.status_mut() = if before { StatusCode::OK } else { StatusCode::CREATED };
    if let Ok(path) = HeaderValue::from_str(&path) {
        response.headers_mut().insert(header::LOCATION, path);
    }
    if before {
        response.headers_mut().insert(REPLAYED, HeaderValue::from_static("true"));
    }
    response
}

fn key(headers: &HeaderMap) -> Result<Option<&str>, Problem> {
    let Some(value) = headers.get(IDEMPOTENCY_KEY) else { return Ok(None) };
    match value.to_str() {
        Ok(key) if !key.is_empty() && key.len() <= MAX_KEY_BYTES => Ok(Some(key)),
        _ => Err(Problem::new("malformed_request", format!("`Idempotency-Key` takes 1 to {MAX_KEY_BYTES} visible characters"))),
    }
}

fn read(body: &[u8], who: &Principal) -> Result<Submission, Problem> {
    let mut fields = Fields::new(object(body)?);
    let kind = fields.text("kind");
    if kind.is_none() && !fields.has_problem_with("kind") {
        fields.problem("kind", "a string", "nothing");
    }
    let fits = |input: &Value| (input.is_object() && input.to_string().len() <= MAX_INPUT_BYTES).then(|| input.clone());
    let input = fields.read("input", &format!("an object of up to {MAX_INPUT_BYTES} bytes"), fits);
    let short = |name: &Value| name.as_str().filter(|name| name.len() <= MAX_NAME_BYTES).map(str::to_owned);
    let name = fields.read("name", &format!("a string of up to {MAX_NAME_BYTES} bytes"), short);
    let priority: Option<Priority> = fields.typed("priority", "`batch`, `low`, `normal`, `high` or `urgent`");
    let after: Option<Vec<String>> = fields.typed("after", "a list of ids of jobs");
    let labels = fields.read("labels", &format!("an object of up to {MAX_LABELS} short strings"), labels);
    let attempts = |number: &Value| number.as_u64().filter(|n| (1..=100).contains(n)).and_then(|n| u32::try_from(n).ok());
    let max_attempts = fields.read("max_attempts", "a number from 1 to 100", attempts);
    let schedule: Option<Calendar> = fields.typed("schedule", "an object with `cron` (a string) and `missed` (`skip`, `once` or `all`)");
    fields.done().map_err(Problem::fields)?;
    Ok(Submission {
        kind: kind.unwrap_or_default(),
        input: input.unwrap_or_else(|| Value::Object(serde_json::Map::new())),
        name: name.unwrap_or_default(),
        priority: who.priority(priority),
        labels: labels.unwrap_or_default(),
        after: after.unwrap_or_default(),
        max_attempts,
        schedule,
    })
}

fn labels(given: &Value) -> Option<BTreeMap<String, String>> {
    let labels: BTreeMap<String, String> = serde_json::from_value(given.clone()).ok()?;
    let short = |(name, text): (&String, &String)| name.len() <= MAX_NAME_BYTES && text.len() <= MAX_NAME_BYTES;
    (labels.len() <= MAX_LABELS && labels.iter().all(short)).then_some(labels)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::domain::principal::Role;

    fn read(body: &Value, who: &Principal) -> Result<Submission, Vec<String>> {
        super::read(body.to_string().as_bytes(), who).map_err(|problem| problem.errors.into_iter().map(|error| error.field).collect())
    }

    #[test]
    fn every_field_is_read_and_a_priority_is_held_to_the_keys() {
        let who = Principal { priority_ceiling: Priority::Normal, ..Principal::anonymous(Role::User) };
        let body = json!({"kind": "checksum", "input": {"path": "files/x"}, "name": "n", "priority": "urgent", "after": ["j"],
            "labels": {"a": "b"}, "max_attempts": 2, "schedule": {"cron": "* * * * *"}});
        let submission = read(&body, &who).expect("taken");
        assert_eq!((submission.priority, submission.max_attempts), (Priority::Normal, Some(2)));
        assert_eq!(submission.schedule.expect("there").missed.as_str(), "once");
    }

    #[test]
    fn everything_wrong_is_told_at_once() {
        let body = json!({"input": 1, "name": "x".repeat(201), "priority": "p", "after": "j", "labels": {"a": 1}, "max_attempts": 0,
            "schedule": {"cron": 1}});
        let mut fields = read(&body, &Principal::anonymous(Role::User)).expect_err("wrong");
        fields.sort();
        assert_eq!(fields, ["after", "input", "kind", "labels", "max_attempts", "name", "priority", "schedule"]);
        assert_eq!(read(&json!({"kind": "x", "unknown": 1}), &Principal::anonymous(Role::User)).expect_err("wrong"), ["unknown"]);
    }
}
