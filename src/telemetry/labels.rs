//! The closed sets that metrics and stored rows are labelled with, and the bound for the one set that is open.
//!
//! A label from an open set (a path, a model name someone typed) makes one time series per value, for ever: so routes, outcomes
//! and operations are enums, and model names beyond a bound share the value [`OTHER`].

use std::collections::HashSet;
use std::sync::{PoisonError, RwLock};

use crate::domain::blame::Blame;

/// Stands for every value beyond the bound of an open set.
pub const OTHER: &str = "other";

/// Which part of the interface a request came in by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Route {
    Generate,
    Models,
    /// `/feedback` and `/collection`.
    Collection,
    Live,
    Ready,
    Metrics,
    Version,
    Docs,
    /// Everything below `/admin`.
    Admin,
    /// No such path, or refused before a path was known.
    Unmatched,
}

impl Route {
    pub const ALL: [Self; 10] = [
        Self::Generate,
        Self::Models,
        Self::Collection,
        Self::Live,
        Self::Ready,
        Self::Metrics,
        Self::Version,
        Self::Docs,
        Self::Admin,
        Self::Unmatched,
    ];

    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Generate => "generate",
            Self::Models => "models",
            Self::Collection => "collection",
            Self::Live => "live",
            Self::Ready => "ready",
            Self::Metrics => "metrics",
            Self::Version => "version",
            Self::Docs => "docs",
            Self::Admin => "admin",
            Self::Unmatched => "unmatched",
        }
    }
}

/// How a request ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    Ok,
    /// The client left before the end.
    Cancelled,
    /// It failed, and someone is to blame.
    Failed(Blame),
}

impl Outcome {
    pub const ALL: [Self; 5] =
        [Self::Ok, Self::Cancelled, Self::Failed(Blame::Client), Self::Failed(Blame::Gateway), Self::Failed(Blame::Upstream)];

    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Cancelled => "cancelled",
            Self::Failed(Blame::Client) => "client_error",
            Self::Failed(Blame::Gateway) => "gateway_error",
            Self::Failed(Blame::Upstream) => "upstream_error",
        }
    }

    /// The outcome whose [`Outcome::as_str`] this is.
    #[must_use]
    pub fn from_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|outcome| outcome.as_str() == word)
    }
}

/// What a backend was asked to do, in the words of the GenAI semantic conventions (`gen_ai.operation.name`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Operation {
    TextCompletion,
    Chat,
    Embeddings,
}

impl Operation {
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::TextCompletion => "text_completion",
            Self::Chat => "chat",
            Self::Embeddings => "embeddings",
        }
    }
}

/// Why a row of the request log was given up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Dropped {
    /// More came than could be written, and the queue was full.
    QueueFull,
    /// The database could still not be written when the process ended.
    Storage,
}

impl Dropped {
    pub const ALL: [Self; 2] = [Self::QueueFull, Self::Storage];

    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::QueueFull => "queue_full",
            Self::Storage => "storage",
        }
    }
}

/// The first values of an open set, up to a bound.
#[derive(Debug)]
pub(super) struct BoundedSet {
    most: usize,
    known: RwLock<HashSet<String>>,
}

impl BoundedSet {
    pub(super) fn new(most: usize) -> Self {
        Self { most, known: RwLock::default() }
    }

    /// The value itself while it is among the first, else [`OTHER`].
    pub(super) fn label(&self, value: &str) -> String {
        if self.known.read().unwrap_or_else(PoisonError::into_inner).contains(value) {
            return value.to_owned();
        }
        let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
        if known.contains(value) || (known.len() < self.most && known.insert(value.to_owned())) {
            value.to_owned()
        } else {
            OTHER.to_owned()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_beyond_the_bound_share_one_label() {
        let set = BoundedSet::new(2);
        assert_eq!([set.label("a"), set.label("b"), set.label("c"), set.label("a")], ["a", "b", OTHER, "a"]);
        assert_eq!(BoundedSet::new(0).label("a"), OTHER);
    }

    #[test]
    fn every_word_is_its_own_and_is_found_again() {
        for outcome in Outcome::ALL {
            assert_eq!(Outcome::from_word(outcome.as_str()), Some(outcome));
        }
        assert_eq!(Outcome::from_word("fine"), None);
        let routes: HashSet<_> = Route::ALL.map(Route::as_str).into_iter().collect();
        assert_eq!(routes.len(), Route::ALL.len());
    }
}
