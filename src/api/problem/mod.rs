//! The one place that knows both errors and HTTP: a table from code to status, and `application/problem+json` (RFC 9457).
//!
//! `detail` is for the client; causes are logged once, where they are turned into a problem.

mod jobs;
mod table;

use std::time::Duration;

use axum::response::{IntoResponse, Response};
use http::{HeaderValue, StatusCode, header};
use serde::Serialize;
use serde_json::{Map, Value};
use utoipa::ToSchema;

use super::body;
use super::fields::FieldProblem;
use super::middleware::rate_limit;
use crate::domain::blame::{Blame, Retry};
use crate::domain::id::RequestId;
use crate::gateway::{self, BackendError};
use crate::limits::{self, Kind};

pub use table::TABLE;

/// What every answer that is no success looks like.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct Problem {
    /// `urn:arriero:problem:` and the code.
    #[serde(rename = "type")]
    pub kind: String,
    /// What kind of problem it is, always the same for a code.
    pub title: &'static str,
    /// The HTTP status, also where the problem comes inside a stream that began with 200.
    pub status: u16,
    /// Stable name of the problem, for programs.
    pub code: &'static str,
    /// What failed and why, this time.
    pub detail: String,
    /// What to do.
    #[serde(skip_serializing_if = "str::is_empty")]
    pub hint: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub request_id: Option<String>,
    /// After how many seconds to try again.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retry_after_seconds: Option<u64>,
    /// The fields that are wrong.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub errors: Vec<FieldProblem>,
    /// More, by code: `near` names of models, the numbers of a context that is too long, …
    #[serde(flatten)]
    pub more: Map<String, Value>,
    /// The limit in the way, for the headers.
    #[serde(skip)]
    #[schema(ignore)]
    pub standing: Option<Box<limits::Standing>>,
}

/// How long a client is asked to stay away when nothing better is known.
const RETRY_AFTER: Duration = Duration::from_secs(1);

impl Problem {
    /// # Panics
    /// Never for a code of [`TABLE`]; an unknown one is the row `internal`.
    pub fn new(code: &str, detail: impl Into<String>) -> Self {
        let row = TABLE.iter().find(|row| row.code == code).unwrap_or(&TABLE[TABLE.len() - 1]);
        let mut problem = Self {
            kind: format!("urn:arriero:problem:{}", row.code),
            title: row.title,
            status: row.status.as_u16(),
            code: row.code,
            detail: detail.into(),
            hint: row.hint,
            request_id: None,
            retry_after_seconds: None,
            errors: Vec::new(),
            more: Map::new(),
            standing: None,
        };
        if row.status == StatusCode::SERVICE_UNAVAILABLE {
            problem.retry_after(RETRY_AFTER);
        }
        problem
    }

    pub fn fields(errors: Vec<FieldProblem>) -> Self {
        let named: Vec<String> = errors.iter().map(|e| format!("`{}` takes {}, not {}", e.field, e.takes, e.got)).collect();
        let mut problem = Self::new("invalid_field", named.join("; "));
        problem.errors = errors;
        problem
    }

    #[must_use]
    pub fn of_request(mut self, id: &RequestId) -> Self {
        self.request_id = Some(id.to_string());
        self
    }

    fn retry_after(&mut self, after: Duration) {
        self.retry_after_seconds = Some(after.as_secs() + u64::from(after.subsec_nanos() > 0));
    }

    #[must_use]
    pub fn with(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.more.insert(name.to_owned(), value.into());
        self
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let body = serde_json::to_vec(&self).unwrap_or_default();
        let mut response = (status, body).into_response();
        response.extensions_mut().insert(Unsigned(self.clone()));
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        if status == StatusCode::UNAUTHORIZED {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer realm=\"arriero\""));
        }
        if let Some(seconds) = self.retry_after_seconds {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        if let Some(standing) = &self.standing {
            rate_limit::write(headers, standing);
        }
        response
    }
}

/// A problem on its way out that does not say yet which request it belongs to. Set beside each answer that is a problem, so that
/// the layer that knows the request's id can write it again with it.
#[derive(Clone)]
pub struct Unsigned(pub Problem);

impl From<gateway::Error> for Problem {
    fn from(error: gateway::Error) -> Self {
        if error.blame() != Blame::Client {
            tracing::warn!(kind = error.kind(), %error, "a generation failed");
        }
        Self::of_generation(&error)
    }
}

impl Problem {
    fn of_generation(error: &gateway::Error) -> Self {
        if let gateway::Error::Shared(error) = error {
            return Self::of_generation(error);
        }
        if let gateway::Error::Limited(refusal) = error {
            return refusal.clone().into();
        }
        let mut problem = Self::new(error.kind(), error.to_string());
        if let Retry::After(after) = error.retry() {
            problem.retry_after(after);
        }
        match error {
            gateway::Error::ModelNotFound { near, unasked, .. } => {
                let problem = problem.with("near", near.clone());
                if unasked.is_empty() { problem } else { problem.with("unasked", unasked.clone()) }
            }
            gateway::Error::ModelMissing { known } => problem.with("known", known.clone()),
            gateway::Error::ModelForbidden { allowed, .. } => problem.with("allowed", allowed.clone()),
            gateway::Error::NoBackend { reasons } => problem.with("reasons", reasons.clone()),
            gateway::Error::ModelUnasked { unasked, .. } => problem.with("reasons", unasked.clone()),
            gateway::Error::ResumeGone { missing } => problem.with("missing", *missing),
            gateway::Error::Backend { backend, source } => problem.with("backend", backend.clone()).of_backend(source),
            _ => problem,
        }
    }
}

