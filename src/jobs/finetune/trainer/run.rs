//! The loop.

use std::sync::mpsc::Receiver;
use std::time::Duration;

use super::feed::{self, Loaded, Prepared};
use super::observer::{Observer, Progress, Record, Step};
use super::pace::{Pace, per_second};
use super::{Training, stopping};
use crate::jobs::finetune::checkpoint::{Checkpoints, Ending, Evaluation, State};
use crate::jobs::finetune::error::{Error, Result};
use crate::jobs::finetune::gradient;
use crate::jobs::finetune::learner::{Pass, Tensors};
use crate::jobs::finetune::objective::{self, Sums};
use crate::jobs::finetune::optimizer::AdamW;
use crate::jobs::finetune::schedule::Schedule;

/// A run between two steps. What is done in a step shows in it only when the step is whole.
pub(super) struct Run<'a> {
    pub training: &'a Training<'a>,
    pub observer: &'a mut dyn Observer,
    pub checkpoints: &'a Checkpoints,
    pub parameters: Tensors,
    pub optimizer: AdamW,
    pub schedule: Schedule,
    pub steps: u64,
    /// The batches of the validation rows.
    pub validation: Vec<Vec<usize>>,
    pub state: State,
    pub saved: Option<Saved>,
    pub pace: Pace,
}

/// The last checkpoint, and how much of the run it knows.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Saved {
    pub name: String,
    pub step: u64,
    pub evaluations: usize,
    pub ended: Option<Ending>,
}

impl Saved {
    pub(super) fn new(name: String, state: &State) -> Self {
        Self { name, step: state.step, evaluations: state.evaluations.len(), ended: state.ended }
    }
}

/// What a step came to before the parameters were changed.
struct Learnt {
    sums: Sums,
    gradients: Tensors,
}

