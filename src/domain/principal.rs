//! Who asks, and what they may do.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;

use super::allowance::Allowance;
use super::generation::Priority;
use super::id::ModelName;

/// What someone may do, from the least to the most.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// May read the metrics.
    Metrics,
    /// May generate.
    #[default]
    User,
    /// May look at and steer queue, caches and backends.
    Operator,
    /// May do everything, keys included.
    Admin,
}

impl Role {
    pub const ALL: [Self; 4] = [Self::Metrics, Self::User, Self::Operator, Self::Admin];

    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Metrics => "metrics",
            Self::User => "user",
            Self::Operator => "operator",
            Self::Admin => "admin",
        }
    }
}

/// Whoever asks: the holder of a key, or anyone where no keys are asked for.
#[derive(Debug, Clone)]
pub struct Principal {
    /// Public id of the key; `None` for whoever needs none.
    pub key_id: Option<Arc<str>>,
    /// Name of the key, for people.
    pub name: Arc<str>,
    /// Whose share of the machine is used. Caches are never shared across tenants unless that is configured.
    pub tenant: Arc<str>,
    pub role: Role,
    /// Patterns (`*` stands for any characters) of the models that may be asked for. Empty: all.
    pub models: Arc<[String]>,
    /// The priority of requests that ask for none.
    pub default_priority: Priority,
    /// The highest priority that may be asked for; a higher one is lowered to it.
    pub priority_ceiling: Priority,
    /// Share of the machine in relation to other tenants, when it is contended.
    pub weight: u32,
    pub allowance: Arc<Allowance>,
    /// Whether the holder of the key agreed that its exchanges are collected.
    pub collect: bool,
    /// Cancelled when the key is revoked or expires: what it started must end.
    pub ended: CancellationToken,
}

/// The tenant of whoever needs no key.
pub const ANONYMOUS: &str = "anonymous";

impl Principal {
    /// Whoever reaches the gateway where no keys are asked for.
    #[must_use]
    pub fn anonymous(role: Role) -> Self {
        Self {
            key_id: None,
            name: ANONYMOUS.into(),
            tenant: ANONYMOUS.into(),
            role,
            models: Arc::new([]),
            default_priority: Priority::Normal,
            priority_ceiling: Priority::Urgent,
            weight: 1,
            allowance: Arc::default(),
            collect: false,
            ended: CancellationToken::new(),
        }
    }

    /// Whether the model may be asked for. Patterns are compared with the canonical name (`gemma3` is `gemma3:latest`).
    #[must_use]
    pub fn may_use(&self, model: &ModelName) -> bool {
        self.models.is_empty() || self.models.iter().any(|pattern| matches(pattern, model))
    }

    /// The priority a request gets that asks for this one.
    #[must_use]
    pub fn priority(&self, asked: Option<Priority>) -> Priority {
        asked.unwrap_or(self.default_priority).min(self.priority_ceiling)
    }
}

/// Whether a pattern means a model: `*` stands for any characters, letters of any case are equal, a pattern without a tag and
/// without `*` means `latest`.
#[must_use]
pub fn matches(pattern: &str, model: &ModelName) -> bool {
    if !pattern.contains('*') {
        return ModelName::parse(pattern).is_ok_and(|name| name == *model);
    }
    let pattern = pattern.to_ascii_lowercase();
    let mut parts = pattern.split('*');
    let first = parts.next().unwrap_or_default();
    let Some(mut rest) = model.canonical().strip_prefix(first) else { return false };
    let mut parts: Vec<&str> = parts.collect();
    let last = parts.pop().unwrap_or_default();
    for part in parts {
        let Some(at) = rest.find(part) else { return false };
        rest = &rest[at + part.len()..];
    }
    rest.ends_with(last)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_mean_what_they_say() {
        for (pattern, name, means) in [
            ("gemma3", "gemma3:latest", true),
            ("gemma3", "gemma3:270m", false),
            ("Gemma3:*", "gemma3:270m", true),
            ("*", "hf.co/a/b:q4", true),
            ("*:7b", "qwen2.5-coder:7b", true),
            ("qwen*coder*", "qwen2.5-coder:7b", true),
            ("*ab*ab", "xab:y", false),
            ("a*a", "a:latest", false),
            ("", "x", false),
        ] {
            let model = ModelName::parse(name).expect("a name");
            assert_eq!(matches(pattern, &model), means, "{pattern} {name}");
        }
    }

    #[test]
    fn a_priority_above_the_ceiling_is_lowered_to_it() {
        let principal =
            Principal { priority_ceiling: Priority::Normal, default_priority: Priority::Low, ..Principal::anonymous(Role::User) };
        assert_eq!(principal.priority(None), Priority::Low);
        assert_eq!(principal.priority(Some(Priority::Urgent)), Priority::Normal);
        assert_eq!(principal.priority(Some(Priority::Batch)), Priority::Batch);
    }
}
