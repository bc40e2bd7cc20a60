//! `POST /generate` and `GET /models`.

use axum::Json;
use axum::extract::State as From;
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, HeaderValue, StatusCode, header};

use super::types::{Alias, Detached, GenerateRequest, GenerateResponse, Model, ModelList, Unavailable};
use super::{convert, envelope, stream};
use crate::api::body;
use crate::api::middleware::auth::Who;
use crate::api::middleware::request_id::Id;
use crate::api::path::Path;
use crate::api::problem::Problem;
use crate::api::sse;
use crate::api::state::State;
use crate::domain::generation::Draft;
use crate::domain::id::RequestId;
use crate::domain::principal::Principal;
use crate::domain::waiting::Progress;
use crate::gateway;
use crate::models::{Entry, View};

/// Generate text
///
/// Without `stream` one JSON object, with it (or with `Accept: text/event-stream`) server-sent events: `queued` while it waits for its
/// turn (position, reason, time to go), `start` (request id, backend, model), any number of `token` (`text`, `thinking`), then one `done` (the final object) or one `error` (a problem).
#[utoipa::path(post, path = "/generate", tag = "native", request_body = GenerateRequest,
    params(("x-arriero-collect" = Option<String>, Header, description = "`no`: the exchange is not collected, whatever the key agreed to")),
    responses(
    (status = 200, description = "The answer", content((GenerateResponse = "application/json"), (String = "text/event-stream"))),
    (status = 400, description = "The body is no JSON object, or the backend refused the request", body = Problem, content_type = "application/problem+json"),
    (status = 404, description = "No backend has the model", body = Problem, content_type = "application/problem+json"),
    (status = 408, description = "The body came too slowly", body = Problem, content_type = "application/problem+json"),
    (status = 413, description = "The body is too large", body = Problem, content_type = "application/problem+json"),
    (status = 422, description = "A field has a value it does not take", body = Problem, content_type = "application/problem+json"),
    (status = 502, description = "The backend failed or cannot be reached", body = Problem, content_type = "application/problem+json"),
    (status = 503, description = "The backend is overloaded; see `retry-after`", body = Problem, content_type = "application/problem+json"),
    (status = 504, description = "The deadline passed, or the backend fell silent", body = Problem, content_type = "application/problem+json"),
    (status = 507, description = "The answer outgrew what is collected for a client that does not stream", body = Problem, content_type = "application/problem+json"),
))]
pub async fn generate(
    From(state): From<State>,
    Id(id): Id,
    Who(principal): Who,
    headers: HeaderMap,
    body: axum::body::Body,
) -> Result<Response, Problem> {
    let body = body::read(body, &state.config.body).await?;
    if let Some((resumed, next)) = resume_point(&headers)? {
        return resume(&state, &principal, resumed, next);
    }
    let mut draft = convert::draft(id, principal, &body, accepts_events(&headers))?;
    draft.control.collect = convert::may_collect(&headers);
    drop(body);
    if draft.streamed { stream::answer(&state, draft).await } else { whole(&state, draft).await }
}

/// Read a generation again
///
/// Of a request with `detach`, and of one whose connection broke while `generation.kept.resume_window` lasts: with
/// `Accept: text/event-stream` its events, from the start or after `Last-Event-ID`, first those that have come and then live ones; otherwise the whole answer,
/// or 202 while it is being made.
#[utoipa::path(get, path = "/generate/{id}", tag = "native", params(("id" = String, Path, description = "The request's id")), responses(
    (status = 200, description = "The answer", content((GenerateResponse = "application/json"), (String = "text/event-stream"))),
    (status = 202, description = "It is being made", body = Detached),
    (status = 204, description = "Nothing follows the event that `Last-Event-ID` names"),
    (status = 404, description = "No such generation is kept for this caller", body = Problem, content_type = "application/problem+json"),
    (status = 410, description = "What would have to be sent again is no longer kept", body = Problem, content_type = "application/problem+json"),
))]
pub async fn read_again(
    From(state): From<State>,
    Who(principal): Who,
    Path(id): Path<String>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let id = RequestId::from_client(&id).ok_or_else(|| Problem::from(gateway::Error::NothingToResume { id: String::new() }))?;
    if accepts_events(&headers) {
        let point = resume_point(&headers)?;
        if point.as_ref().is_some_and(|(named, _)| *named != id) {
            return Err(Problem::new("event_id_invalid", "Last-Event-ID names an event of another generation"));
        }
        let next = point.map_or(0, |(_, next)| next);
        return resume(&state, &principal, id, next);
    }
    let kept = state.gateway.kept(&principal, &id)?;
    if !kept.ended {
        let running = Detached { request_id: id.to_string(), state: "running", events: kept.events };
        return Ok((StatusCode::ACCEPTED, Json(running)).into_response());
    }
    let mut generation = state.gateway.resume(&principal, &id, 0)?;
    let answer = gateway::collect(&mut generation, state.gateway.config().max_answer_bytes).await?;
    Ok(Json(envelope::whole(&id, &generation, answer, state.clock.rfc3339())).into_response())
}