impl Run<'_> {
    /// Goes on to the end, or until it is asked to stop.
    pub(super) fn go(&mut self, prepared: &Receiver<Result<Prepared>>) -> Result<Ending> {
        loop {
            if self.evaluation_is_due() && !self.look()? {
                break;
            }
            if self.state.step >= self.steps {
                self.state.ended = Some(Ending::Completed);
            }
            if self.state.ended.is_some() || self.checkpoint_is_due() {
                self.save()?;
            }
            if let Some(ending) = self.state.ended {
                return Ok(ending);
            }
            let begun = self.pace.worked();
            // The thread that reads ends only after an error, or when nobody takes what it read.
            let Ok(prepared) = prepared.recv() else { break };
            if !self.step(&prepared?, begun)? {
                break;
            }
        }
        self.save()?;
        Ok(Ending::Stopped)
    }

    /// `false`: it was asked to stop before the step was whole, and nothing has changed.
    fn step(&mut self, prepared: &Prepared, begun: Duration) -> Result<bool> {
        let Some(Learnt { sums, gradients }) = self.learn(prepared)? else { return Ok(false) };
        let step = self.state.step;
        let norm = gradient::norm(self.training.learner, step, &self.parameters, &gradients)?;
        let options = self.training.options;
        let factor = self.schedule.factor(step);
        let clip = gradient::clip(norm, options.max_gradient_norm);
        self.optimizer.step(self.training.learner, &mut self.parameters, &gradients, (factor, clip))?;
        let took = self.pace.worked().saturating_sub(begun);
        self.pace.step_made(took, sums.tokens);
        self.note(prepared, &sums, took);
        let record = Step {
            step: self.state.step,
            epoch: prepared.epoch,
            loss: sums.mean_loss(),
            gradient_norm: norm,
            learning_rate: options.learning_rate * factor,
            tokens: sums.tokens,
            labels: sums.labels,
            seconds: took.as_secs_f64(),
            tokens_per_s: per_second(sums.tokens, took),
            memory_bytes: self.observer.memory_bytes(),
            device_use: self.observer.device_use(),
            preferences: sums.preferences(),
        };
        self.state.peak_memory_bytes = self.state.peak_memory_bytes.max(record.memory_bytes);
        self.observer.metrics(&Record::Step(record)).map_err(Error::Observer)?;
        self.tell(0);
        Ok(true)
    }

    /// The gradient of the mean over all passes. `None`: it was asked to stop.
    fn learn(&mut self, prepared: &Prepared) -> Result<Option<Learnt>> {
        let step = self.state.step;
        if prepared.weight == 0.0 || prepared.passes.iter().all(|pass| pass.batch.labels.is_empty()) {
            return Err(Error::Unlabelled { step, rows: prepared.rows() });
        }
        let (mut sums, mut gradients) = (Sums::default(), Tensors::new());
        for (micro_batch, loaded) in (0..).zip(&prepared.passes) {
            if self.interrupted()? {
                return Ok(None);
            }
            sums.add(&self.pass(loaded, prepared.weight, micro_batch, &mut gradients)?);
            self.tell(sums.tokens);
        }
        // No model is certain of everything; a device that ran out of memory is.
        if sums.loss == 0.0 { Err(Error::Loss { step, loss: 0.0, rows: prepared.rows() }) } else { Ok(Some(Learnt { sums, gradients })) }
    }

    fn pass(&self, loaded: &Loaded, whole: f64, micro_batch: u64, gradients: &mut Tensors) -> Result<Sums> {
        let (step, options) = (self.state.step, self.training.options);
        if loaded.batch.labels.is_empty() {
            return Ok(Sums { tokens: loaded.batch.len() as u64, ..Sums::default() });
        }
        let pass = Pass { seed: options.seed, step, micro_batch };
        let model = (self.training.learner, &self.parameters);
        let sums = objective::learn(options.method, model, &loaded.batch, whole, pass, gradients)?;
        expect_number(step, &sums, &loaded.rows)?;
        Ok(sums)
    }

    /// Takes a step that was made into the state.
    fn note(&mut self, prepared: &Prepared, sums: &Sums, took: Duration) {
        let state = &mut self.state;
        state.step += 1;
        state.cursor = prepared.next;
        state.tokens += sums.tokens;
        state.labels += sums.labels;
        state.training_seconds += took.as_secs_f64();
        let epoch = usize::try_from(prepared.epoch).unwrap_or(usize::MAX);
        if state.epoch_seconds.len() <= epoch {
            state.epoch_seconds.push(0.0);
        }
        if let Some(seconds) = state.epoch_seconds.last_mut() {
            *seconds += took.as_secs_f64();
        }
        state.losses.push(sums.mean_loss());
    }

    /// Looks at the validation rows. `false`: it was asked to stop before all were seen, and nothing has changed.
    fn look(&mut self) -> Result<bool> {
        let Some(rows) = self.training.validation else { return Ok(true) };
        let mut sums = Sums::default();
        for index in 0..self.validation.len() {
            if self.interrupted()? {
                return Ok(false);
            }
            let loaded = feed::load(rows, self.validation[index].clone())?;
            if loaded.batch.labels.is_empty() {
                continue;
            }
            sums.add(&objective::evaluate(self.training.options.method, (self.training.learner, &self.parameters), &loaded.batch)?);
            expect_number(self.state.step, &sums, &loaded.rows)?;
        }
        let step = self.state.step;
        if sums.labels == 0 {
            return Err(Error::Rows { set: "validation", what: "none of them has anything to foretell".to_owned() });
        }
        let samples = self.observer.samples(step, &self.parameters).map_err(Error::Observer)?;
        let evaluation = Evaluation::new(step, &sums, samples);
        let enough = stopping::take(&mut self.state, &evaluation, self.training.options);
        self.observer.metrics(&Record::Evaluation(evaluation.clone())).map_err(Error::Observer)?;
        self.state.evaluations.push(evaluation);
        if step >= self.steps {
            self.state.ended = Some(Ending::Completed);
        } else if enough {
            self.state.ended = Some(Ending::EarlyStopped);
        }
        // Also where nothing better was found: looking again would cost more than writing.
        self.save()?;
        Ok(true)
    }

    fn evaluation_is_due(&self) -> bool {
        let step = self.state.step;
        let seen = self.state.evaluations.last().is_some_and(|evaluation| evaluation.step == step);
        let due = step >= self.steps || self.every(self.training.options.evaluate_every_steps);
        self.training.validation.is_some() && step > 0 && !seen && due
    }

    fn checkpoint_is_due(&self) -> bool {
        self.every(self.training.options.save_every_steps)
    }

    /// Every so many steps, or after each epoch.
    fn every(&self, steps: Option<u64>) -> bool {
        self.state.step > 0 && steps.map_or(self.state.cursor.batch == 0, |steps| self.state.step.is_multiple_of(steps))
    }

    /// Writes a checkpoint, unless there is one of this very state or there is nothing to write.
    fn save(&mut self) -> Result<()> {
        let known = self.saved.as_ref().is_some_and(|saved| *saved == Saved::new(saved.name.clone(), &self.state));
        if known || self.state.step == 0 {
            return Ok(());
        }
        let name = self.checkpoints.save(&mut self.state, &self.parameters, &self.optimizer.state())?;
        self.saved = Some(Saved::new(name, &self.state));
        Ok(())
    }

    /// Waits where it is asked to. `true`: it is asked to stop.
    fn interrupted(&mut self) -> Result<bool> {
        if self.observer.should_hold() {
            self.save()?;
            let Self { pace, observer, .. } = self;
            pace.uncounted(|| observer.hold());
        }
        Ok(self.observer.should_stop())
    }

    /// `in_work`: tokens of the step that is not made yet.
    fn tell(&mut self, in_work: u64) {
        let progress = Progress {
            step: self.state.step,
            steps: self.steps,
            epoch: self.state.cursor.epoch,
            tokens: self.state.tokens + in_work,
            tokens_per_s: self.pace.tokens_per_s(),
            remaining: self.pace.remaining(self.steps - self.state.step),
        };
        self.observer.progress(&progress);
    }
}

fn expect_number(step: u64, sums: &Sums, rows: &[usize]) -> Result<()> {
    if sums.loss.is_finite() { Ok(()) } else { Err(Error::Loss { step, loss: sums.loss, rows: rows.to_vec() }) }
}
