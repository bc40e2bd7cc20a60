//! Runs of the trainer on a learner whose gradient is exact.

#![expect(clippy::cast_possible_truncation, clippy::cast_precision_loss, reason = "small numbers")]

mod resuming;
mod toy;

use std::io;
use std::path::Path;

use super::*;
use crate::jobs::finetune::batch::Row;
use crate::jobs::finetune::objective::{self, Sums};
use crate::jobs::finetune::options::{Method, Metric, Shape, Warmup};
use toy::{BIAS, Bigrams, Broken, TABLE, numbers};

/// What a run is made of, to be changed by the tests.
struct Case {
    learner: Bigrams,
    rows: Vec<Row>,
    validation: Vec<Row>,
    options: Options,
    clock: Clock,
}

impl Case {
    fn new(options: Options) -> Self {
        Self { learner: Bigrams::default(), rows: toy::rows(40), validation: toy::rows(12), options, clock: Clock::fake(0) }
    }

    fn run(&self, folder: &Path, observer: &mut dyn Observer) -> Result<Trained> {
        let training = Training {
            learner: &self.learner,
            rows: &self.rows,
            validation: (!self.validation.is_empty()).then_some(&self.validation as &dyn Rows),
            options: &self.options,
            data: "data",
            base: "base",
            folder,
            clock: &self.clock,
        };
        train(&training, toy::parameters(), observer)
    }

    fn alone(&self) -> Result<Trained> {
        self.run(tempfile::tempdir().expect("a folder").path(), &mut Alone)
    }
}

fn options() -> Options {
    Options {
        sequence_tokens: 16,
        batch_tokens: 32,
        accumulation: 2,
        epochs: 4,
        learning_rate: 0.05,
        schedule: Shape::Linear,
        warmup: Warmup::Steps(2),
        weight_decay: 0.01,
        ..Options::default()
    }
}

/// Keeps what it hears.
#[derive(Default)]
struct Heard {
    begun: Vec<(u64, usize)>,
    steps: Vec<Step>,
    progress: Vec<Progress>,
}

impl Observer for Heard {
    fn begin(&mut self, steps: u64, evaluations: usize) -> io::Result<()> {
        self.begun.push((steps, evaluations));
        Ok(())
    }

    fn progress(&mut self, progress: &Progress) {
        self.progress.push(*progress);
    }

    fn metrics(&mut self, record: &Record) -> io::Result<()> {
        if let Record::Step(step) = record {
            self.steps.push(step.clone());
        }
        Ok(())
    }

    fn memory_bytes(&mut self) -> Option<u64> {
        Some(1000 + self.steps.len() as u64 % 3)
    }
}

#[test]
fn what_is_there_to_learn_is_learnt_and_told() {
    let case = Case::new(Options { epochs: 30, ..options() });
    let mut heard = Heard::default();
    let trained = case.run(tempfile::tempdir().expect("a folder").path(), &mut heard).expect("trained");
    let Summary { ending, step, steps, losses, evaluations, epoch_seconds, peak_memory_bytes, tokens, .. } = trained.summary;
    assert_eq!((ending, step, heard.begun), (Ending::Completed, steps, vec![(0, 0)]));
    assert_eq!((losses.len() as u64, heard.steps.len() as u64), (steps, steps));
    assert_eq!((evaluations.len(), epoch_seconds.len(), peak_memory_bytes), (30, 30, Some(1002)));
    assert_eq!(tokens, 30 * case.rows.iter().map(|row| row.tokens.len() as u64).sum::<u64>());
    assert!(losses[0] > 3.5 && losses[losses.len() - 1] < 1.0, "{losses:?}");
    let last = evaluations.last().expect("looked");
    assert!((last.perplexity.ln() - last.loss).abs() < 1e-12 && last.loss < 1.0, "{last:?}");
    let schedule = Schedule::new(&case.options, steps);
    for (index, step) in (0..).zip(&heard.steps) {
        assert!((step.learning_rate - 0.05 * schedule.factor(index)).abs() < 1e-18 && step.gradient_norm > 0.0);
    }
    assert_eq!(heard.progress.last().map(|progress| (progress.step, progress.tokens)), Some((steps, tokens)));
}

/// One step over all rows, cut into passes in several ways.
fn one_step(method: Method, batch_tokens: usize, batch_rows: Option<usize>) -> (f64, f64) {
    let mut case = Case::new(Options {
        method,
        batch_tokens,
        batch_rows,
        accumulation: 1000,
        epochs: 1,
        warmup: Warmup::Steps(0),
        max_gradient_norm: None,
        ..options()
    });
    case.validation.clear();
    let mut heard = Heard::default();
    case.run(tempfile::tempdir().expect("a folder").path(), &mut heard).expect("trained");
    assert_eq!(heard.steps.len(), 1);
    (heard.steps[0].loss, heard.steps[0].gradient_norm)
}

#[test]
fn however_a_step_is_cut_it_is_the_same_step() {
    for method in [Method::Sft, Method::Dpo { beta: 0.5 }, Method::Orpo { lambda: 0.3 }] {
        let (loss, norm) = one_step(method, 100_000, None);
        for (batch_tokens, batch_rows) in [(32, None), (100_000, Some(2)), (48, Some(6))] {
            let cut = one_step(method, batch_tokens, batch_rows);
            assert!((cut.0 - loss).abs() < 1e-7 && (cut.1 / norm - 1.0).abs() < 1e-6, "{method:?}: {cut:?} {loss} {norm}");
        }
    }
}

