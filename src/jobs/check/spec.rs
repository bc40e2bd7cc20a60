//! What is to be compared and how, and what is heard meanwhile.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::Role;
use crate::lm::Choice;

/// A comparison, as a job or a command asks for it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Spec {
    /// The file that is judged.
    pub candidate: PathBuf,
    /// The file it is compared with: the one it was made of, or a less quantised one of the same model.
    pub reference: PathBuf,
    /// A text in UTF-8; lines `=== KIND` divide it into kinds. `None`: the built-in one.
    #[serde(default)]
    pub text: Option<PathBuf>,
    /// Most tokens of the text that are read.
    #[serde(default = "defaults::max_tokens")]
    pub max_tokens: usize,
    /// Tokens that are read in one go; after so many the models begin anew. More is slower and closer to long conversations.
    #[serde(default = "defaults::window")]
    pub window: usize,
    /// What both are to continue. Empty: some built-in prompts.
    #[serde(default)]
    pub prompts: Vec<String>,
    /// Tokens of each continuation.
    #[serde(default = "defaults::continuation_tokens")]
    pub continuation_tokens: usize,
    /// Whether speed is measured too.
    #[serde(default = "defaults::time")]
    pub time: bool,
    #[serde(default)]
    pub device: Choice,
    /// Threads of the CPU; 0: one for each physical core.
    #[serde(default)]
    pub threads: usize,
    #[serde(default)]
    pub thresholds: Thresholds,
}

mod defaults {
    pub fn max_tokens() -> usize {
        8192
    }

    pub fn window() -> usize {
        512
    }

    pub fn continuation_tokens() -> usize {
        48
    }

    pub fn time() -> bool {
        true
    }
}

impl Spec {
    #[must_use]
    pub fn new(candidate: impl Into<PathBuf>, reference: impl Into<PathBuf>) -> Self {
        Self {
            candidate: candidate.into(),
            reference: reference.into(),
            text: None,
            max_tokens: defaults::max_tokens(),
            window: defaults::window(),
            prompts: Vec::new(),
            continuation_tokens: defaults::continuation_tokens(),
            time: defaults::time(),
            device: Choice::default(),
            threads: 0,
            thresholds: Thresholds::default(),
        }
    }

    pub(super) fn path(&self, role: Role) -> &PathBuf {
        match role {
            Role::Reference => &self.reference,
            Role::Candidate => &self.candidate,
        }
    }
}

/// Bounds that a candidate must keep. `None`: any figure passes. Whatever they are, a candidate fails that gives no numbers, or that fails
/// at an edge.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Thresholds {
    /// Of the mean divergence from the reference, in nats.
    pub max_divergence: Option<f64>,
    /// Of the candidate's perplexity as a multiple of the reference's: 1.05 is five per cent worse.
    pub max_perplexity_ratio: Option<f64>,
    /// Of the share of tokens at which both expect the same one above all.
    pub min_top_agreement: Option<f64>,
}

/// One of each side.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Both<T> {
    pub reference: T,
    pub candidate: T,
}

impl<T> Both<T> {
    pub fn map<U>(self, mut change: impl FnMut(T) -> U) -> Both<U> {
        Both { reference: change(self.reference), candidate: change(self.candidate) }
    }

    pub fn try_map<U, E>(self, mut change: impl FnMut(T) -> Result<U, E>) -> Result<Both<U>, E> {
        Ok(Both { reference: change(self.reference)?, candidate: change(self.candidate)? })
    }

    #[must_use]
    pub fn as_ref(&self) -> Both<&T> {
        Both { reference: &self.reference, candidate: &self.candidate }
    }
}

/// What is being done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Step {
    Loading,
    /// Counted in tokens.
    Comparing,
    /// Counted in prompts.
    Continuing,
    Edges,
    /// Counted in rounds.
    Timing,
}

/// How far it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Progress {
    pub step: Step,
    pub done: u64,
    pub of: u64,
}

/// Who hears how far it is. Must return at once.
pub type Told<'a> = &'a (dyn Fn(Progress) + Sync);

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_defaults_are_the_same_from_everywhere_and_misspellings_are_refused() {
        let read: Spec = serde_json::from_value(json!({"candidate": "a", "reference": "b"})).expect("valid");
        assert_eq!(read, Spec::new("a", "b"));
        assert!(serde_json::from_value::<Spec>(json!({"candidate": "a", "reference": "b", "windw": 1})).is_err());
    }
}
