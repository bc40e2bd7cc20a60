//! Parts of a request's path.

use axum::extract::FromRequestParts;
use http::request::Parts;
use serde::de::DeserializeOwned;

use super::problem::Problem;

/// As axum's, but what cannot be read is refused like everything else.
pub struct Path<T>(pub T);

impl<S: Send + Sync, T: DeserializeOwned + Send> FromRequestParts<S> for Path<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let read = axum::extract::Path::<T>::from_request_parts(parts, state).await;
        let wrong = |_| Problem::new("malformed_request", "the path is no text: what it stands for with its escapes (%XX) is not UTF-8");
        read.map(|axum::extract::Path(value)| Self(value)).map_err(wrong)
    }
}
