//! The one place that knows both errors and HTTP: a table from code to status, and `application/problem+json` (RFC 9457).
//!
//! `detail` is for the client; causes are logged once, where they are turned into a problem.

use std::time::Duration;

use axum::response::{IntoResponse, Response};
use http::{HeaderValue, StatusCode, header};
use serde::Serialize;
use serde_json::{Map, Value};
use utoipa::ToSchema;

use super::body;
use super::fields::FieldProblem;
use crate::domain::blame::{Blame, Retry};
use crate::domain::id::RequestId;
use crate::gateway::{self, BackendError};

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
}

/// A row of the table: code, status, title, what to do.
pub struct Row {
    pub code: &'static str,
    pub status: StatusCode,
    pub title: &'static str,
    pub hint: &'static str,
}

const fn row(code: &'static str, status: StatusCode, title: &'static str, hint: &'static str) -> Row {
    Row { code, status, title, hint }
}

/// Every problem there is. `docs/errors.md` shows the same table.
pub const TABLE: &[Row] = &[
    row(
        "malformed_request",
        StatusCode::BAD_REQUEST,
        "The request is not well-formed HTTP",
        "Send one Host header, one framing of the body and a plain path.",
    ),
    row(
        "malformed_body",
        StatusCode::BAD_REQUEST,
        "The body is not a JSON object",
        "Send a JSON object, in UTF-8, nested at most 127 levels deep.",
    ),
    row("invalid_field", StatusCode::UNPROCESSABLE_ENTITY, "A field has a value it does not take", "Correct the fields named in `errors`."),
    row(
        "model_missing",
        StatusCode::UNPROCESSABLE_ENTITY,
        "No model is named and there is no default",
        "Name a `model` (GET /models lists them), or set `generation.default_model`.",
    ),
    row(
        "model_not_found",
        StatusCode::NOT_FOUND,
        "No backend has the model",
        "GET /models lists what can be asked for; on Ollama, `ollama pull` brings a new model.",
    ),
    row("not_found", StatusCode::NOT_FOUND, "There is nothing at this path", "GET /openapi.json lists all paths."),
    row(
        "method_not_allowed",
        StatusCode::METHOD_NOT_ALLOWED,
        "The path does not take this method",
        "The `allow` header lists the methods it takes.",
    ),
    row("body_too_large", StatusCode::PAYLOAD_TOO_LARGE, "The body is too large", "Send less, or raise `api.body.max_bytes`."),
    row("body_too_slow", StatusCode::REQUEST_TIMEOUT, "The body came too slowly", "Send the body without long pauses."),
    row("refused", StatusCode::BAD_REQUEST, "The backend refused the request", "Change what the detail names."),
    row(
        "unsupported",
        StatusCode::UNPROCESSABLE_ENTITY,
        "The backend cannot honour a field",
        "Leave the field out, or ask a backend that can.",
    ),
    row(
        "context_too_long",
        StatusCode::UNPROCESSABLE_ENTITY,
        "The prompt does not fit the context",
        "Shorten the prompt, raise `options.num_ctx` where the model allows, or set `truncate` to true.",
    ),
    row(
        "out_of_memory",
        StatusCode::SERVICE_UNAVAILABLE,
        "The model does not fit into memory",
        "Free memory, ask for a smaller `num_ctx`, or use a smaller model.",
    ),
    row(
        "unreachable",
        StatusCode::BAD_GATEWAY,
        "The backend cannot be reached",
        "Check that Ollama runs and that its URL is right: `arriero doctor`.",
    ),
    row("overloaded", StatusCode::SERVICE_UNAVAILABLE, "The backend is overloaded", "Try again after `retry-after` seconds."),
    row("failed", StatusCode::BAD_GATEWAY, "The backend failed", "Try again; if it lasts, look at the backend's log."),
    row(
        "protocol",
        StatusCode::BAD_GATEWAY,
        "The backend's answer is broken or incomplete",
        "Try again; check that the URL is an Ollama's and that it has not crashed.",
    ),
    row("stalled", StatusCode::GATEWAY_TIMEOUT, "The backend fell silent", "Try again; if it lasts, restart the backend."),
    row("deadline", StatusCode::GATEWAY_TIMEOUT, "The deadline passed", "Ask for less, or allow more time in `deadline_ms`."),
    row("deadline_too_long", StatusCode::UNPROCESSABLE_ENTITY, "The deadline is longer than allowed", "Ask for a shorter `deadline_ms`."),
    row(
        "answer_too_large",
        StatusCode::INSUFFICIENT_STORAGE,
        "The answer outgrew what is collected for one",
        "Set `stream` to true, or bound the answer with `options.num_predict`.",
    ),
    row(
        "queue_full",
        StatusCode::SERVICE_UNAVAILABLE,
        "Too many requests wait",
        "Try again after `retry-after` seconds; `queue.max_waiting` and `queue.max_waiting_bytes` are the bounds.",
    ),
    row(
        "queue_too_long",
        StatusCode::SERVICE_UNAVAILABLE,
        "The wait would be too long",
        "Try again after `retry-after` seconds, or allow more time in `deadline_ms`.",
    ),
    row(
        "queue_expired",
        StatusCode::SERVICE_UNAVAILABLE,
        "No slot fell free in time",
        "Try again later, allow more time in `deadline_ms`, or raise `queue.patience`.",
    ),
    row("displaced", StatusCode::SERVICE_UNAVAILABLE, "An urgent request took the place", "Try again after `retry-after` seconds."),
    row(
        "no_backend",
        StatusCode::SERVICE_UNAVAILABLE,
        "No backend is there to serve the request",
        "Configure a backend that has the model: `arriero doctor` shows those there are.",
    ),
    row("closed", StatusCode::SERVICE_UNAVAILABLE, "Arriero is shutting down", "Try again after `retry-after` seconds."),
    row("internal", StatusCode::INTERNAL_SERVER_ERROR, "Arriero failed", "This is a defect: please report it with the request id."),
];

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

    fn with(mut self, name: &str, value: impl Into<Value>) -> Self {
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
        if let Some(seconds) = self.retry_after_seconds {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
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
        let problem = Self::new(error.kind(), error.to_string());
        match error {
            gateway::Error::ModelNotFound { near, unasked, .. } => {
                let problem = problem.with("near", near);
                if unasked.is_empty() { problem } else { problem.with("unasked", unasked) }
            }
            gateway::Error::ModelMissing { known } => problem.with("known", known),
            gateway::Error::NoBackend { reasons } => problem.with("reasons", reasons),
            gateway::Error::Backend { backend, source } => problem.with("backend", backend).of_backend(&source),
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
            BackendError::Closed,
        ];
        for failure in failures {
            assert!(TABLE.iter().any(|row| row.code == failure.kind()), "{}", failure.kind());
        }
    }
}
