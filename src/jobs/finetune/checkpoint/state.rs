//! Where a run stands, but for its tensors.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::jobs::finetune::exact;
use crate::jobs::finetune::objective::{Preferences, Sums};
use crate::jobs::finetune::options::Metric;
use crate::jobs::finetune::order::Cursor;

/// What a checkpoint is of; it is of no use to anything else.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Origin {
    /// The hash of the rows, both those that are learnt and those that are only looked at.
    pub data: String,
    /// The digest of the model that is trained.
    pub base: String,
    /// The hash of the options.
    pub options: String,
}

/// A look at the validation rows.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Evaluation {
    /// Steps that were made before it.
    pub step: u64,
    #[serde(with = "exact")]
    pub loss: f64,
    /// exp of the mean −ln p of every label; of preferences, of those of the preferred rows.
    #[serde(with = "exact")]
    pub perplexity: f64,
    pub labels: u64,
    pub preferences: Option<Preferences>,
    /// What the model wrote to the prompts that are tried each time.
    pub samples: Vec<Sample>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Sample {
    pub prompt: String,
    pub text: String,
}

impl Evaluation {
    pub(in crate::jobs::finetune) fn new(step: u64, sums: &Sums, samples: Vec<Sample>) -> Self {
        let (loss, perplexity) = (sums.mean_loss(), sums.perplexity());
        Self { step, loss, perplexity, labels: sums.labels, preferences: sums.preferences(), samples }
    }

    /// The figure that is to become small, or large.
    #[must_use]
    pub fn figure(&self, metric: Metric) -> f64 {
        match metric {
            Metric::Loss => self.loss,
            Metric::Perplexity => self.perplexity,
            Metric::PreferenceAccuracy => self.preferences.map_or(f64::NAN, |preferences| preferences.accuracy),
        }
    }
}

/// The parameters that did best so far.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Best {
    pub step: u64,
    #[serde(with = "exact")]
    pub figure: f64,
    /// The checkpoint that holds them.
    pub checkpoint: String,
}

/// How a run came to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Ending {
    /// All steps were made.
    Completed,
    /// Nothing better was found for long enough.
    EarlyStopped,
    /// It was asked to stop, and can go on.
    Stopped,
}

/// Random numbers are drawn by the seed and the step and from nothing else, and the schedule goes by the step, so that these are all there is
/// to know of both.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct State {
    pub version: u32,
    pub origin: Origin,
    /// Steps that were made.
    pub step: u64,
    /// What is read next.
    pub cursor: Cursor,
    pub best: Option<Best>,
    /// Evaluations since something better was found.
    pub fruitless: u32,
    pub tokens: u64,
    pub labels: u64,
    /// Of training alone, without evaluations and pauses.
    #[serde(with = "exact")]
    pub training_seconds: f64,
    /// The same of each whole epoch.
    #[serde(with = "exact::list")]
    pub epoch_seconds: Vec<f64>,
    pub peak_memory_bytes: Option<u64>,
    /// The mean loss of each step.
    #[serde(with = "exact::list")]
    pub losses: Vec<f64>,
    pub evaluations: Vec<Evaluation>,
    pub ended: Option<Ending>,
    /// SHA-256 of the other files of the checkpoint.
    pub files: BTreeMap<String, String>,
}

impl State {
    pub(in crate::jobs::finetune) const VERSION: u32 = 1;

    pub(in crate::jobs::finetune) fn new(origin: Origin) -> Self {
        Self {
            version: Self::VERSION,
            origin,
            step: 0,
            cursor: Cursor::default(),
            best: None,
            fruitless: 0,
            tokens: 0,
            labels: 0,
            training_seconds: 0.0,
            epoch_seconds: Vec::new(),
            peak_memory_bytes: None,
            losses: Vec::new(),
            evaluations: Vec::new(),
            ended: None,
            files: BTreeMap::new(),
        }
    }
}
