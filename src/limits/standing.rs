//! How a client stands, as its answers' headers tell it.
//!
//! `RateLimit-Policy` and `RateLimit` are those of draft-ietf-httpapi-ratelimit-headers-10, lists of all bounds, the tightest
//! first; `RateLimit-Limit`, `-Remaining` and `-Reset` are those of its early versions (-03), which most clients read: the tightest
//! alone. Times are whole seconds, rounded up.

use std::cmp::Reverse;
use std::fmt::Write;
use std::time::Duration;

use super::refusal::{Measure, Quota};

/// Bounds, the tightest first. Empty where nothing is bounded.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Standing(Vec<Quota>);

impl Standing {
    pub(super) fn of(mut quotas: Vec<Quota>) -> Self {
        // A thousandth is fine enough to say which is tightest; of equals, the one that takes longest to be whole again.
        quotas
            .sort_by_key(|quota| (u128::from(quota.remaining) * 1_000 / u128::from(quota.limit.max(1)), Reverse(quota.reset), quota.scope));
        Self(quotas)
    }

    #[must_use]
    pub fn quotas(&self) -> &[Quota] {
        &self.0
    }

    /// The bound that will be in the way first.
    #[must_use]
    pub fn tightest(&self) -> Option<&Quota> {
        self.0.first()
    }

    /// The headers and their values.
    #[must_use]
    pub fn headers(&self) -> Vec<(&'static str, String)> {
        let Some(tightest) = self.tightest() else { return Vec::new() };
        vec![
            ("ratelimit-policy", self.list(policy)),
            ("ratelimit", self.list(|quota| format!(";r={};t={}", quota.remaining, whole_seconds(quota.reset)))),
            ("ratelimit-limit", tightest.limit.to_string()),
            ("ratelimit-remaining", tightest.remaining.to_string()),
            ("ratelimit-reset", whole_seconds(tightest.reset).to_string()),
        ]
    }

    fn list(&self, parameters: impl Fn(&Quota) -> String) -> String {
        let item = |quota: &Quota| format!("\"{}-{}\"{}", quota.scope.as_str(), quota.measure.as_str(), parameters(quota));
        self.0.iter().map(item).collect::<Vec<_>>().join(", ")
    }
}

fn policy(quota: &Quota) -> String {
    let mut text = format!(";q={}", quota.limit);
    let unit = match quota.measure {
        Measure::RequestsPerSecond | Measure::RequestsPerMinute | Measure::WrongKeysPerMinute => None,
        Measure::ConcurrentRequests => Some("concurrent-requests"),
        _ => Some("tokens"),
    };
    // Writing to a string cannot fail.
    if let Some(unit) = unit {
        let _ = write!(text, ";qu=\"{unit}\"");
    }
    if let Some(window) = quota.window {
        let _ = write!(text, ";w={}", whole_seconds(window));
    }
    text
}

/// Rounded up, and within what a header's whole number may be (RFC 9651).
pub(super) fn whole_seconds(span: Duration) -> u64 {
    span.as_secs().saturating_add(u64::from(span.subsec_nanos() > 0)).min(999_999_999_999_999)
}

#[cfg(test)]
mod tests {
    use super::super::refusal::Scope;
    use super::*;

    #[test]
    fn the_tightest_comes_first_and_alone_in_the_older_headers() {
        let quota = |scope, measure, limit, remaining, reset_ms, window_s: Option<u64>| {
            let (reset, window) = (Duration::from_millis(reset_ms), window_s.map(Duration::from_secs));
            Quota { scope, measure, limit, remaining, reset, window }
        };
        let standing = Standing::of(vec![
            quota(Scope::Key, Measure::RequestsPerMinute, 60, 59, 1_000, Some(60)),
            quota(Scope::Tenant, Measure::TokensPerDay, 1_000, 20, 3_600_001, Some(86_400)),
            quota(Scope::Key, Measure::ConcurrentRequests, 4, 3, 1_000, None),
        ]);
        assert_eq!(
            standing.headers(),
            [
                (
                    "ratelimit-policy",
                    "\"tenant-tokens-per-day\";q=1000;qu=\"tokens\";w=86400, \
                     \"key-concurrent-requests\";q=4;qu=\"concurrent-requests\", \"key-requests-per-minute\";q=60;w=60"
                        .to_owned()
                ),
                (
                    "ratelimit",
                    "\"tenant-tokens-per-day\";r=20;t=3601, \"key-concurrent-requests\";r=3;t=1, \"key-requests-per-minute\";r=59;t=1"
                        .to_owned()
                ),
                ("ratelimit-limit", "1000".to_owned()),
                ("ratelimit-remaining", "20".to_owned()),
                ("ratelimit-reset", "3601".to_owned()),
            ]
        );
        assert_eq!(Standing::default().headers(), []);
        assert_eq!(whole_seconds(Duration::MAX), 999_999_999_999_999);
    }
}