impl Problem {
    /// What only some failures of a backend have to say.
    fn of_backend(mut self, error: &BackendError) -> Self {
        if let Retry::After(after) = error.retry() {
            self.retry_after(after);
        }
        match *error {
            BackendError::ContextTooLong { prompt_tokens, context_tokens } => {
                self.with("prompt_tokens", prompt_tokens).with("context_tokens", context_tokens)
            }
            BackendError::OutOfMemory { needed_bytes, available_bytes } => {
                self.with("needed_bytes", needed_bytes).with("available_bytes", available_bytes)
            }
            BackendError::Unsupported { field, .. } => self.with("field", field),
            BackendError::Refused { status, .. } | BackendError::Failed { status: Some(status), .. } => {
                self.with("upstream_status", status)
            }
            _ => self,
        }
    }
}

impl From<limits::Refusal> for Problem {
    fn from(refusal: limits::Refusal) -> Self {
        let code = match refusal.kind {
            Kind::AddressRate | Kind::RequestRate | Kind::PromptTokensRate | Kind::GeneratedTokensRate => "rate_limited",
            Kind::Concurrency => "concurrency_limited",
            Kind::DailyBudget | Kind::MonthlyBudget => "budget_exhausted",
            Kind::PromptTooLarge | Kind::NumPredictTooLarge | Kind::NumCtxTooLarge => "above_maximum",
        };
        let mut problem = Self::new(code, refusal.detail())
            .with("kind", refusal.kind.as_str())
            .with("scope", refusal.scope.as_str())
            .with("limit", refusal.limit)
            .with("remaining", refusal.remaining);
        if let Some(after) = refusal.retry_after {
            problem.retry_after(after);
        }
        problem.standing = Some(Box::new(refusal.standing));
        problem
    }
}

impl From<body::Error> for Problem {
    fn from(error: body::Error) -> Self {
        let code = match error {
            body::Error::TooLarge { .. } => "body_too_large",
            body::Error::TooSlow { .. } => "body_too_slow",
            body::Error::Broken(_) => "malformed_body",
        };
        Self::new(code, error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn codes_are_unique_and_every_one_says_what_to_do() {
        let codes: BTreeSet<_> = TABLE.iter().map(|row| row.code).collect();
        assert_eq!(codes.len(), TABLE.len());
        for row in TABLE {
            assert!(row.status.as_u16() >= 400 && !row.title.is_empty() && row.hint.ends_with('.'), "{}", row.code);
        }
    }

    #[test]
    fn a_failure_of_the_gateway_keeps_its_own_code() {
        let of = |source| Problem::from(gateway::Error::Backend { backend: "b".into(), source });
        let busy = of(BackendError::Overloaded { message: "full".into(), retry_after: Some(Duration::from_millis(2100)) });
        assert_eq!((busy.code, busy.status, busy.retry_after_seconds), ("overloaded", 503, Some(3)));
        let long = of(BackendError::ContextTooLong { prompt_tokens: 12, context_tokens: 10 });
        assert_eq!((long.code, long.status, long.more["prompt_tokens"].as_u64()), ("context_too_long", 422, Some(12)));
        assert_eq!(of(BackendError::Closed).retry_after_seconds, Some(1));
    }

    #[tokio::test]
    async fn a_limit_says_in_headers_and_body_what_it_is_and_when_to_come_back() {
        let folder = tempfile::tempdir().expect("a folder");
        let storage = crate::storage::Storage::open(folder.path(), &crate::storage::Config::default()).await.expect("opened");
        let address = limits::Address { requests_per_second: Some(2), burst: Some(1), ..limits::Address::default() };
        let config = limits::Config { address, ..limits::Config::default() };
        let clock = crate::domain::clock::Clock::fake(0);
        let (limits, _) = limits::Limits::new(config, &storage, crate::telemetry::Metrics::default(), clock).await.expect("loaded");
        limits.address([127, 0, 0, 1].into()).expect("the first");
        let problem = Problem::from(limits.address([127, 0, 0, 1].into()).expect_err("the second"));
        assert_eq!((problem.code, problem.status, problem.retry_after_seconds), ("rate_limited", 429, Some(1)));
        assert_eq!((&problem.more["kind"], &problem.more["limit"]), (&Value::from("address_rate"), &Value::from(1)));
        let response = problem.into_response();
        let header = |name: &str| response.headers()[name].to_str().expect("text").to_owned();
        assert_eq!((header("retry-after"), header("ratelimit-remaining")), ("1".to_owned(), "0".to_owned()));
        assert_eq!(header("ratelimit-policy"), "\"address-requests-per-second\";q=1;w=1");
    }

    #[test]
    fn every_kind_of_failure_has_its_row() {
        let failures = [
            BackendError::ModelNotFound { model: String::new() },
            BackendError::Refused { status: 400, message: String::new() },
            BackendError::Unsupported { field: "format", why: String::new() },
            BackendError::ContextTooLong { prompt_tokens: 0, context_tokens: 0 },
            BackendError::OutOfMemory { needed_bytes: 0, available_bytes: 0 },
            BackendError::Unreachable { message: String::new() },
            BackendError::Overloaded { message: String::new(), retry_after: None },
            BackendError::Failed { status: None, message: String::new() },
            BackendError::Protocol { message: String::new() },
            BackendError::Stalled { stage: "x", silent: Duration::ZERO },
            BackendError::Wedged { model: String::new(), why: String::new() },
            BackendError::Closed,
        ];
        for failure in failures {
            assert!(TABLE.iter().any(|row| row.code == failure.kind()), "{}", failure.kind());
        }
    }
}
