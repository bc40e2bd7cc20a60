//! What is measured, how each bound stands, and what a refused request is told.

use std::fmt;
use std::time::Duration;

use serde::Serialize;

use super::meter::{Meter, Rate, Wait};
use super::standing::Standing;

/// Whose bound it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Scope {
    Key,
    Tenant,
    Address,
    Global,
}

impl Scope {
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Key => "key",
            Self::Tenant => "tenant",
            Self::Address => "address",
            Self::Global => "global",
        }
    }

    fn subject(self) -> &'static str {
        match self {
            Self::Key => "this caller",
            Self::Tenant => "this caller's tenant",
            Self::Address => "this address",
            Self::Global => "the gateway as a whole",
        }
    }
}

/// What a bound counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Measure {
    RequestsPerSecond,
    RequestsPerMinute,
    WrongKeysPerMinute,
    ConcurrentRequests,
    PromptTokensPerMinute,
    GeneratedTokensPerMinute,
    TokensPerDay,
    TokensPerMonth,
}

impl Measure {
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::RequestsPerSecond => "requests-per-second",
            Self::RequestsPerMinute => "requests-per-minute",
            Self::WrongKeysPerMinute => "wrong-keys-per-minute",
            Self::ConcurrentRequests => "concurrent-requests",
            Self::PromptTokensPerMinute => "prompt-tokens-per-minute",
            Self::GeneratedTokensPerMinute => "generated-tokens-per-minute",
            Self::TokensPerDay => "tokens-per-day",
            Self::TokensPerMonth => "tokens-per-month",
        }
    }

    fn kind(self, scope: Scope) -> Kind {
        match self {
            _ if scope == Scope::Address => Kind::AddressRate,
            Self::RequestsPerSecond | Self::RequestsPerMinute | Self::WrongKeysPerMinute => Kind::RequestRate,
            Self::ConcurrentRequests => Kind::Concurrency,
            Self::PromptTokensPerMinute => Kind::PromptTokensRate,
            Self::GeneratedTokensPerMinute => Kind::GeneratedTokensRate,
            Self::TokensPerDay => Kind::DailyBudget,
            Self::TokensPerMonth => Kind::MonthlyBudget,
        }
    }
}

/// How a bound stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Quota {
    pub scope: Scope,
    pub measure: Measure,
    /// How many there may be, at once or in the period.
    pub limit: u64,
    /// What is left of it now.
    pub remaining: u64,
    /// When all of it is there again, if nothing more is used.
    pub reset: Duration,
    /// The time in which so many are allowed. `None`: no time, or a month, which is as long as it is.
    pub window: Option<Duration>,
}

impl Quota {
    /// The time until all of it is there again, in whole seconds, rounded up.
    #[must_use]
    pub fn reset_seconds(&self) -> u64 {
        super::standing::whole_seconds(self.reset)
    }
}

/// How a bound stands, and when the request at hand fits it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bound {
    pub quota: Quota,
    pub wait: Wait,
}

impl Bound {
    pub fn of_meter(scope: Scope, measure: Measure, meter: &Meter, rate: Rate, amount: u64, now_ns: u64) -> Self {
        let (remaining, reset) = (meter.room(rate, now_ns), meter.until_empty(rate, now_ns));
        Self {
            quota: Quota { scope, measure, limit: rate.burst(), remaining, reset, window: rate.window() },
            wait: meter.wait(rate, amount, now_ns),
        }
    }

    /// The bound is zero: nothing fits, ever.
    pub fn close(&mut self) {
        self.wait = Wait::Never;
        self.quota.limit = 0;
        self.quota.remaining = 0;
    }
}

/// Why a request was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    AddressRate,
    RequestRate,
    Concurrency,
    PromptTokensRate,
    GeneratedTokensRate,
    DailyBudget,
    MonthlyBudget,
    PromptTooLarge,
    NumPredictTooLarge,
    NumCtxTooLarge,
}

