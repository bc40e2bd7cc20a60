//! Who asks.

use std::convert::Infallible;
use std::sync::Arc;

use axum::extract::FromRequestParts;
use http::request::Parts;

use crate::domain::principal::{Principal, Role};

/// Whoever sent the request at hand.
#[derive(Clone)]
pub struct Who(pub Arc<Principal>);

impl<S: Sync> FromRequestParts<S> for Who {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Self::Rejection> {
        Ok(parts.extensions.get::<Self>().cloned().unwrap_or_else(|| Self(Arc::new(Principal::anonymous(Role::User)))))
    }
}
