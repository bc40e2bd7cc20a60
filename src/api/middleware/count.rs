//! Counts requests by route and outcome, until the last byte of the answer; puts the request's id into problems; logs one line each.

use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};
use std::time::Instant;

use axum::body::Body;
use axum::extract::{MatchedPath, Request, State as From};
use axum::middleware::Next;
use axum::response::Response;
use bytes::Bytes;
use http::StatusCode;
use http_body::{Frame, SizeHint};

use crate::api::state::State;
use crate::domain::blame::Blame;
use crate::telemetry::labels::{Outcome, Route};
use crate::telemetry::metrics::RequestInFlight;

/// How an answer ended whose status line said 200 before that was known. The handler sets it, the counting body reads it.
#[derive(Debug, Clone, Default)]
pub struct Ended(Arc<OnceLock<u16>>);

impl Ended {
    /// The status it would have had.
    pub fn set(&self, status: u16) {
        // A second end of the same answer says nothing new.
        let _ = self.0.set(status);
    }
}

pub async fn count(From(state): From<State>, request: Request, next: Next) -> Response {
    let route = route(request.extensions().get::<MatchedPath>().map(MatchedPath::as_str));
    let in_flight = state.metrics.request_started(route);
    let started = Instant::now();
    let span = tracing::Span::current();
    let response = next.run(request).await;
    let ended = response.extensions().get::<Ended>().cloned().unwrap_or_default();
    let status = response.status();
    let counting = |body| Body::new(Counting { body, status, ended, in_flight: Some(in_flight), started, span });
    response.map(counting)
}

fn route(path: Option<&str>) -> Route {
    match path {
        Some("/generate") => Route::Generate,
        Some("/models") => Route::Models,
        Some("/feedback" | "/collection") => Route::Collection,
        Some("/livez") => Route::Live,
        Some("/readyz") => Route::Ready,
        Some("/metrics") => Route::Metrics,
        Some("/version") => Route::Version,
        Some(path) if path.starts_with("/admin/") => Route::Admin,
        Some("/openapi.json" | "/docs" | "/docs/" | "/docs/{*file}") => Route::Docs,
        _ => Route::Unmatched,
    }
}

fn outcome(status: u16) -> Outcome {
    match status {
        0..400 => Outcome::Ok,
        502 | 504 => Outcome::Failed(Blame::Upstream),
        500.. => Outcome::Failed(Blame::Gateway),
        _ => Outcome::Failed(Blame::Client),
    }
}

/// A body that knows whether it was sent to its end.
struct Counting {
    body: Body,
    status: StatusCode,
    ended: Ended,
    in_flight: Option<RequestInFlight>,
    started: Instant,
    span: tracing::Span,
}

impl Counting {
    /// Called once: with `whole` false when the client left before the end.
    fn close(&mut self, whole: bool) {
        let Some(in_flight) = self.in_flight.take() else { return };
        let status = self.ended.0.get().copied().unwrap_or(self.status.as_u16());
        let outcome = if whole { outcome(status) } else { Outcome::Cancelled };
        tracing::debug!(parent: &self.span, status, outcome = outcome.as_str(), elapsed = ?self.started.elapsed(), "answered");
        in_flight.finish(outcome);
    }
}

impl http_body::Body for Counting {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let frame = std::task::ready!(Pin::new(&mut self.body).poll_frame(cx));
        if frame.is_none() || http_body::Body::is_end_stream(&self.body) {
            self.close(true);
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        http_body::Body::is_end_stream(&self.body)
    }

    fn size_hint(&self) -> SizeHint {
        http_body::Body::size_hint(&self.body)
    }
}

impl Drop for Counting {
    fn drop(&mut self) {
        let whole = http_body::Body::is_end_stream(&self.body);
        self.close(whole);
    }
}
