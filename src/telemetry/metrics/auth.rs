//! What is counted about who asks.

use super::{AUTHENTICATIONS, KEYS_ACTIVE, Metrics, number};

/// What became of a request's credentials.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Authentication {
    /// A key that is taken.
    Ok,
    /// None, where none is required.
    Anonymous,
    /// None, although one is required.
    Missing,
    /// Not the text of a key.
    Malformed,
    /// No such key, or not its secret.
    Unknown,
    Revoked,
    Expired,
    /// Two different ones in one request.
    Conflict,
    /// A key that is taken, whose role is not enough.
    Forbidden,
}

impl Authentication {
    pub const ALL: [Self; 9] = [
        Self::Ok,
        Self::Anonymous,
        Self::Missing,
        Self::Malformed,
        Self::Unknown,
        Self::Revoked,
        Self::Expired,
        Self::Conflict,
        Self::Forbidden,
    ];

    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Anonymous => "anonymous",
            Self::Missing => "missing",
            Self::Malformed => "malformed",
            Self::Unknown => "unknown",
            Self::Revoked => "revoked",
            Self::Expired => "expired",
            Self::Conflict => "conflict",
            Self::Forbidden => "forbidden",
        }
    }
}

impl Metrics {
    pub(super) fn start_auth_at_zero(&self) {
        for outcome in Authentication::ALL {
            self.0.registry.counter(&AUTHENTICATIONS, &[outcome.as_str()]).absolute(0);
        }
        self.keys_active(0);
    }

    /// A request that needed to be let in.
    pub fn authenticated(&self, outcome: Authentication) {
        self.0.registry.counter(&AUTHENTICATIONS, &[outcome.as_str()]).increment(1);
    }

    /// How many keys are taken now.
    pub fn keys_active(&self, keys: usize) {
        self.0.registry.gauge(&KEYS_ACTIVE, &[]).set(number(keys as u64));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_outcome_is_counted_apart() {
        let metrics = Metrics::default();
        for outcome in Authentication::ALL {
            metrics.authenticated(outcome);
        }
        metrics.keys_active(3);
        let text = metrics.render();
        for outcome in Authentication::ALL {
            let line = format!("arriero_authentications_total{{outcome=\"{}\"}} 1", outcome.as_str());
            assert!(text.lines().any(|l| l == line), "{line}");
        }
        assert!(text.lines().any(|l| l == "arriero_keys_active 3"), "{text}");
    }
}
