//! The conditions, one row each: the code runs them, and `docs/fallback.md` is made from them.

use std::time::Duration;

use super::conditions::{Situation, Trouble, When};
use crate::domain::span;

/// Reason of a step without conditions that was entered because the one before failed.
pub const ANY_TROUBLE: &str = "any_trouble";
/// Reason of the step that a request begins at when no condition of a later one holds.
pub const ASKED: &str = "asked";

/// What a condition does for its step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// One of them must hold: something happened, or is about to.
    Trigger,
    /// All of them must hold: what kind of request it is.
    Filter,
}

impl Part {
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Trigger => "trigger",
            Self::Filter => "filter",
        }
    }
}

/// What a condition says of a situation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// The step does not ask for it.
    NotAsked,
    No,
    /// It holds; with its numbers, for people.
    Yes(String),
}

/// One condition.
pub struct Condition {
    /// The key in `when`, and the reason in answers and metrics.
    pub name: &'static str,
    /// What it is set to.
    pub takes: &'static str,
    pub part: Part,
    /// When it holds.
    pub meaning: &'static str,
    /// At which moments it is looked at.
    pub looked_at: &'static str,
    pub(super) verdict: fn(&When, &Situation<'_>) -> Verdict,
}

/// Every condition there is, in the order in which they are looked at.
pub static TABLE: &[Condition] = &[
    Condition {
        name: "errors",
        takes: "list of error codes",
        part: Part::Trigger,
        meaning: "All attempts at the step before failed, the last one with one of these codes.",
        looked_at: "after a failure before the first byte",
        verdict: |when, now| {
            if when.errors.is_empty() {
                return Verdict::NotAsked;
            }
            let kind = now.trouble.and_then(failed_with);
            let listed = kind.filter(|kind| when.errors.iter().any(|error| error.as_str() == *kind));
            listed.map_or(Verdict::No, |kind| Verdict::Yes(format!("the step before failed: {kind}")))
        },
    },
    Condition {
        name: "queue_wait_over",
        takes: "span of time",
        part: Part::Trigger,
        meaning: "The wait for a slot of the step before is predicted to be longer, or has been.",
        looked_at: "before the first attempt, and while it waits",
        verdict: |when, now| {
            let waited = if let Some(Trouble::QueueWait(waited)) = now.trouble { Some(*waited) } else { None };
            longer(when.queue_wait_over, now.facts.queue_wait.max(waited), "a wait for a slot")
        },
    },
    Condition {
        name: "ttft_over",
        takes: "span of time",
        part: Part::Trigger,
        meaning: "The first token of the step before is expected to take longer, or has not come for this long.",
        looked_at: "before the first attempt, and until the first token",
        verdict: |when, now| {
            let waited = if let Some(Trouble::FirstToken(waited)) = now.trouble { Some(*waited) } else { None };
            longer(when.ttft_over, now.facts.ttft.max(waited), "a first token")
        },
    },
    Condition {
        name: "memory_pressure_over",
        takes: "share from 0 to 1",
        part: Part::Trigger,
        meaning: "More than this share of the memory for models is in use.",
        looked_at: "before the first attempt, and after any trouble",
        verdict: |when, now| above(when.memory_pressure_over, now.facts.pressure.memory, "share of the memory"),
    },
    Condition {
        name: "heat_over",
        takes: "degrees Celsius",
        part: Part::Trigger,
        meaning: "The hottest part of the machine is hotter.",
        looked_at: "before the first attempt, and after any trouble",
        verdict: |when, now| above(when.heat_over, now.facts.pressure.heat, "temperature"),
    },
    Condition {
        name: "context_too_long",
        takes: "true",
        part: Part::Trigger,
        meaning: "The prompt and the tokens asked for do not fit the context of the step before, or a backend said so.",
        looked_at: "before the first attempt, and after a failure before the first byte",
        verdict: |when, now| if when.context_too_long { too_long(now) } else { Verdict::NotAsked },
    },
    Condition {
        name: "prompt_tokens_over",
        takes: "tokens",
        part: Part::Filter,
        meaning: "The prompt has more tokens.",
        looked_at: "always",
        verdict: |when, now| compare(when.prompt_tokens_over, now.facts.prompt_tokens, "tokens of prompt", "over", |bound, is| is > bound),
    },
    Condition {
        name: "prompt_tokens_under",
        takes: "tokens",
        part: Part::Filter,
        meaning: "The prompt has fewer tokens.",
        looked_at: "always",
        verdict: |when, now| {
            compare(when.prompt_tokens_under, now.facts.prompt_tokens, "tokens of prompt", "under", |bound, is| is < bound)
        },
    },
    Condition {
        name: "predict_over",
        takes: "tokens",
        part: Part::Filter,
        meaning: "More tokens of answer are asked for; a request without a bound asks for more than any number.",
        looked_at: "always",
        verdict: |when, now| {
            let asked = Some(now.facts.predict.unwrap_or(u64::MAX));
            compare(when.predict_over, asked, "tokens of answer", "over", |bound, is| is > bound)
        },
    },
    Condition {
        name: "images",
        takes: "true or false",
        part: Part::Filter,
        meaning: "The request has images (true), or has none (false).",
        looked_at: "always",
        verdict: |when, now| is_so(when.images, now.facts.images, "images"),
    },
    Condition {
        name: "tools",
        takes: "true or false",
        part: Part::Filter,
        meaning: "The request has tools (true), or has none (false).",
        looked_at: "always",
        verdict: |when, now| is_so(when.tools, now.facts.tools, "tools"),
    },
];

fn failed_with(trouble: &Trouble) -> Option<&'static str> {
    if let Trouble::Failed { kind, .. } = trouble { Some(kind) } else { None }
}

