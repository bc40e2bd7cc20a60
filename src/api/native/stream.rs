//! The answer of `POST /generate` as server-sent events.
//!
//! One piece from the backend is one event, written at once. The stream ends with `done` or `error`, whatever happens.

use std::convert::Infallible;
use std::time::Duration;

use async_stream::stream;
use axum::body::Body;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures_util::future::BoxFuture;
use futures_util::{FutureExt, Stream, StreamExt};
use http::{HeaderValue, header};
use tokio::time::timeout;

use super::envelope;
use super::types::{Start, Token};
use crate::api::middleware::count::Ended;
use crate::api::problem::Problem;
use crate::api::sse::{Encoder, HEARTBEAT};
use crate::api::state::State;
use crate::domain::generation::{Draft, Event};
use crate::domain::id::RequestId;
use crate::gateway::{self, Generation};

type Starting = BoxFuture<'static, Result<Generation, gateway::Error>>;

/// Waits for a backend to accept, so that a refusal has its own status; but no longer than one heartbeat, so that the connection
/// stays open however long that takes.
pub async fn answer(state: &State, draft: Draft) -> Result<Response, Problem> {
    let id = draft.id.clone();
    let gateway = state.gateway.clone();
    let mut starting: Starting = Box::pin(async move { gateway.generate(draft).await });
    let started = tokio::select! {
        started = timeout(state.config.heartbeat, &mut starting) => started,
        () = state.ending.cancelled() => return Err(ended()),
    };
    let starting = match started {
        Ok(Err(error)) => return Err(error.into()),
        Ok(Ok(generation)) => futures_util::future::ready(Ok(generation)).boxed(),
        Err(_) => starting,
    };
    let ended = Ended::default();
    let mut response = Body::from_stream(events(state.clone(), id, starting, ended.clone())).into_response();
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream; charset=utf-8"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    // Tells nginx not to collect what must be seen at once.
    headers.insert("x-accel-buffering", HeaderValue::from_static("no"));
    response.extensions_mut().insert(ended);
    Ok(response)
}

/// The problem of an answer that is cut off because the process ends.
pub fn ended() -> Problem {
    Problem::new("closed", "Arriero ended before the answer did")
}

fn events(state: State, id: RequestId, mut starting: Starting, ended_as: Ended) -> impl Stream<Item = Result<Bytes, Infallible>> {
    let heartbeat = state.config.heartbeat;
    stream! {
        let mut encoder = Encoder::new(id.as_str());
        let problem = |problem: Problem, encoder: &mut Encoder| {
            ended_as.set(problem.status);
            Ok(encoder.event("error", &problem.of_request(&id)))
        };
        let started = loop {
            match next(&state, heartbeat, &mut starting).await {
                Next::Here(started) => break started.map_err(Problem::from),
                Next::Silence => yield Ok(HEARTBEAT),
                Next::Ending => break Err(ended()),
            }
        };
        let mut generation = match started {
            Ok(generation) => generation,
            Err(error) => { yield problem(error, &mut encoder); return; }
        };
        yield Ok(start(&mut encoder, &id, &generation));
        loop {
            match next(&state, heartbeat, generation.next()).await {
                Next::Silence => yield Ok(HEARTBEAT),
                Next::Here(Some(Ok(Event::Delta(delta)))) => {
                    yield Ok(encoder.event("token", &Token { text: &delta.text, thinking: &delta.thinking, extra: &delta.extra }));
                }
                Next::Here(Some(Ok(Event::Done(finish)))) => {
                    yield Ok(encoder.event("done", &envelope::last(&id, &generation, *finish, state.clock.rfc3339())));
                    return;
                }
                Next::Here(Some(Err(error))) => { yield problem(error.into(), &mut encoder); return; }
                Next::Here(None) => { yield problem(Problem::new("internal", "the answer ended without an end"), &mut encoder); return; }
                Next::Ending => { yield problem(ended(), &mut encoder); return; }
            }
        }
    }
}

fn start(encoder: &mut Encoder, id: &RequestId, generation: &Generation) -> Bytes {
    let about = generation.about();
    encoder.event("start", &Start { request_id: id.as_str(), backend: &about.backend, model: about.model.as_str() })
}

enum Next<T> {
    Here(T),
    /// Nothing came for the time of a heartbeat.
    Silence,
    /// The process ends now.
    Ending,
}

async fn next<T>(state: &State, heartbeat: Duration, coming: impl Future<Output = T>) -> Next<T> {
    tokio::select! {
        biased;
        came = timeout(heartbeat, coming) => came.map_or(Next::Silence, Next::Here),
        () = state.ending.cancelled() => Next::Ending,
    }
}
