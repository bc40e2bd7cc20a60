//! `GET /jobs/{id}/events`: what happens to a job, as server-sent events, from any point on to its end.
//!
//! The events are read from the database, whoever works on the job: a client that comes back with `Last-Event-ID`, after a restart of the
//! gateway too, misses none that is still kept.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use async_stream::stream;
use axum::body::Body;
use axum::extract::State as From;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures_util::Stream;
use http::{HeaderMap, HeaderValue, header};
use serde_json::Value;
use tokio::time::Instant;

use super::scope;
use crate::api::middleware::auth::Who;
use crate::api::path::Path;
use crate::api::problem::Problem;
use crate::api::sse::{Encoder, HEARTBEAT, resume_point};
use crate::api::state::State;
use crate::domain::principal::Principal;
use crate::jobs::{Event, Scope};

/// Events that are read at once.
const AT_ONCE: i64 = 200;

/// Follow a job
///
/// Server-sent events `state`, `step`, `progress` (with `eta_ms`), `log`, `metric` and `artifact`, from the first that is kept, or after the
/// one that `Last-Event-ID` names; each with an `id` and `at_ms`. The stream ends after the `state` that ends the job.
#[utoipa::path(get, path = "/jobs/{id}/events", tag = "jobs",
    params(("id" = String, Path, description = "Its id"), ("last-event-id" = Option<String>, Header, description = "The `id` of the last event that came")),
    responses(
    (status = 200, description = "The events", content_type = "text/event-stream"),
    (status = 400, description = "`Last-Event-ID` is none of this job", body = Problem, content_type = "application/problem+json"),
    (status = 404, description = "There is none of this id that may be seen", body = Problem, content_type = "application/problem+json"),
))]
pub async fn follow(From(state): From<State>, Who(who): Who, Path(id): Path<String>, headers: HeaderMap) -> Result<Response, Problem> {
    state.jobs.get(&id, scope(&who)).await?;
    let next = first(&id, &headers)?;
    let mut response = Body::from_stream(events(state, who, id, next)).into_response();
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream; charset=utf-8"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    // Tells nginx not to collect what must be seen at once.
    headers.insert("x-accel-buffering", HeaderValue::from_static("no"));
    Ok(response)
}

/// The number of the first event that is wanted.
fn first(id: &str, headers: &HeaderMap) -> Result<i64, Problem> {
    let Some(last) = headers.get("last-event-id") else { return Ok(0) };
    let point = last.to_str().ok().and_then(resume_point).filter(|(job, _)| *job == id);
    let number = point.and_then(|(_, number)| i64::try_from(number).ok());
    number.ok_or_else(|| Problem::new("event_id_invalid", "`Last-Event-ID` is not the id of an event of this job"))
}

fn events(state: State, who: Arc<Principal>, id: String, first: i64) -> impl Stream<Item = Result<Bytes, Infallible>> {
    let heartbeat = state.config.heartbeat;
    stream! {
        let (mut next, mut silent_since) = (first, Instant::now());
        loop {
            match news(&state, &id, next).await {
                Ok(News::Events(events)) => {
                    for event in events {
                        next = event.number.saturating_add(1);
                        yield Ok(encoded(&id, event));
                    }
                    silent_since = Instant::now();
                    continue;
                }
                Ok(News::Over) => return,
                Ok(News::None) => {}
                Err(problem) => { yield Ok(Encoder::news("error", &problem)); return; }
            }
            tokio::select! {
                () = state.jobs.told() => {}
                () = state.ending.cancelled() => {
                    yield Ok(Encoder::news("error", &Problem::new("closed", "Arriero ends; the job goes on when it is there again")));
                    return;
                }
                () = who.ended.cancelled() => {
                    yield Ok(Encoder::news("error", &Problem::new("key_ended", "the key was revoked or has expired")));
                    return;
                }
            }
            if due(silent_since, heartbeat) {
                silent_since = Instant::now();
                yield Ok(HEARTBEAT);
            }
        }
    }
}

fn due(since: Instant, heartbeat: Duration) -> bool {
    since.elapsed() >= heartbeat
}

enum News {
    Events(Vec<Event>),
    None,
    /// The job has ended, and all was told.
    Over,
}

async fn news(state: &State, id: &str, next: i64) -> Result<News, Problem> {
    // Looked at before the events: what is written between the two is then told the next time.
    let job = state.jobs.get(id, Scope::All).await?;
    let events = state.jobs.events(id, next, AT_ONCE).await?;
    if !events.is_empty() {
        return Ok(News::Events(events));
    }
    Ok(if job.standing.state.is_end() && next >= job.events { News::Over } else { News::None })
}

fn encoded(id: &str, event: Event) -> Bytes {
    let mut data = event.data;
    if let Value::Object(fields) = &mut data {
        fields.insert("at_ms".to_owned(), Value::from(event.at_ms));
    }
    Encoder::from(id, u64::try_from(event.number).unwrap_or_default()).event(&event.kind, &data)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_stream_goes_on_after_the_event_that_came_last() {
        let after = |last: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert("last-event-id", HeaderValue::from_static(last));
            first("j", &headers).map_err(|problem| problem.code)
        };
        assert_eq!(after("j/7"), Ok(8));
        assert_eq!(after("other/7"), Err("event_id_invalid"));
        assert_eq!(after("j/18446744073709551614"), Err("event_id_invalid"));
        assert_eq!(first("j", &HeaderMap::new()).map_err(|problem| problem.code), Ok(0));
    }

    #[test]
    fn an_event_has_its_number_and_its_time() {
        let event = Event { number: 3, at_ms: 5, kind: "log".into(), data: json!({"line": "x"}) };
        assert_eq!(encoded("j", event), "id: j/3\nevent: log\ndata: {\"line\":\"x\",\"at_ms\":5}\n\n");
    }
}
