//! The shapes of the native API, as the OpenAPI document shows them.
//!
//! Requests are read field by field in [`super::convert`], so that each wrong field is reported by name; a test keeps the two equal.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;

use crate::domain::generation::{Change, NotApplied, Truncated};
use crate::domain::waiting::{Reason, Waiting};

/// What to generate. Fields that are not listed here travel to the backend.
#[derive(ToSchema)]
#[expect(dead_code, reason = "only its schema is used")]
#[schema(examples(json!({"prompt": "Why is the sky blue?", "stream": true})))]
pub struct GenerateRequest {
    /// Which model answers. Left out: the configured default, or the only one there is.
    pub model: Option<String>,
    /// What the model is to continue. Empty: the model is only loaded.
    pub prompt: Option<String>,
    /// Text after the gap, for models that fill in the middle.
    pub suffix: Option<String>,
    /// System text; replaces the model's own.
    pub system: Option<String>,
    /// Prompt template; replaces the model's own.
    pub template: Option<String>,
    /// `context` of an earlier answer, to go on from there.
    pub context: Option<Vec<u32>>,
    /// Images, base64 with padding, for models that see.
    pub images: Option<Vec<String>>,
    /// `"json"`, or a JSON Schema that the answer must satisfy.
    pub format: Option<Value>,
    /// Ollama's options: `temperature`, `num_predict`, `num_ctx`, `seed`, `stop`, …
    #[schema(value_type = Option<Object>)]
    pub options: Option<BTreeMap<String, Value>>,
    /// Whether the prompt goes to the model as it is, without a template.
    pub raw: Option<bool>,
    /// Whether, or how hard (`low`, `medium`, `high`, `max`), a thinking model thinks.
    pub think: Option<Value>,
    /// How long the model stays loaded: seconds, or a duration such as `"5m"`; negative: for ever; 0: not at all.
    pub keep_alive: Option<Value>,
    /// Whether an over-long prompt may be shortened. Left out: the backend's own habit.
    pub truncate: Option<bool>,
    /// Whether the answer comes as server-sent events while it is made (default false; `Accept: text/event-stream` does the same).
    pub stream: Option<bool>,
    /// `batch`, `low`, `normal`, `high` or `urgent`; the key's own ceiling holds.
    pub priority: Option<String>,
    /// How long the whole generation may take, waiting included, in milliseconds.
    pub deadline_ms: Option<u64>,
    /// Requests of one session stay where their prefix is warm.
    pub session: Option<String>,
    /// `default`, `bypass`, `refresh` or `only`.
    pub cache: Option<String>,
    /// Whether, or to which models in turn, to fall back when the model cannot answer.
    pub fallback: Option<Value>,
    /// Whether the generation goes on when the client leaves; its events can then be read again by the request's id (default false).
    pub detach: Option<bool>,
}

/// A whole answer: Ollama's final object, and what Arriero adds.
#[derive(Serialize, ToSchema)]
pub struct GenerateResponse {
    pub model: String,
    /// RFC 3339, UTC.
    pub created_at: String,
    /// The text. Empty in the `done` event of a stream, where it came before.
    pub response: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub thinking: String,
    pub done: bool,
    /// `stop`, `length`, `load` or `unload`.
    pub done_reason: String,
    /// Token ids of prompt and answer, to be given back as `context`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub context: Option<Vec<u32>>,
    /// Nanoseconds, as are all durations of the backend.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub total_duration: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub load_duration: Option<u64>,
    /// Tokens of the prompt.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prompt_eval_count: Option<u64>,
    /// Those of them that the backend's own cache held, where it says so.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prompt_eval_cached_count: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prompt_eval_duration: Option<u64>,
    /// Tokens generated.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub eval_count: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub eval_duration: Option<u64>,
    /// What the backend said beyond that.
    #[serde(flatten)]
    #[schema(ignore)]
    pub extra: serde_json::Map<String, Value>,
    pub arriero: About,
}

/// What Arriero says of an answer.
#[derive(Debug, Serialize, ToSchema)]
pub struct About {
    pub request_id: String,
    /// The backend that answered.
    pub backend: String,
    /// The model that answered.
    pub model: String,
    /// From the arrival of the request to its acceptance by the backend, in milliseconds.
    pub queued_ms: f64,
    /// From the arrival of the request to the first piece of the answer, in milliseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ttft_ms: Option<f64>,
    /// From the arrival of the request to its end, in milliseconds.
    pub total_ms: f64,
    /// Wishes of the request that were understood but not fulfilled.
    #[schema(value_type = Vec<NotAppliedField>)]
    pub not_applied: Vec<NotApplied>,
    /// What was changed in the request before a backend saw it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schema(value_type = Vec<ChangedField>)]
    pub changed: Vec<Change>,
    /// What the caches did.
    pub cache: CacheStatus,
    /// Which step of a fallback hierarchy answered.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fallback: Option<FallbackStatus>,
    /// Set when the prompt was longer than the context and was shortened, as `truncate` allowed.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<TruncatedPrompt>)]
    pub truncated: Option<Truncated>,
}

