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
use super::middleware::rate_limit;
use crate::domain::blame::{Blame, Retry};
use crate::domain::id::RequestId;
use crate::gateway::{self, BackendError};
use crate::limits::{self, Kind};

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
    row(
        "credentials_missing",
        StatusCode::UNAUTHORIZED,
        "An API key is required",
        "Send a key as `Authorization: Bearer KEY` or `x-api-key: KEY`; whoever runs this gateway makes one with `arriero keys create`.",
    ),
    row(
        "credentials_invalid",
        StatusCode::UNAUTHORIZED,
        "The API key is not taken",
        "Check the key; whoever runs this gateway makes a new one with `arriero keys create` or `arriero keys rotate`.",
    ),
    row(
        "credentials_conflict",
        StatusCode::BAD_REQUEST,
        "The request bears two different credentials",
        "Send one key, in `Authorization: Bearer` or in `x-api-key`.",
    ),
    row(
        "forbidden",
        StatusCode::FORBIDDEN,
        "The role is not enough",
        "Use a key of a role that the detail names; where no key is needed, `auth.anonymous.role` is the role. A first key is made with \
         `arriero keys create --role admin` while the gateway is stopped.",
    ),
    row("key_not_found", StatusCode::NOT_FOUND, "There is no such key", "GET /admin/keys lists all keys."),
    row("key_name_taken", StatusCode::CONFLICT, "Another key has this name", "Choose another name, or revoke the other key."),
    row("key_revoked", StatusCode::CONFLICT, "The key was revoked", "Make a new key: a revoked one stays so."),
    row(
        "too_many_keys",
        StatusCode::INSUFFICIENT_STORAGE,
        "There are as many keys as allowed",
        "Revoke a key that is not needed, or raise `auth.max_keys`.",
    ),
    row(
        "not_stored",
        StatusCode::INSUFFICIENT_STORAGE,
        "The database cannot be written",
        "Make room on the disk; Arriero's log says more.",
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
    row(
        "rate_limited",
        StatusCode::TOO_MANY_REQUESTS,
        "A rate is used up",
        "Send the same request again after `retry-after` seconds; `ratelimit` says what is left. GET /admin/limits shows all.",
    ),
    row(
        "concurrency_limited",
        StatusCode::TOO_MANY_REQUESTS,
        "As many requests run as may at the same time",
        "Wait until one of the running requests has ended.",
    ),
    row(
        "budget_exhausted",
        StatusCode::TOO_MANY_REQUESTS,
        "What is left of a budget of tokens is too little",
        "Ask for less with `options.num_predict`, wait for the next day or month (UTC), or have the budget raised.",
    ),
    row(
        "above_maximum",
        StatusCode::UNPROCESSABLE_ENTITY,
        "The request asks for more than it may at once",
        "Stay within `limit`, or have the bound raised.",
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
    row(
        "wedged",
        StatusCode::SERVICE_UNAVAILABLE,
        "The backend is stuck on this model",
        "Try again after `retry-after` seconds, or name another model; a cure is being tried. If it lasts, restart the backend.",
    ),
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
    row(
        "model_forbidden",
        StatusCode::FORBIDDEN,
        "The key may not use the model",
        "Ask for a model of the key's own, or have an administrator allow it.",
    ),
    row(
        "unload_forbidden",
        StatusCode::FORBIDDEN,
        "Only an operator unloads a model for all its users",
        "Leave `keep_alive: 0` out, or use an operator's key.",
    ),
    row("warm_prompt_not_found", StatusCode::NOT_FOUND, "No such prompt is kept warm", "GET /admin/cache/warm lists those that are."),
    row("key_ended", StatusCode::UNAUTHORIZED, "The key was revoked or has expired", "Ask an administrator for a new key."),
    row("too_slow", StatusCode::GATEWAY_TIMEOUT, "The backend took too long", "Try again, ask for less, or raise `routing.timeouts`."),
    row(
        "generation_not_found",
        StatusCode::NOT_FOUND,
        "No such generation is kept",
        "Only generations with `detach`, or within `generation.kept.resume_window`, are kept, for a while.",
    ),
    row("resume_gone", StatusCode::GONE, "What would be sent again is no longer kept", "Ask anew."),
    row("id_in_use", StatusCode::CONFLICT, "The request id is in use", "Send another `x-request-id`, or none."),
    row(
        "too_many_kept",
        StatusCode::SERVICE_UNAVAILABLE,
        "Too many generations are kept",
        "Read or stop those that are kept, or try again after `retry-after` seconds.",
    ),
    row(
        "not_cached",
        StatusCode::GATEWAY_TIMEOUT,
        "The answer is not in the cache",
        "Leave `cache` out, or set it to \"default\", to have the answer computed.",
    ),
    row(
        "invalid_configuration",
        StatusCode::UNPROCESSABLE_ENTITY,
        "The new configuration is wrong",
        "Correct what `problems` lists (`arriero config check` tells the same); the old configuration stays in force.",
    ),
    row(
        "too_many_warm",
        StatusCode::INSUFFICIENT_STORAGE,
        "Too many prompts are kept warm",
        "Take one off, or raise `cache.warm.max_prompts`.",
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
