//! `POST /generate` and `GET /models`.

use axum::Json;
use axum::extract::State as From;
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, header};

use super::types::{GenerateRequest, GenerateResponse, Model, ModelList, Unavailable};
use super::{convert, envelope, stream};
use crate::api::body;
use crate::api::middleware::auth::Who;
use crate::api::middleware::request_id::Id;
use crate::api::problem::Problem;
use crate::api::state::State;
use crate::domain::generation::Draft;
use crate::gateway;
use crate::models::{Entry, View};

/// Generate text
///
/// Without `stream` one JSON object, with it (or with `Accept: text/event-stream`) server-sent events: `start` (request id, backend,
/// model), any number of `token` (`text`, `thinking`), then one `done` (the final object) or one `error` (a problem).
#[utoipa::path(post, path = "/generate", tag = "native", request_body = GenerateRequest, responses(
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
    let draft = convert::draft(id, principal, &body, accepts_events(&headers))?;
    drop(body);
    if draft.streamed { stream::answer(&state, draft).await } else { Ok(Json(whole(&state, draft).await?).into_response()) }
}

async fn whole(state: &State, draft: Draft) -> Result<GenerateResponse, Problem> {
    let id = draft.id.clone();
    let work = async {
        let mut generation = state.gateway.generate(draft).await?;
        let answer = gateway::collect(&mut generation, state.gateway.config().max_answer_bytes).await?;
        Ok(envelope::whole(&id, &generation, answer, state.clock.rfc3339()))
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
/// What can be asked for now, on every backend.
#[utoipa::path(get, path = "/models", tag = "native", responses((status = 200, description = "The models", body = ModelList)))]
pub async fn models(From(state): From<State>) -> Json<ModelList> {
    let registry = state.gateway.registry();
    let unavailable = |entry: &std::sync::Arc<Entry>| Some(Unavailable { backend: entry.backend.name().to_owned(), reason: entry.down()? });
    Json(ModelList {
        models: registry.list().into_iter().map(model).collect(),
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