/// The gradient of each loss is what small steps of the parameters find.
#[test]
fn gradients_are_the_slopes_of_their_losses() {
    let rows = toy::rows(8);
    let mut batch = crate::jobs::finetune::batch::Batch::default();
    for row in &rows {
        batch.push(row);
    }
    let learner = Bigrams::default();
    let mut parameters = toy::parameters();
    let table: Vec<f32> = (0..4096_u32).map(|place| (place * 37 % 64) as f32 / 40.0 - 0.8).collect();
    let with = |numbers: &[f32]| Tensor::from_slice(numbers, (64, 64), &Device::Cpu).expect("made");
    parameters.insert(TABLE.to_owned(), with(&table));
    for method in [Method::Sft, Method::Dpo { beta: 0.5 }, Method::Orpo { lambda: 0.3 }] {
        let whole = objective::weight(method, &batch);
        let pass = crate::jobs::finetune::learner::Pass { seed: 0, step: 0, micro_batch: 0 };
        let mut gradients = Tensors::new();
        objective::learn(method, (&learner, &parameters), &batch, whole, pass, &mut gradients).expect("learnt");
        let loss = |place: usize, by: f32| {
            let mut moved = table.clone();
            moved[place] += by;
            let moved = Tensors::from([(TABLE.to_owned(), with(&moved)), (BIAS.to_owned(), parameters[BIAS].clone())]);
            objective::evaluate(method, (&learner, &moved), &batch).as_ref().map(Sums::mean_loss).expect("seen")
        };
        for (place, slope) in numbers(&gradients, TABLE).into_iter().enumerate().take(8 * 64).step_by(11) {
            let found = (loss(place, 0.01) - loss(place, -0.01)) / 0.02;
            assert!((found - f64::from(slope)).abs() < 2e-5, "{method:?} {place}: {found} {slope}");
        }
    }
}

#[test]
fn preferences_are_learnt() {
    // The preferred rows go on by three, the others by one.
    let row = |start: u32, by: u32| Row { tokens: (0..6).map(|place| (start + by * place) % 8).collect(), weights: vec![1.0; 6] };
    let pairs: Vec<Row> = (0..8).flat_map(|start| [row(start, 3), row(start, 1)]).collect();
    for method in [Method::Dpo { beta: 0.2 }, Method::Orpo { lambda: 0.5 }] {
        let options = Options { method, metric: Metric::PreferenceAccuracy, epochs: 12, ..options() };
        let case = Case { rows: pairs.clone(), validation: pairs.clone(), ..Case::new(options) };
        let summary = case.alone().expect("trained").summary;
        let last = summary.evaluations.last().and_then(|evaluation| evaluation.preferences).expect("pairs");
        assert!(last.accuracy > 0.99 && last.margin > 0.1, "{method:?} {last:?}");
        assert!(summary.losses.last() < summary.losses.first());
    }
}

#[test]
fn eight_bits_learn_about_as_well() {
    let run = |eight_bit| Case::new(Options { eight_bit, epochs: 20, ..options() }).alone().expect("trained");
    let (coarse, plain) = (run(true), run(false));
    assert_ne!(numbers(&coarse.parameters, TABLE), numbers(&plain.parameters, TABLE));
    let last = |trained: &Trained| trained.summary.evaluations.last().expect("looked").loss;
    assert!((last(&coarse) - last(&plain)).abs() < 0.05, "{} {}", last(&coarse), last(&plain));
}

#[test]
fn what_is_no_loss_and_no_gradient_is_named() {
    for (broken, word) in [
        (Broken::Nan, "the loss is NaN"),
        (Broken::Certain, "the loss is 0"),
        (Broken::NoBias, "`table.bias` is missing"),
        (Broken::StillBias, "`table.bias` is zero"),
    ] {
        let mut case = Case::new(options());
        case.learner.broken = Some(broken);
        let error = case.alone().expect_err("failed").to_string();
        assert!(error.contains(word) && error.contains("step 0"), "{error}");
    }
    let mut case = Case::new(options());
    case.rows.iter_mut().for_each(|row| row.weights.fill(0.0));
    assert!(case.alone().expect_err("failed").to_string().contains("nothing to foretell in rows"));
    let wrong = Case::new(Options { epochs: 0, accumulation: 0, ..options() });
    let error = wrong.alone().expect_err("refused").to_string();
    assert!(error.contains("epochs") && error.contains("accumulation"), "{error}");
    let hopeless = Case { validation: Vec::new(), ..Case::new(Options { patience: Some(1), ..options() }) };
    assert!(hopeless.alone().expect_err("refused").to_string().contains("no validation rows"));
}

#[test]
fn training_ends_where_nothing_better_is_found_and_gives_back_the_best() {
    // What is validated is the contrary of what is learnt, so that it soon gets worse.
    let mut case =
        Case::new(Options { epochs: 50, evaluate_every_steps: Some(1), patience: Some(3), warmup: Warmup::Steps(0), ..options() });
    case.validation.iter_mut().for_each(|row| row.tokens.iter_mut().for_each(|token| *token = 7 - *token));
    let folder = tempfile::tempdir().expect("a folder");
    let trained = case.run(folder.path(), &mut Alone).expect("trained");
    let summary = &trained.summary;
    let best = summary.best.as_ref().expect("looked");
    assert_eq!((summary.ending, summary.step), (Ending::EarlyStopped, best.step + 3));
    let lowest = summary.evaluations.iter().map(|evaluation| evaluation.loss).fold(f64::INFINITY, f64::min);
    assert_eq!(best.figure.to_bits(), lowest.to_bits());
    let last = Case { options: Options { keep: Keep::Last, ..case.options.clone() }, ..case }.alone().expect("trained");
    assert_ne!(numbers(&trained.parameters, TABLE), numbers(&last.parameters, TABLE));
    // Both are on the disk, and a run that has ended stays so.
    assert_eq!(std::fs::read_dir(folder.path()).expect("listed").count(), 2);
}
