//! Who asks, and whether they may.
//!
//! A request bears a key as `Authorization: Bearer` or `x-api-key`, or comes in by an address that stands for one. What it needs
//! is in [`authorisation`]. Where no key is required, a text that cannot be a key is passed over: many clients send one that
//! means nothing, because they cannot send none. A key that is wrong is refused everywhere.

use std::convert::Infallible;
use std::sync::Arc;

use axum::extract::{FromRequestParts, MatchedPath, Request, State as From};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use http::request::Parts;
use http::{HeaderMap, HeaderName, header};

use crate::api::authorisation::{self, Needs};
use crate::api::problem::Problem;
use crate::api::state::State;
use crate::auth::{Denied, Keys};
use crate::domain::principal::{Principal, Role};
use crate::telemetry::metrics::Authentication;

const API_KEY: HeaderName = HeaderName::from_static("x-api-key");

/// Whoever sent the request at hand.
#[derive(Clone)]
pub struct Who(pub Arc<Principal>);

impl<S: Sync> FromRequestParts<S> for Who {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Self::Rejection> {
        Ok(parts.extensions.get::<Self>().cloned().unwrap_or_else(|| Self(Arc::new(Principal::anonymous(Role::User)))))
    }
}

/// Name of the key that the address stands for by which a request came in.
#[derive(Clone)]
pub struct Identity(pub Arc<str>);

/// Lets a request in, with [`Who`] sent it, or refuses it.
pub async fn admit(From(state): From<State>, mut request: Request, next: Next) -> Response {
    let path = request.extensions().get::<MatchedPath>().map(MatchedPath::as_str);
    let needs = authorisation::needs(request.method(), path);
    if needs == Needs::Nothing {
        return next.run(request).await;
    }
    let identity = request.extensions().get::<Identity>();
    match who(&state.keys, identity, request.headers()).and_then(|(who, how)| allowed(needs, who, how)) {
        Ok((who, how)) => {
            state.metrics.authenticated(how);
            request.extensions_mut().insert(Who(who));
            next.run(request).await
        }
        Err(refusal) => {
            state.metrics.authenticated(refusal.outcome);
            refusal.problem.into_response()
        }
    }
}

struct Refusal {
    outcome: Authentication,
    problem: Box<Problem>,
}

type Known = (Arc<Principal>, Authentication);

fn who(keys: &Keys, identity: Option<&Identity>, headers: &HeaderMap) -> Result<Known, Refusal> {
    if let Some(Identity(name)) = identity {
        return keys.named(name).map(|who| (who, Authentication::Ok)).map_err(|denied| {
            refused(denied, format!("this address stands for the key `{name}`, which is not taken: {}", reason_of_identity(denied)))
        });
    }
    let Some(text) = credentials(headers)? else { return anonymous(keys) };
    match keys.authenticate(text) {
        Ok(who) => Ok((who, Authentication::Ok)),
        Err(Denied::Malformed) if !keys.required() => anonymous(keys),
        Err(Denied::Malformed) if text.is_empty() => Err(refused(
            Denied::Malformed,
            "the request bears a credential that is neither `Authorization: Bearer KEY` nor `x-api-key: KEY`".to_owned(),
        )),
        Err(denied) => Err(refused(denied, denied.to_string())),
    }
}

fn reason_of_identity(denied: Denied) -> &'static str {
    match denied {
        Denied::Expired => "it has expired",
        Denied::Revoked => "it was revoked",
        Denied::Unknown | Denied::Malformed => "there is no valid one of that name; `arriero keys create` makes one",
    }
}

fn anonymous(keys: &Keys) -> Result<Known, Refusal> {
    if keys.required() {
        let problem = Problem::new("credentials_missing", "the request bears no API key, and one is required");
        return Err(Refusal { outcome: Authentication::Missing, problem: Box::new(problem) });
    }
    Ok((keys.anonymous(), Authentication::Anonymous))
}

fn refused(denied: Denied, detail: String) -> Refusal {
    let outcome = match denied {
        Denied::Malformed => Authentication::Malformed,
        Denied::Unknown => Authentication::Unknown,
        Denied::Revoked => Authentication::Revoked,
        Denied::Expired => Authentication::Expired,
    };
    Refusal { outcome, problem: Box::new(Problem::new("credentials_invalid", detail)) }
}

fn allowed(needs: Needs, who: Arc<Principal>, how: Authentication) -> Result<Known, Refusal> {
    if needs.met_by(who.role) {
        return Ok((who, how));
    }
    let detail = format!("this is for the roles {}; the role of `{}` is {}", needs.in_words(), who.name, who.role.as_str());
    Err(Refusal { outcome: Authentication::Forbidden, problem: Box::new(Problem::new("forbidden", detail)) })
}

/// The one credential of a request. What is there but cannot be a key comes back as the empty text.
fn credentials(headers: &HeaderMap) -> Result<Option<&str>, Refusal> {
    let bearers = headers.get_all(header::AUTHORIZATION).iter().map(|value| value.to_str().ok().and_then(bearer));
    let plain = headers.get_all(API_KEY).iter().map(|value| value.to_str().ok().map(str::trim));
    let mut texts = bearers.chain(plain).map(Option::unwrap_or_default);
    let first = texts.next();
    if texts.any(|other| Some(other) != first) {
        let problem = Problem::new("credentials_conflict", "the request bears two different credentials");
        return Err(Refusal { outcome: Authentication::Conflict, problem: Box::new(problem) });
    }
    Ok(first)
}

fn bearer(value: &str) -> Option<&str> {
    let (scheme, text) = value.trim().split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| text.trim())
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn found(headers: &[(&'static str, &'static [u8])]) -> Result<Option<String>, &'static str> {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(*name, HeaderValue::from_bytes(value).expect("a value"));
        }
        credentials(&map).map(|text| text.map(str::to_owned)).map_err(|refusal| refusal.problem.code)
    }

    #[test]
    fn a_request_has_one_credential_however_it_is_sent() {
        assert_eq!(found(&[]), Ok(None));
        for headers in [
            &[("authorization", &b"Bearer a"[..])][..],
            &[("authorization", b"bEARER   a ")],
            &[("x-api-key", b" a ")],
            &[("authorization", b"Bearer a"), ("x-api-key", b"a")],
            &[("x-api-key", b"a"), ("x-api-key", b"a")],
        ] {
            assert_eq!(found(headers), Ok(Some("a".to_owned())), "{headers:?}");
        }
        for headers in [&[("authorization", &b"Basic a"[..])][..], &[("authorization", b"a")], &[("x-api-key", b"\xff")]] {
            assert_eq!(found(headers), Ok(Some(String::new())), "{headers:?}");
        }
        for headers in [
            &[("authorization", &b"Bearer a"[..]), ("x-api-key", &b"b"[..])][..],
            &[("authorization", b"Bearer a"), ("authorization", b"Bearer b")],
            &[("authorization", b"Basic a"), ("x-api-key", b"a")],
        ] {
            assert_eq!(found(headers), Err("credentials_conflict"), "{headers:?}");
        }
    }
}