/// A wish of the request that was understood but not fulfilled.
#[derive(ToSchema)]
#[expect(dead_code, reason = "only its schema is used")]
pub struct NotAppliedField {
    pub field: String,
    pub why: String,
}

/// One thing that was changed in a request.
#[derive(ToSchema)]
#[expect(dead_code, reason = "only its schema is used")]
pub struct ChangedField {
    pub field: String,
    pub from: Value,
    pub to: Value,
    pub why: String,
}

/// What the caches did for an answer.
#[derive(Debug, Serialize, ToSchema)]
pub struct CacheStatus {
    /// `hit`, `semantic`, `joined`, `miss`, `refresh` or `bypass`.
    pub status: &'static str,
    /// Why, in a word from a closed set.
    pub why: &'static str,
    /// How old the answer is, in milliseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub age_ms: Option<u64>,
    /// How alike the questions are, from 0 to 1, for an answer to a question that is not the same.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub similarity: Option<f32>,
    /// The key under which the answer was found, by which it can be forgotten.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// Tokens of the prompt that the backend did not compute anew.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prompt_tokens: Option<u64>,
}

/// Which step of a fallback hierarchy answered, and why not an earlier one.
#[derive(Debug, Serialize, ToSchema)]
pub struct FallbackStatus {
    /// The name that was asked for.
    pub asked: String,
    /// 1 is the first.
    pub step: usize,
    pub why: String,
}

/// Data of a `queued` event: where a request that waits stands now.
#[derive(Serialize, ToSchema)]
pub struct Queued {
    /// 1 is next. It rises only when requests of a higher priority came.
    pub position: u32,
    /// `busy` (all slots are in use), `loading` (the model is being loaded) or `rate_limit` (the key's limit allows it later).
    #[schema(value_type = String)]
    pub reason: Reason,
    /// When it will be its turn, in milliseconds, as far as can be told.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub eta_ms: Option<u64>,
}

impl From<Waiting> for Queued {
    fn from(waiting: Waiting) -> Self {
        let milliseconds = |span: std::time::Duration| u64::try_from(span.as_millis()).unwrap_or(u64::MAX);
        Self { position: waiting.ahead.saturating_add(1), reason: waiting.reason, eta_ms: waiting.eta.map(milliseconds) }
    }
}

/// A generation that goes on, or has ended, without its client.
#[derive(Serialize, ToSchema)]
pub struct Detached {
    pub request_id: String,
    /// `running`
    pub state: &'static str,
    /// Events that have come so far.
    pub events: u64,
}

/// What became of a prompt that was too long.
#[derive(ToSchema)]
#[expect(dead_code, reason = "only its schema is used")]
pub struct TruncatedPrompt {
    pub prompt_tokens: u64,
    pub kept_tokens: u64,
}

/// Data of the `start` event.
#[derive(Serialize, ToSchema)]
pub struct Start<'a> {
    pub request_id: &'a str,
    pub backend: &'a str,
    pub model: &'a str,
}

/// Data of a `token` event.
#[derive(Serialize, ToSchema)]
pub struct Token<'a> {
    #[serde(skip_serializing_if = "str::is_empty")]
    pub text: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    pub thinking: &'a str,
    /// What the backend said beyond that (log probabilities, …).
    #[serde(flatten)]
    #[schema(ignore)]
    pub extra: &'a serde_json::Map<String, Value>,
}

/// What can be asked for now.
#[derive(Serialize, ToSchema)]
pub struct ModelList {
    pub models: Vec<Model>,
    /// Names that stand for models, one after the other.
    pub aliases: Vec<Alias>,
    /// Backends that could not be asked, each with the reason.
    pub unavailable: Vec<Unavailable>,
}

/// One model on one backend.
#[derive(Serialize, ToSchema)]
pub struct Model {
    pub name: String,
    pub backend: String,
    /// `ollama` or `embedded`.
    pub backend_kind: String,
    /// Whether the backend answered its last check.
    pub available: bool,
    pub family: Option<String>,
    /// Number of weights.
    pub parameters: Option<u64>,
    /// E.g. `Q4_K_M`.
    pub quantization: Option<String>,
    /// In tokens.
    pub context_length: Option<u32>,
    pub size_bytes: Option<u64>,
    pub digest: Option<String>,
    /// Whether the weights are in memory now.
    pub loaded: bool,
}

/// A name that stands for models.
#[derive(Serialize, ToSchema)]
pub struct Alias {
    pub name: String,
    /// In the order in which they are tried.
    pub models: Vec<String>,
}

/// A backend that could not be asked.
#[derive(Serialize, ToSchema)]
pub struct Unavailable {
    pub backend: String,
    pub reason: String,
}
