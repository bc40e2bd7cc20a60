//! Every request has an id: the client's, when it sent a harmless one, or a new one. It comes back in `x-request-id` and in every problem.

use axum::extract::{FromRequestParts, Request};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use http::request::Parts;
use http::{HeaderName, HeaderValue, header};
use tracing::Instrument;

use crate::api::problem::Unsigned;
use crate::domain::id::RequestId;

pub const HEADER: HeaderName = HeaderName::from_static("x-request-id");

/// The id of the request at hand.
#[derive(Clone)]
pub struct Id(pub RequestId);

impl<S: Sync> FromRequestParts<S> for Id {
    type Rejection = std::convert::Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Self::Rejection> {
        Ok(parts.extensions.get::<Self>().cloned().unwrap_or_else(|| Self(RequestId::generate())))
    }
}

/// Writes the id into an answer that is a problem. Its headers stay as they are.
pub async fn sign(Id(id): Id, request: Request, next: Next) -> Response {
    let mut response = next.run(request).await;
    let Some(Unsigned(problem)) = response.extensions_mut().remove::<Unsigned>() else { return response };
    let (_, body) = problem.of_request(&id).into_response().into_parts();
    response.headers_mut().remove(header::CONTENT_LENGTH);
    response.map(|_| body)
}

pub async fn assign(mut request: Request, next: Next) -> Response {
    let sent = request.headers().get(HEADER).and_then(|value| value.to_str().ok());
    let id = sent.and_then(RequestId::from_client).unwrap_or_else(RequestId::generate);
    request.extensions_mut().insert(Id(id.clone()));
    let span = tracing::info_span!("request", id = %id, method = %request.method(), path = request.uri().path());
    let mut response = next.run(request).instrument(span).await;
    if let Ok(value) = HeaderValue::from_str(id.as_str()) {
        response.headers_mut().insert(HEADER, value);
    }
    response
}