impl Kind {
    pub const ALL: [Self; 10] = [
        Self::AddressRate,
        Self::RequestRate,
        Self::Concurrency,
        Self::PromptTokensRate,
        Self::GeneratedTokensRate,
        Self::DailyBudget,
        Self::MonthlyBudget,
        Self::PromptTooLarge,
        Self::NumPredictTooLarge,
        Self::NumCtxTooLarge,
    ];

    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::AddressRate => "address_rate",
            Self::RequestRate => "request_rate",
            Self::Concurrency => "concurrency",
            Self::PromptTokensRate => "prompt_tokens_rate",
            Self::GeneratedTokensRate => "generated_tokens_rate",
            Self::DailyBudget => "daily_budget",
            Self::MonthlyBudget => "monthly_budget",
            Self::PromptTooLarge => "prompt_too_large",
            Self::NumPredictTooLarge => "num_predict_too_large",
            Self::NumCtxTooLarge => "num_ctx_too_large",
        }
    }

    /// Whether it is a rate that clears by itself within minutes, so that waiting for it makes sense.
    #[must_use]
    pub fn is_rate(self) -> bool {
        matches!(self, Self::AddressRate | Self::RequestRate | Self::PromptTokensRate | Self::GeneratedTokensRate)
    }
}

/// A request that may not start, and when it may.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    pub kind: Kind,
    pub scope: Scope,
    pub limit: u64,
    pub remaining: u64,
    /// How much the request asked for, where that is what is wrong.
    pub asked: Option<u64>,
    /// The same request is let in after this long, if nobody else uses the same bound meanwhile. `None`: never, unchanged.
    pub retry_after: Option<Duration>,
    /// The bound in the way, for the answer's headers.
    pub standing: Standing,
}

impl Refusal {
    pub(super) fn of(bound: Bound) -> Self {
        let Quota { scope, measure, limit, remaining, .. } = bound.quota;
        let retry_after = if let Wait::For(wait) = bound.wait { Some(wait) } else { None };
        Self { kind: measure.kind(scope), scope, limit, remaining, asked: None, retry_after, standing: Standing::of(vec![bound.quota]) }
    }

    pub(super) fn too_large(kind: Kind, scope: Scope, limit: u64, asked: u64) -> Self {
        Self { kind, scope, limit, remaining: limit, asked: Some(asked), retry_after: None, standing: Standing::default() }
    }

    /// What is in the way, for people.
    #[must_use]
    pub fn detail(&self) -> String {
        self.to_string()
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (who, limit, left) = (self.scope.subject(), self.limit, self.remaining);
        let per = self.standing.tightest().map_or("", |quota| quota.measure.as_str());
        match self.kind {
            Kind::AddressRate | Kind::RequestRate => write!(f, "{who} has used up its {per}, of which {limit} may come at once")?,
            Kind::Concurrency => write!(f, "{who} has {limit} requests running or waiting, as many as it may have")?,
            Kind::PromptTokensRate | Kind::GeneratedTokensRate => {
                write!(f, "{who} has {left} of {limit} {per} left, too few for this request")?;
            }
            Kind::DailyBudget | Kind::MonthlyBudget => {
                let period = if self.kind == Kind::DailyBudget { "today" } else { "this month" };
                write!(f, "{who} has {left} of {limit} tokens left {period} (UTC), too few for this request")?;
            }
            Kind::PromptTooLarge | Kind::NumPredictTooLarge | Kind::NumCtxTooLarge => {
                let what = match self.kind {
                    Kind::PromptTooLarge => "a prompt",
                    Kind::NumPredictTooLarge => "a `num_predict`",
                    _ => "a `num_ctx`",
                };
                return write!(f, "{what} of {} tokens is more than the {limit} that {who} allows", self.asked.unwrap_or_default());
            }
        }
        match self.retry_after {
            Some(after) => write!(f, "; the same request fits in {}", shown(after)),
            None => f.write_str("; waiting does not help"),
        }
    }
}

impl std::error::Error for Refusal {}

/// Whole seconds, rounded up: a shorter wait would be too short.
fn shown(span: Duration) -> String {
    crate::domain::span::format(Duration::from_secs(super::standing::whole_seconds(span)))
}
