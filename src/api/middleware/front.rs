//! The strict front: refuses requests that two HTTP implementations could read differently, and closes their connection.
//!
//! Hyper lets most of these through: two Hosts, none, a `Connection` header that names end-to-end headers, dots in the path.
//! A body framed both by length and by chunks never gets here as such: hyper takes the chunks and closes the connection after the answer.

use axum::extract::Request;
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, HeaderValue, Uri, Version, header};

use crate::api::problem::Problem;

/// What a `Connection` header may name.
const HOP_BY_HOP: [&str; 6] = ["close", "keep-alive", "upgrade", "http2-settings", "te", "trailers"];

pub async fn check(request: Request, next: Next) -> Response {
    match fault(request.version(), request.uri(), request.headers()) {
        None => next.run(request).await,
        Some(fault) => {
            let mut response = Problem::new("malformed_request", fault).into_response();
            response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
            response
        }
    }
}

/// What is wrong with a request, if anything is.
fn fault(version: Version, uri: &Uri, headers: &HeaderMap) -> Option<&'static str> {
    let hosts = headers.get_all(header::HOST).iter().count();
    let lengths = headers.get_all(header::CONTENT_LENGTH).iter().count();
    let encodings = headers.get_all(header::TRANSFER_ENCODING).iter().count();
    let chunked_only = || headers.get(header::TRANSFER_ENCODING).is_none_or(|v| v.as_bytes().eq_ignore_ascii_case(b"chunked"));
    if version == Version::HTTP_11 && hosts != 1 {
        return Some("an HTTP/1.1 request has exactly one Host header");
    }
    if hosts > 1 || lengths > 1 || encodings > 1 || (lengths == 1 && encodings == 1) || !chunked_only() {
        return Some("the body must be framed in exactly one way");
    }
    if !names_only_hop_by_hop(headers) {
        return Some("the Connection header names a header that is not hop-by-hop");
    }
    path_is_odd(uri).then_some("the path has dot segments, empty segments, backslashes or encoded separators")
}

fn names_only_hop_by_hop(headers: &HeaderMap) -> bool {
    let named = headers.get_all(header::CONNECTION).iter().map(|value| value.to_str().unwrap_or("?"));
    let mut tokens = named.flat_map(|value| value.split(',')).map(str::trim).filter(|token| !token.is_empty());
    tokens.all(|token| HOP_BY_HOP.iter().any(|known| known.eq_ignore_ascii_case(token)))
}

fn path_is_odd(uri: &Uri) -> bool {
    let path = uri.path().to_ascii_lowercase();
    let encoded = ["%00", "%2e", "%2f", "%5c", "%0a", "%0d"].iter().any(|code| path.contains(code));
    let dots = path.split('/').any(|segment| segment == "." || segment == "..");
    encoded || dots || path.contains("//") || path.contains('\\') || !(path.starts_with('/') || path == "*")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(path: &str, headers: &[(&'static str, &'static str)]) -> Option<&'static str> {
        let map = headers.iter().map(|(n, v)| (n.parse().expect("a name"), HeaderValue::from_static(v)));
        let mut all = HeaderMap::new();
        for (name, value) in map {
            all.append::<http::HeaderName>(name, value);
        }
        fault(Version::HTTP_11, &path.parse().expect("a path"), &all)
    }

    #[test]
    fn plain_requests_pass() {
        assert_eq!(request("/generate", &[("host", "a"), ("content-length", "3"), ("connection", "Keep-Alive")]), None);
        assert_eq!(request("/docs/a.b..c", &[("host", "a"), ("transfer-encoding", "chunked")]), None);
    }

    #[test]
    fn ambiguous_requests_do_not() {
        for (path, headers) in [
            ("/", &[][..]),
            ("/", &[("host", "a"), ("host", "b")]),
            ("/", &[("host", "a"), ("content-length", "3"), ("transfer-encoding", "chunked")]),
            ("/", &[("host", "a"), ("transfer-encoding", "gzip, chunked")]),
            ("/", &[("host", "a"), ("connection", "close, authorization")]),
            ("/a/../b", &[("host", "a")]),
            ("/a/%2e%2e/b", &[("host", "a")]),
            ("//a", &[("host", "a")]),
            ("/a%2fb", &[("host", "a")]),
        ] {
            assert!(request(path, headers).is_some(), "{path} {headers:?}");
        }
    }
}
