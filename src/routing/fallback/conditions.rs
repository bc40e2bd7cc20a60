//! When a step is entered: what is configured, what is known, and how the two are put together.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::simplify::estimate_tokens;
use super::table::{ANY_TROUBLE, Part, TABLE, Verdict};
use crate::domain::blame::Retry;
use crate::domain::generation::Ask;

/// The conditions of one step. What is not given is not asked for. The rows of [`TABLE`] say what each means.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct When {
    pub errors: Vec<ErrorKind>,
    #[serde(with = "crate::domain::span::option")]
    pub queue_wait_over: Option<Duration>,
    #[serde(with = "crate::domain::span::option")]
    pub ttft_over: Option<Duration>,
    /// Share of the memory in use, 0 to 1.
    pub memory_pressure_over: Option<f64>,
    /// Degrees Celsius.
    pub heat_over: Option<f64>,
    pub context_too_long: bool,
    pub prompt_tokens_over: Option<u64>,
    pub prompt_tokens_under: Option<u64>,
    pub predict_over: Option<u64>,
    pub images: Option<bool>,
    pub tools: Option<bool>,
}

macro_rules! error_kinds {
    ($($name:ident = $word:literal),* $(,)?) => {
        /// What can go wrong with an attempt, in the words of errors and metrics.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
        pub enum ErrorKind { $(#[serde(rename = $word)] $name),* }

        impl ErrorKind {
            pub const ALL: &[Self] = &[$(Self::$name),*];

            #[must_use]
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$name => $word),* }
            }
        }
    };
}

error_kinds! {
    ModelNotFound = "model_not_found",
    Refused = "refused",
    Unsupported = "unsupported",
    ContextTooLong = "context_too_long",
    OutOfMemory = "out_of_memory",
    Unreachable = "unreachable",
    Overloaded = "overloaded",
    Failed = "failed",
    Protocol = "protocol",
    Stalled = "stalled",
    Wedged = "wedged",
    Closed = "closed",
}

/// What is known before or while a request is served. What is not known holds for no condition.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Facts {
    // Of the request.
    /// Tokens of the whole prompt, system prompt and history included, as far as can be told.
    pub prompt_tokens: Option<u64>,
    /// Tokens that are asked for; `None`: no bound.
    pub predict: Option<u64>,
    pub images: bool,
    pub tools: bool,
    // Of the step that it stands at.
    /// Context of the model, in tokens.
    pub context_tokens: Option<u64>,
    /// The wait for a slot that is predicted.
    pub queue_wait: Option<Duration>,
    /// The time to the first token that is expected.
    pub ttft: Option<Duration>,
    // Of the machine.
    pub pressure: Pressure,
}

/// How hard-pressed the machine is. Without sensors nothing is known, and no condition on it holds.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Pressure {
    /// Share of the memory that models live in, 0 to 1.
    pub memory: Option<f64>,
    /// The hottest part, in degrees Celsius.
    pub heat: Option<f64>,
}

impl Facts {
    /// What can be read off a request. The tokens are estimates.
    #[must_use]
    pub fn of(ask: &Ask) -> Self {
        let prompt = &ask.prompt;
        let texts = [Some(&prompt.text), prompt.system.as_ref(), prompt.suffix.as_ref()];
        let text_tokens: u64 = texts.into_iter().flatten().map(|text| estimate_tokens(text)).sum();
        let tools = ask.extra.get("tools").and_then(serde_json::Value::as_array).is_some_and(|tools| !tools.is_empty());
        Self {
            prompt_tokens: Some(text_tokens + prompt.context.len() as u64),
            predict: ask.options.num_predict.and_then(|n| u64::try_from(n).ok()).filter(|n| *n > 0),
            images: !prompt.images.is_empty(),
            tools,
            ..Self::default()
        }
    }

    /// Without what is known only of the step it stands at.
    #[must_use]
    pub(super) fn elsewhere(self) -> Self {
        Self { context_tokens: None, queue_wait: None, ttft: None, ..self }
    }
}

/// Why a step did not serve, or not in time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trouble {
    /// All attempts failed. `kind`: what `backends::Error::kind` says.
    Failed { kind: &'static str, retry: Retry },
    /// It has waited this long for a slot.
    QueueWait(Duration),
    /// It has waited this long for the first token.
    FirstToken(Duration),
}

impl Trouble {
    /// Whether another model may help without anybody having said so: not with a request that is wrong.
    fn may_pass_elsewhere(&self) -> bool {
        match self {
            Self::Failed { kind, retry } => *retry != Retry::Never || *kind == ErrorKind::ContextTooLong.as_str(),
            // Patience that ran out is a reason only for a step that says so.
            Self::QueueWait(_) | Self::FirstToken(_) => false,
        }
    }
}

/// Why a step was entered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Why {
    /// Name of the condition: a row of [`TABLE`], [`ANY_TROUBLE`] or [`super::ASKED`].
    pub reason: &'static str,
    /// With its numbers, for people.
    pub detail: String,
}

/// What a decision is made from.
#[derive(Debug, Clone, Copy)]
pub struct Situation<'a> {
    pub facts: &'a Facts,
    pub trouble: Option<&'a Trouble>,
}

impl When {
    /// Whether the step is entered, and why: one of its triggers holds, and all its filters do. A step without triggers is entered
    /// as soon as its filters hold; one without any condition after trouble that another model may not have.
    #[must_use]
    pub(super) fn holds(&self, situation: &Situation<'_>) -> Option<Why> {
        let (mut asks_for_trigger, mut trigger, mut filter) = (false, None, None);
        for row in TABLE {
            match ((row.verdict)(self, situation), row.part) {
                (Verdict::NotAsked, _) => {}
                (Verdict::No, Part::Filter) => return None,
                (Verdict::No, Part::Trigger) => asks_for_trigger = true,
                (Verdict::Yes(detail), Part::Filter) => filter = filter.or(Some(Why { reason: row.name, detail })),
                (Verdict::Yes(detail), Part::Trigger) => {
                    asks_for_trigger = true;
                    trigger = trigger.or(Some(Why { reason: row.name, detail }));
                }
            }
        }
        if asks_for_trigger { trigger } else { filter.or_else(|| any_trouble(situation.trouble)) }
    }

    /// Whether the filters alone hold.
    #[must_use]
    pub(super) fn lets_in(&self, situation: &Situation<'_>) -> bool {
        let filters = TABLE.iter().filter(|row| row.part == Part::Filter);
        !filters.into_iter().any(|row| matches!((row.verdict)(self, situation), Verdict::No))
    }
}

fn any_trouble(trouble: Option<&Trouble>) -> Option<Why> {
    let trouble = trouble.filter(|trouble| trouble.may_pass_elsewhere())?;
    let Trouble::Failed { kind, .. } = trouble else { return None };
    Some(Why { reason: ANY_TROUBLE, detail: format!("the step before failed: {kind}") })
}
