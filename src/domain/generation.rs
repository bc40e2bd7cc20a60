//! The waist: what every dialect is translated into and every backend is asked with, and what comes back.
//!
//! Both directions carry what the project does not understand: unknown fields travel in `extra`, untouched.

use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::id::{ModelName, RequestId};
use super::options::Options;
use super::principal::Principal;

/// What is asked of a model, whoever asks and whichever model it will be.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Ask {
    pub prompt: Prompt,
    pub options: Options,
    pub format: Option<Format>,
    pub think: Option<Think>,
    pub keep_alive: Option<KeepAlive>,
    /// Whether an over-long prompt may be shortened. `None`: the client did not say.
    pub truncate: Option<bool>,
    /// Fields that only the backend may know.
    pub extra: Map<String, Value>,
}

/// One generation, ready to be asked of a backend.
#[derive(Debug, Clone)]
pub struct Request {
    pub id: RequestId,
    /// The model as the client (or the configured default) spells it.
    pub model: ModelName,
    pub ask: Ask,
    /// When the whole generation, waiting included, must be over.
    pub deadline: Option<Instant>,
}

impl Request {
    /// A request of its own, not a client's: for checks, warming and tests.
    #[must_use]
    pub fn new(model: ModelName, prompt: Prompt) -> Self {
        Self { id: RequestId::generate(), model, ask: Ask { prompt, ..Ask::default() }, deadline: None }
    }
}

/// A generation as a client asks for it, before it is known which model a missing name means and when its time is up.
#[derive(Debug, Clone)]
pub struct Draft {
    pub id: RequestId,
    /// The dialect it was asked in, for logs and metrics.
    pub dialect: Dialect,
    /// Who asks.
    pub principal: Arc<Principal>,
    pub model: Option<ModelName>,
    pub ask: Ask,
    /// How long the whole generation may take, waiting included.
    pub deadline: Option<Duration>,
    /// Whether the client reads the answer while it is made.
    pub streamed: bool,
    pub control: Control,
}

/// The languages clients speak.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dialect {
    Native,
}

impl Dialect {
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Native => "native",
        }
    }
}

/// What the model is to continue.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Prompt {
    pub text: String,
    /// Text after the gap, for models that fill in the middle.
    pub suffix: Option<String>,
    pub system: Option<String>,
    /// Replaces the model's own template.
    pub template: Option<String>,
    /// Token ids of an earlier answer, to go on from there.
    pub context: Vec<u32>,
    /// Images, base64 with padding.
    pub images: Vec<String>,
    /// The text goes to the model as it is, without a template.
    pub raw: bool,
}

/// The shape the answer must have.
#[derive(Debug, Clone, PartialEq)]
pub enum Format {
    /// Any JSON value.
    Json,
    /// JSON that satisfies this schema.
    Schema(Map<String, Value>),
}

impl Format {
    /// As Ollama writes it.
    #[must_use]
    pub fn to_value(&self) -> Value {
        match self {
            Self::Json => Value::String("json".to_owned()),
            Self::Schema(schema) => Value::Object(schema.clone()),
        }
    }
}

/// Whether, and how long, a thinking model thinks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Effort {
    Low,
    Medium,
    High,
    Max,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Think {
    Switch(bool),
    Effort(Effort),
}

/// How long a model stays loaded after an answer, exactly as the client wrote it (a number of seconds, or a duration such as `"5m"`).
#[derive(Debug, Clone, PartialEq)]
pub struct KeepAlive(pub Value);

/// How the gateway is to treat a request. None of it reaches a backend.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Control {
    pub priority: Option<Priority>,
    /// Requests of one session stay where their prefix is warm.
    pub session: Option<String>,
    pub cache: Option<CacheMode>,
    pub fallback: Option<Fallback>,
    /// The generation goes on when its client leaves, and can be read again by its id.
    pub detach: bool,
    /// The exchange may be collected, as far as configuration and key allow that. Only a client's request says so.
    pub collect: bool,
}

/// Which requests go first. Declared from the last to the first, so that a greater one goes before a smaller one.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Priority {
    Batch,
    Low,
    #[default]
    Normal,
    High,
    Urgent,
}

