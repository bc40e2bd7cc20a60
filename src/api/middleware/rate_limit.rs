//! Holds back addresses that ask too often, before it is known who asks; and tells clients how they stand.
//!
//! The address is the connection's or, behind a trusted proxy, the one that the proxy names. A request that does not come by a
//! connection (in a test) has none and is let through; so are the probes for life and readiness, which cost nothing and must not
//! fail because of others at the same address.

use std::net::IpAddr;

use axum::extract::{Request, State as From};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, HeaderName, HeaderValue};

use crate::api::listener::Peer;
use crate::api::problem::Problem;
use crate::api::state::State;
use crate::limits::Standing;

const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

/// Where the request at hand comes from; in its extensions.
#[derive(Debug, Clone, Copy)]
pub struct ClientAddress(pub IpAddr);

pub async fn hold_back(From(state): From<State>, mut request: Request, next: Next) -> Response {
    let Some(Peer(peer)) = request.extensions().get::<Peer>().copied() else { return next.run(request).await };
    let client = state.limits.client(peer, &forwarded_for(request.headers()));
    request.extensions_mut().insert(ClientAddress(client));
    if !matches!(request.uri().path(), "/livez" | "/readyz")
        && let Err(refusal) = state.limits.address(client)
    {
        return Problem::from(refusal).into_response();
    }
    next.run(request).await
}

/// All such headers as one list, as if they had been one (RFC 9110, 5.3). One that is no text ends what can be believed.
fn forwarded_for(headers: &HeaderMap) -> String {
    let lines = headers.get_all(FORWARDED_FOR).iter().map(|value| value.to_str().unwrap_or("?"));
    lines.collect::<Vec<_>>().join(",")
}

/// Tells a client how it stands.
pub fn write(headers: &mut HeaderMap, standing: &Standing) {
    for (name, value) in standing.headers() {
        if let Ok(value) = HeaderValue::try_from(value) {
            headers.insert(HeaderName::from_static(name), value);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn several_headers_are_one_list() {
        let mut headers = HeaderMap::new();
        assert_eq!(forwarded_for(&headers), "");
        headers.append(FORWARDED_FOR, HeaderValue::from_static("1.1.1.1, 2.2.2.2"));
        headers.append(FORWARDED_FOR, HeaderValue::from_bytes(b"\xff").expect("allowed"));
        headers.append(FORWARDED_FOR, HeaderValue::from_static("3.3.3.3"));
        assert_eq!(forwarded_for(&headers), "1.1.1.1, 2.2.2.2,?,3.3.3.3");
    }
}
