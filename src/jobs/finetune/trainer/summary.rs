//! What a run came to.

use serde::{Deserialize, Serialize};

use crate::jobs::finetune::checkpoint::{Best, Ending, Evaluation, State};

/// Over all attempts of the run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Summary {
    pub ending: Ending,
    /// Steps that were made, of how many.
    pub step: u64,
    pub steps: u64,
    /// Rows of fewer than two tokens, which have nothing to foretell.
    pub left_out_rows: usize,
    pub tokens: u64,
    pub labels: u64,
    /// Of learning alone, without evaluations and pauses.
    pub training_seconds: f64,
    pub tokens_per_s: f64,
    /// The same of each whole epoch.
    pub epoch_seconds: Vec<f64>,
    pub peak_memory_bytes: Option<u64>,
    /// The mean loss of each step.
    pub losses: Vec<f64>,
    pub evaluations: Vec<Evaluation>,
    pub best: Option<Best>,
    /// The checkpoint of where it stands; `None`: it made no step.
    pub last: Option<String>,
}

/// What a run was to come to.
#[derive(Debug, Clone, Copy)]
pub(super) struct Length {
    pub steps: u64,
    pub left_out_rows: usize,
}

impl Summary {
    #[expect(clippy::cast_precision_loss, reason = "for people")]
    pub(super) fn new(state: State, ending: Ending, length: Length, last: Option<String>) -> Self {
        let tokens_per_s = if state.training_seconds > 0.0 { state.tokens as f64 / state.training_seconds } else { 0.0 };
        // The time of an epoch that is not whole says nothing.
        let whole = usize::try_from(state.cursor.epoch).unwrap_or(usize::MAX);
        let epoch_seconds = state.epoch_seconds.into_iter().take(whole).collect();
        Self {
            ending,
            step: state.step,
            steps: length.steps,
            left_out_rows: length.left_out_rows,
            tokens: state.tokens,
            labels: state.labels,
            training_seconds: state.training_seconds,
            tokens_per_s,
            epoch_seconds,
            peak_memory_bytes: state.peak_memory_bytes,
            losses: state.losses,
            evaluations: state.evaluations,
            best: state.best,
            last,
        }
    }
}
