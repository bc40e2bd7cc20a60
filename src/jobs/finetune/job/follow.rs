//! Who follows a training for a job or a command: what is told, written down, and tried out at each look.

use std::io;
use std::path::Path;

use crate::domain::clock::Clock;
use crate::jobs::finetune::busy::Busy;
use crate::jobs::finetune::checkpoint::Sample;
use crate::jobs::finetune::engine;
use crate::jobs::finetune::learner::Tensors;
use crate::jobs::finetune::report::{Events, Lines};
use crate::jobs::finetune::trainer::{Observer, Progress, Record};
use crate::jobs::make::Watcher;
use crate::lm::Device;

/// Lines of JSON, one for each step and each look.
pub const METRICS: &str = "metrics.jsonl";
/// Folder of files that TensorBoard reads.
pub const EVENTS: &str = "tensorboard";

/// Writes what the model says to prompts, with the parameters as they are.
pub type Sampler<'a> = dyn Fn(&Tensors) -> io::Result<Vec<Sample>> + 'a;

pub struct Following<'a> {
    watcher: &'a dyn Watcher,
    folder: &'a Path,
    device: &'a Device,
    busy: Busy,
    clock: &'a Clock,
    sampler: &'a Sampler<'a>,
    lines: Option<Lines>,
    events: Option<Events>,
}

impl<'a> Following<'a> {
    pub fn new(watcher: &'a dyn Watcher, folder: &'a Path, device: &'a Device, clock: &'a Clock, sampler: &'a Sampler<'a>) -> Self {
        Self { watcher, folder, device, busy: Busy::of(&device.candle()), clock, sampler, lines: None, events: None }
    }
}

impl Observer for Following<'_> {
    fn begin(&mut self, steps: u64, evaluations: usize) -> io::Result<()> {
        self.lines = Some(Lines::open(&self.folder.join(METRICS), steps, evaluations)?);
        let events = self.folder.join(EVENTS);
        std::fs::create_dir_all(&events)?;
        self.events = Some(Events::create(&events, self.clock.unix_ms(), steps)?);
        if steps > 0 {
            self.watcher.note(&format!("training goes on after step {steps}"));
        }
        Ok(())
    }

    fn progress(&mut self, progress: &Progress) {
        self.watcher.progress("train", progress.step, progress.steps, "steps");
    }

    fn metrics(&mut self, record: &Record) -> io::Result<()> {
        for (name, value) in figures(record) {
            self.watcher.metric(name, value);
        }
        self.watcher.note(&line(record));
        if let Some(lines) = &mut self.lines {
            lines.write(record)?;
        }
        let now = self.clock.unix_ms();
        self.events.as_mut().map_or(Ok(()), |events| events.write(now, record))
    }

    fn samples(&mut self, _: u64, parameters: &Tensors) -> io::Result<Vec<Sample>> {
        (self.sampler)(parameters)
    }

    fn should_stop(&mut self) -> bool {
        self.watcher.cancel().is_cancelled()
    }

    fn should_hold(&mut self) -> bool {
        self.watcher.must_wait()
    }

    fn hold(&mut self) {
        self.watcher.hold();
    }

    /// Of what is trained on.
    fn memory_bytes(&mut self) -> Option<u64> {
        if self.device.is_cpu() { crate::jobs::memory::own() } else { engine::peak_bytes(&self.device.candle()) }
    }

    fn device_use(&mut self) -> Option<f64> {
        self.busy.share()
    }
}

/// What is told as metrics, under the names that reports use.
#[expect(clippy::cast_precision_loss, reason = "bytes, which nobody reads to the last")]
fn figures(record: &Record) -> Vec<(&'static str, f64)> {
    match record {
        Record::Step(step) => {
            let of_step = [
                ("loss", step.loss),
                ("gradient_norm", step.gradient_norm),
                ("learning_rate", step.learning_rate),
                ("tokens_per_s", step.tokens_per_s),
            ];
            let of_device = [("memory_bytes", step.memory_bytes.map(|bytes| bytes as f64)), ("device_use", step.device_use)];
            let known = of_device.into_iter().filter_map(|(name, value)| Some((name, value?)));
            of_step.into_iter().chain(known).collect()
        }
        Record::Evaluation(look) => vec![("validation_loss", look.loss), ("validation_perplexity", look.perplexity)],
    }
}

fn line(record: &Record) -> String {
    match record {
        Record::Step(step) => format!(
            "step {}: loss {:.4}, gradient norm {:.3}, learning rate {:.2e}, {:.0} tokens/s",
            step.step, step.loss, step.gradient_norm, step.learning_rate, step.tokens_per_s
        ),
        Record::Evaluation(look) => {
            format!("validation after step {}: loss {:.4}, perplexity {:.3}", look.step, look.loss, look.perplexity)
        }
    }
}