/// Stop a generation
///
/// One that goes on without its client. What has come of it is forgotten.
#[utoipa::path(delete, path = "/generate/{id}", tag = "native", params(("id" = String, Path, description = "The request's id")), responses(
    (status = 204, description = "Stopped"),
    (status = 404, description = "No such generation is kept for this caller", body = Problem, content_type = "application/problem+json"),
))]
pub async fn stop(From(state): From<State>, Who(principal): Who, Path(id): Path<String>) -> Result<StatusCode, Problem> {
    let missing = || Problem::from(gateway::Error::NothingToResume { id: id.clone() });
    state.gateway.forget(&principal, &RequestId::from_client(&id).ok_or_else(missing)?)?;
    Ok(StatusCode::NO_CONTENT)
}

/// Where a client wants to go on: the request, and the number of the event that comes next.
fn resume_point(headers: &HeaderMap) -> Result<Option<(RequestId, u64)>, Problem> {
    let Some(value) = headers.get("last-event-id").filter(|value| !value.is_empty()) else { return Ok(None) };
    let point = value.to_str().ok().and_then(sse::resume_point);
    let point = point.and_then(|(id, next)| Some((RequestId::from_client(id)?, next)));
    let wrong = || Problem::new("event_id_invalid", "Last-Event-ID is not the id of an event of this service: <request id>/<number>");
    point.map(Some).ok_or_else(wrong)
}

fn resume(state: &State, principal: &Principal, id: RequestId, next: u64) -> Result<Response, Problem> {
    let kept = state.gateway.kept(principal, &id)?;
    if kept.ended && next > kept.events {
        // It has had everything: this tells a client that reconnects by itself to stop.
        return Ok(StatusCode::NO_CONTENT.into_response());
    }
    let generation = state.gateway.resume(principal, &id, next.saturating_sub(1))?;
    Ok(stream::resumed(state, id, generation, next))
}

async fn whole(state: &State, draft: Draft) -> Result<Response, Problem> {
    let id = draft.id.clone();
    let work = async {
        let (progress, news) = Progress::new();
        let mut generation = state.gateway.generate(draft, &progress).await?;
        let answer = gateway::collect(&mut generation, state.gateway.config().max_answer_bytes).await?;
        let mut headers = envelope::headers(&generation);
        if let Some(waited) = *news.borrow() {
            headers.insert("x-arriero-queue-reason", HeaderValue::from_static(waited.reason.as_str()));
        }
        Ok((headers, Json(envelope::whole(&id, &generation, answer, state.clock.rfc3339()))).into_response())
    };
    tokio::select! {
        answer = work => answer,
        () = state.ending.cancelled() => Err(stream::ended()),
    }
}

fn accepts_events(headers: &HeaderMap) -> bool {
    let asked = headers.get_all(header::ACCEPT).iter().filter_map(|value| value.to_str().ok());
    asked
        .flat_map(|value| value.split(','))
        .any(|range| range.split(';').next().is_some_and(|kind| kind.trim().eq_ignore_ascii_case("text/event-stream")))
}

/// List models
///
/// What the caller can ask for now, on every backend; what its key may not use is left out.
#[utoipa::path(get, path = "/models", tag = "native", responses((status = 200, description = "The models", body = ModelList)))]
pub async fn models(From(state): From<State>, Who(who): Who) -> Json<ModelList> {
    let registry = state.gateway.registry();
    let mut models = registry.list();
    models.retain(|view| who.may_use(&view.model.name));
    let unavailable = |entry: &std::sync::Arc<Entry>| Some(Unavailable { backend: entry.backend.name().to_owned(), reason: entry.down()? });
    Json(ModelList {
        models: models.into_iter().map(model).collect(),
        aliases: state.gateway.aliases(&who).into_iter().map(|(name, models)| Alias { name, models }).collect(),
        unavailable: registry.entries().iter().filter_map(unavailable).collect(),
    })
}

fn model(view: View) -> Model {
    Model {
        name: view.model.name.to_string(),
        backend: view.backend,
        backend_kind: view.kind.to_owned(),
        available: view.available,
        family: view.model.family,
        parameters: view.model.parameters,
        quantization: view.model.quantization,
        context_length: view.model.context_length,
        size_bytes: view.model.size_bytes,
        digest: view.model.digest,
        loaded: view.model.loaded,
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn events_are_asked_for_by_media_type() {
        let asks = |value: &'static str| accepts_events(&HeaderMap::from_iter([(header::ACCEPT, HeaderValue::from_static(value))]));
        assert!(asks("text/event-stream") && asks("application/json;q=0.5, Text/Event-Stream;q=1"));
        assert!(!asks("*/*") && !asks("application/json"));
    }
}
