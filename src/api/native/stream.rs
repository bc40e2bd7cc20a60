//! The answer of `POST /generate` as server-sent events.
//!
//! One piece from the backend is one event, written at once. While the request waits for its turn, `queued` events say where it
//! stands. The stream ends with `done` or `error`, whatever happens.

use std::convert::Infallible;
use std::time::Duration;

use async_stream::stream;
use axum::body::Body;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures_util::future::BoxFuture;
use futures_util::{FutureExt, Stream, StreamExt};
use http::{HeaderMap, HeaderValue, header};
use tokio::sync::watch;
use tokio::time::timeout;

use super::envelope;
use super::types::{Queued, Start, Token};
use crate::api::middleware::count::Ended;
use crate::api::problem::Problem;
use crate::api::sse::{Encoder, HEARTBEAT};
use crate::api::state::State;
use crate::domain::generation::{Draft, Event};
use crate::domain::id::RequestId;
use crate::domain::waiting::{Progress, Waiting};
use crate::gateway::{self, Generation};

type Starting = BoxFuture<'static, Result<Generation, gateway::Error>>;
type News = watch::Receiver<Option<Waiting>>;

/// Waits for a backend to begin its answer, so that a refusal has its own status; but only until there are news of waiting, and no
/// longer than one heartbeat, so that the client hears and the connection stays open however long that takes.
pub async fn answer(state: &State, draft: Draft) -> Result<Response, Problem> {
    let id = draft.id.clone();
    let gateway = state.gateway.clone();
    let (progress, mut news) = Progress::new();
    let mut starting: Starting = Box::pin(async move { gateway.generate(draft, &progress).await });
    let started = tokio::select! {
        biased;
        started = &mut starting => Some(started),
        Ok(()) = news.changed() => None,
        () = tokio::time::sleep(state.config.heartbeat) => None,
        () = state.ending.cancelled() => return Err(ended()),
    };
    let mut headers = HeaderMap::new();
    let starting = match started {
        Some(Err(error)) => return Err(error.into()),
        Some(Ok(generation)) => {
            headers = envelope::headers(&generation);
            futures_util::future::ready(Ok(generation)).boxed()
        }
        None => {
            news.mark_changed();
            starting
        }
    };
    let (told, encoder) = (Ended::default(), Encoder::new(id.as_str()));
    let mut response = respond(events(state.clone(), id, starting, news, encoder, told.clone()), told);
    response.headers_mut().extend(headers);
    Ok(response)
}

/// Goes on with an answer after the first `next` events of its stream.
pub fn resumed(state: &State, id: RequestId, generation: Generation, next: u64) -> Response {
    let starting = futures_util::future::ready(Ok(generation)).boxed();
    let (_, news) = Progress::new();
    let (told, encoder) = (Ended::default(), Encoder::from(id.as_str(), next));
    respond(events(state.clone(), id, starting, news, encoder, told.clone()), told)
}

fn respond(events: impl Stream<Item = Result<Bytes, Infallible>> + Send + 'static, ended: Ended) -> Response {
    let mut response = Body::from_stream(events).into_response();
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream; charset=utf-8"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    // Tells nginx not to collect what must be seen at once.
    headers.insert("x-accel-buffering", HeaderValue::from_static("no"));
    response.extensions_mut().insert(ended);
    response
}

/// The problem of an answer that is cut off because the process ends.
pub fn ended() -> Problem {
    Problem::new("closed", "Arriero ended before the answer did")
}

fn events(
    state: State,
    id: RequestId,
    mut starting: Starting,
    mut news: News,
    mut encoder: Encoder,
    ended_as: Ended,
) -> impl Stream<Item = Result<Bytes, Infallible>> {
    let heartbeat = state.config.heartbeat;
    stream! {
        let problem = |problem: Problem, encoder: &mut Encoder| {
            ended_as.set(problem.status);
            Ok(encoder.event("error", &problem.of_request(&id)))
        };
        let started = loop {
            match next_of_start(&state, heartbeat, &mut starting, &mut news).await {
                Next::Here(started) => break started.map_err(Problem::from),
                Next::News(waiting) => yield Ok(Encoder::news("queued", &Queued::from(waiting))),
                Next::Silence => yield Ok(HEARTBEAT),
                Next::Ending => break Err(ended()),
            }
        };
        // It is over, and holds a lot.
        drop(starting);
        let mut generation = match started {
            Ok(generation) => generation,
            Err(error) => { yield problem(error, &mut encoder); return; }
        };
        if encoder.is_at_start() {
            yield Ok(start(&mut encoder, &id, &generation));
        }
        loop {
            match next(&state, heartbeat, generation.next()).await {
                Next::Here(Some(Ok(Event::Delta(delta)))) => {
                    yield Ok(encoder.event("token", &Token { text: &delta.text, thinking: &delta.thinking, extra: &delta.extra }));
                }
                Next::Here(Some(Ok(Event::Done(finish)))) => {
                    yield Ok(encoder.event("done", &envelope::last(&id, &generation, *finish, state.clock.rfc3339())));
                    return;
                }
                Next::Here(Some(Err(error))) => { yield problem(error.into(), &mut encoder); return; }
                Next::Here(None) => { yield problem(Problem::new("internal", "the answer ended without an end"), &mut encoder); return; }
                Next::Silence | Next::News(_) => yield Ok(HEARTBEAT),
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
    /// The request waits for its turn, and its place has changed.
    News(Waiting),
    /// Nothing came for the time of a heartbeat.
    Silence,
    /// The process ends now.
    Ending,
}

async fn next_of_start(
    state: &State,
    heartbeat: Duration,
    starting: &mut Starting,
    news: &mut News,
) -> Next<Result<Generation, gateway::Error>> {
    // Who tells the news is part of what starts: when it is gone, that is ready.
    let changed = async {
        match news.changed().await {
            Ok(()) => *news.borrow_and_update(),
            Err(_) => std::future::pending().await,
        }
    };
    tokio::select! {
        biased;
        started = starting => Next::Here(started),
        waiting = changed => waiting.map_or(Next::Silence, Next::News),
        () = tokio::time::sleep(heartbeat) => Next::Silence,
        () = state.ending.cancelled() => Next::Ending,
    }
}

async fn next<T>(state: &State, heartbeat: Duration, coming: impl Future<Output = T>) -> Next<T> {
    tokio::select! {
        biased;
        came = timeout(heartbeat, coming) => came.map_or(Next::Silence, Next::Here),
        () = state.ending.cancelled() => Next::Ending,
    }
}
