//! Who follows a run, and may interrupt it.

use std::io;
use std::time::Duration;

use serde::Serialize;

use crate::jobs::finetune::checkpoint::{Evaluation, Sample};
use crate::jobs::finetune::learner::Tensors;
use crate::jobs::finetune::objective::Preferences;

/// How far a run is.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Progress {
    /// Steps that were made, of how many.
    pub step: u64,
    pub steps: u64,
    pub epoch: u64,
    /// Tokens that were read for learning, with those of the step in work.
    pub tokens: u64,
    /// Since this attempt began.
    pub tokens_per_s: f64,
    /// `None`: nothing can be said yet.
    #[serde(with = "crate::domain::span::option")]
    pub remaining: Option<Duration>,
}

/// A step that was made.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Step {
    /// With this one.
    pub step: u64,
    pub epoch: u64,
    pub loss: f64,
    /// Before it was cut.
    pub gradient_norm: f64,
    pub learning_rate: f64,
    pub tokens: u64,
    pub labels: u64,
    pub seconds: f64,
    pub tokens_per_s: f64,
    pub memory_bytes: Option<u64>,
    /// Share of the step in which the device worked, from 0 to 1.
    pub device_use: Option<f64>,
    pub preferences: Option<Preferences>,
}

/// What is told of a run as it goes.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Record {
    Step(Step),
    Evaluation(Evaluation),
}

impl Record {
    /// Steps that were made by then.
    #[must_use]
    pub fn step(&self) -> u64 {
        match self {
            Self::Step(step) => step.step,
            Self::Evaluation(evaluation) => evaluation.step,
        }
    }
}

/// Asked and told by the trainer on its own thread, between two passes.
pub trait Observer {
    /// The run begins, or goes on after so many steps and evaluations: records of others that were written before are void.
    ///
    /// # Errors
    /// What ends the run.
    fn begin(&mut self, _steps: u64, _evaluations: usize) -> io::Result<()> {
        Ok(())
    }

    fn progress(&mut self, _progress: &Progress) {}

    /// # Errors
    /// What ends the run.
    fn metrics(&mut self, _record: &Record) -> io::Result<()> {
        Ok(())
    }

    /// What the model writes to some prompts, at each evaluation.
    ///
    /// # Errors
    /// What ends the run.
    fn samples(&mut self, _step: u64, _parameters: &Tensors) -> io::Result<Vec<Sample>> {
        Ok(Vec::new())
    }

    /// Whether the run is to end here, to go on another time.
    fn should_stop(&mut self) -> bool {
        false
    }

    /// Whether the run is to wait. There is a checkpoint when [`Observer::hold`] is called.
    fn should_hold(&mut self) -> bool {
        false
    }

    /// Waits until the run may go on or is to end.
    fn hold(&mut self) {}

    /// What the process or the device takes now, or took at most.
    fn memory_bytes(&mut self) -> Option<u64> {
        None
    }

    /// How busy the device was since this was last asked, from 0 to 1.
    fn device_use(&mut self) -> Option<f64> {
        None
    }
}

/// Follows nothing and interrupts nothing.
#[derive(Debug, Clone, Copy, Default)]
pub struct Alone;

impl Observer for Alone {}