fn longer(bound: Option<Duration>, is: Option<Duration>, what: &str) -> Verdict {
    let Some(bound) = bound else { return Verdict::NotAsked };
    let rounded = |span: Duration| span::format(Duration::from_millis(u64::try_from(span.as_millis()).unwrap_or(u64::MAX)));
    match is.filter(|is| *is > bound) {
        Some(is) => Verdict::Yes(format!("{what} of {}, over {}", rounded(is), rounded(bound))),
        None => Verdict::No,
    }
}

fn above(bound: Option<f64>, is: Option<f64>, what: &str) -> Verdict {
    let Some(bound) = bound else { return Verdict::NotAsked };
    is.filter(|is| *is > bound).map_or(Verdict::No, |is| Verdict::Yes(format!("{what} {is:.2}, over {bound:.2}")))
}

fn compare(bound: Option<u64>, is: Option<u64>, what: &str, word: &str, holds: fn(u64, u64) -> bool) -> Verdict {
    let Some(bound) = bound else { return Verdict::NotAsked };
    match is.filter(|is| holds(bound, *is)) {
        Some(u64::MAX) => Verdict::Yes(format!("no bound on {what}, {word} {bound}")),
        Some(is) => Verdict::Yes(format!("{is} {what}, {word} {bound}")),
        None => Verdict::No,
    }
}

fn is_so(wanted: Option<bool>, is: bool, what: &str) -> Verdict {
    match wanted {
        None => Verdict::NotAsked,
        Some(wanted) if wanted == is => Verdict::Yes(format!("the request has {}{what}", if is { "" } else { "no " })),
        Some(_) => Verdict::No,
    }
}

fn too_long(now: &Situation<'_>) -> Verdict {
    if now.trouble.and_then(failed_with) == Some("context_too_long") {
        return Verdict::Yes("the prompt is too long for the context".to_owned());
    }
    let needed = now.facts.prompt_tokens.map(|tokens| tokens.saturating_add(now.facts.predict.unwrap_or(1)));
    match (needed, now.facts.context_tokens) {
        (Some(needed), Some(context)) if needed > context => Verdict::Yes(format!("{needed} tokens, over a context of {context}")),
        _ => Verdict::No,
    }
}