impl Priority {
    /// From the last to the first.
    pub const ALL: [Self; 5] = [Self::Batch, Self::Low, Self::Normal, Self::High, Self::Urgent];

    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Batch => "batch",
            Self::Low => "low",
            Self::Normal => "normal",
            Self::High => "high",
            Self::Urgent => "urgent",
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CacheMode {
    Default,
    Bypass,
    Refresh,
    Only,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Fallback {
    Switch(bool),
    Models(Vec<ModelName>),
}

/// One thing a backend says while it generates. After [`Event::Done`] nothing follows.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    Delta(Delta),
    Done(Box<Finish>),
}

/// One piece of the answer.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Delta {
    pub text: String,
    pub thinking: String,
    /// Fields that this version does not know (log probabilities, tool calls, …).
    pub extra: Map<String, Value>,
}

/// How a generation ended and what it cost.
#[derive(Debug, Clone, PartialEq)]
pub struct Finish {
    pub reason: FinishReason,
    /// Token ids of prompt and answer, to be given back as [`Prompt::context`].
    pub context: Option<Vec<u32>>,
    pub usage: Usage,
    pub timing: Timing,
    pub remarks: Remarks,
    /// Fields that this version does not know.
    pub extra: Map<String, Value>,
}

/// What a client should know of how its request was treated.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Remarks {
    /// Wishes that were understood but not fulfilled.
    pub not_applied: Vec<NotApplied>,
    /// The prompt was longer than the context, and was shortened because the client allowed it.
    pub truncated: Option<Truncated>,
    /// What the gateway changed in the request before a backend saw it.
    pub changed: Vec<Change>,
}

/// One thing that the gateway changed in a request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Change {
    /// Name of the field, with a dot before a name inside an object.
    pub field: String,
    /// `null`: it was not given, or it was taken out.
    pub from: Value,
    pub to: Value,
    pub why: &'static str,
}

/// A wish of a request that was understood but not fulfilled.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct NotApplied {
    /// Name of the field, with a dot before a name inside an object.
    pub field: String,
    pub why: &'static str,
}

/// What became of a prompt that was too long.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Truncated {
    /// Tokens it had.
    pub prompt_tokens: u64,
    /// Tokens that were kept.
    pub kept_tokens: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum FinishReason {
    /// The model said that it is done, or a stop string appeared.
    Stop,
    /// The bound on generated tokens, or the context, was reached.
    Length,
    /// Nothing was asked but to load the model.
    Load,
    /// Nothing was asked but to unload the model.
    Unload,
    /// A reason this version does not know.
    #[serde(untagged)]
    Other(String),
}

/// Tokens of one generation. `None` where the backend does not say.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Usage {
    pub prompt_tokens: Option<u64>,
    /// Tokens of the prompt that were not computed anew because a cache of the backend held them; part of `prompt_tokens`.
    pub cached_tokens: Option<u64>,
    pub completion_tokens: Option<u64>,
}

/// Durations of one generation, as the backend measured them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Timing {
    pub total: Option<Duration>,
    pub load: Option<Duration>,
    pub prompt_eval: Option<Duration>,
    pub eval: Option<Duration>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_finish_reason_survives() {
        let reason: FinishReason = serde_json::from_str("\"tired\"").expect("any string is a reason");
        assert_eq!(reason, FinishReason::Other("tired".into()));
        assert_eq!(serde_json::to_string(&reason).expect("serialises"), "\"tired\"");
        assert_eq!(serde_json::from_str::<FinishReason>("\"stop\"").expect("known"), FinishReason::Stop);
    }

    #[test]
    fn think_and_fallback_take_both_of_their_forms() {
        assert_eq!(serde_json::from_str::<Think>("true").expect("bool"), Think::Switch(true));
        assert_eq!(serde_json::from_str::<Think>("\"max\"").expect("word"), Think::Effort(Effort::Max));
        assert!(serde_json::from_str::<Think>("\"maybe\"").is_err());
        assert_eq!(serde_json::from_str::<Fallback>("false").expect("bool"), Fallback::Switch(false));
        assert!(matches!(serde_json::from_str::<Fallback>("[\"a\",\"b\"]"), Ok(Fallback::Models(m)) if m.len() == 2));
    }
}
