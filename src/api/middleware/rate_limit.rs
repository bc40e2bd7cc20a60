//! Holds back addresses that ask too often or try wrong keys, before it is known who asks; and tells clients how they stand.
//!
//! The address is the connection's or, behind a trusted proxy, the one that the proxy names. A request that does not come by a
//! connection (in a test) has none and is let through; so are the probes for life and readiness, which cost nothing and must not
//! fail because of others at the same address.

use axum::extract::{Request, State as From};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};

use crate::api::listener::Peer;
use crate::api::problem::Problem;
use crate::limits::{Limits, Standing};

const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

const API_KEY: HeaderName = HeaderName::from_static("x-api-key");

pub async fn hold_back(From(limits): From<Limits>, request: Request, next: Next) -> Response {
    let Some(Peer(peer)) = request.extensions().get::<Peer>().copied() else { return next.run(request).await };
    let client = limits.client(peer, &forwarded_for(request.headers()));
    if !matches!(request.uri().path(), "/livez" | "/readyz")
        && let Err(refusal) = limits.address(client)
    {
        return Problem::from(refusal).into_response();
    }
    let shows_a_key = shows_a_key(request.headers());
    let response = next.run(request).await;
    if shows_a_key && response.status() == StatusCode::UNAUTHORIZED {
        limits.wrong_key(client);
    }
    response
}

/// Whether someone claims to be someone. Who claims nothing guesses nothing.
fn shows_a_key(headers: &HeaderMap) -> bool {
    headers.contains_key(header::AUTHORIZATION) || headers.contains_key(API_KEY)
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
    use axum::Router;
    use axum::body::Body;
    use axum::middleware::from_fn_with_state;
    use axum::routing::get;
    use tower::ServiceExt;

    use super::*;
    use crate::domain::clock::Clock;
    use crate::limits::{Address, Config};
    use crate::storage::{self, Storage};
    use crate::telemetry::Metrics;

    #[tokio::test]
    async fn wrong_keys_hold_an_address_back_and_missing_ones_do_not() {
        let folder = tempfile::tempdir().expect("a folder");
        let storage = Storage::open(folder.path(), &storage::Config::default()).await.expect("opened");
        let address = Address { wrong_keys_per_minute: Some(3), ..Address::default() };
        let clock = Clock::fake(0);
        let config = Config { address, ..Config::default() };
        let (limits, _) = Limits::new(config, &storage, Metrics::default(), clock.clone()).await.expect("loaded");
        let strict = |headers: HeaderMap| async move {
            if headers.get(API_KEY).is_some_and(|key| key == "right") { StatusCode::OK } else { StatusCode::UNAUTHORIZED }
        };
        let routes = Router::new().route("/models", get(strict)).layer(from_fn_with_state(limits, hold_back));
        let ask = async |key: Option<&str>, from: [u8; 4]| {
            let mut request = Request::new(Body::empty());
            *request.uri_mut() = "/models".parse().expect("a path");
            request.extensions_mut().insert(Peer(from.into()));
            if let Some(key) = key {
                request.headers_mut().insert(API_KEY, key.parse().expect("a header"));
            }
            routes.clone().oneshot(request).await.expect("an answer").status().as_u16()
        };
        for (key, expected) in [(None, 401), (None, 401), (Some("right"), 200), (Some("a"), 401), (Some("b"), 401), (Some("c"), 401)] {
            assert_eq!(ask(key, [10, 0, 0, 1]).await, expected, "{key:?}");
        }
        assert_eq!(ask(Some("right"), [10, 0, 0, 1]).await, 429);
        assert_eq!(ask(Some("right"), [10, 0, 0, 2]).await, 200);
        clock.advance(std::time::Duration::from_secs(20));
        assert_eq!(ask(Some("right"), [10, 0, 0, 1]).await, 200);
    }

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
