//! The trainer's engine against `transformers` and `peft`: the runs of `tests/golden/finetune.py`, step by step.
//!
//! Figures are collected before they are judged, so that a failure shows how far off everything is.

mod golden;

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};
use std::{fmt, io};

use arriero::domain::clock::Clock;
use arriero::gguf::Header;
use arriero::jobs::finetune::batch::{Batch, Label, Row, Rows};
use arriero::jobs::finetune::engine::{self, Engine, Lora, Settings};
use arriero::jobs::finetune::learner::{Learner, Tensors};
use arriero::jobs::finetune::options::{Distill, Keep, Method, Options, Shape, Warmup};
use arriero::jobs::finetune::trainer::{Observer, Record, Step, Training, train};
use candle_core::{Device, Tensor};
use serde_json::Value;

use golden::{Golden, json, list, name_of, number, rows_of, whole};

/// Longer than any row of the golden files.
const LONGEST: usize = 64;

/// The largest differences of a run, and what they may be.
#[derive(Debug, Default, Clone, Copy)]
struct Figures {
    /// Of the loss in any step.
    loss: f64,
    /// Of the norm of all gradients in any step, relative.
    norm: f64,
    /// Of ln p of a label in the first step, over the largest: single precision has no more digits of large numbers.
    log_prob: f64,
    /// Of a tensor's gradient in the first step: the norm of the difference over the gradient's.
    gradient: f64,
    /// Of the norm of a tensor's gradient in the first step, relative; for the tensors whose gradients the files leave out.
    gradient_norm: f64,
    /// Of any number of the adapter after the last step.
    end: f64,
    /// Of ln p of every token at every place of one sequence at the start, over the largest logit.
    logit: f64,
}

/// What the differences may be on the CPU.
const GATES: Figures = Figures { loss: 5e-6, norm: 1e-5, log_prob: 1e-5, gradient: 1e-4, gradient_norm: 1e-4, end: 5e-4, logit: 1e-5 };

impl Figures {
    /// The gates of a run. Some of the random models let every rounding grow so much that PyTorch itself, in 32 bits, is beyond them or
    /// nearly so; then twice what it is off is allowed.
    fn gates(golden: &Golden) -> Self {
        let or = |gate: f64, figure: &str| gate.max(2.0 * number(&golden.json["single_precision"][figure]));
        Self { loss: or(GATES.loss, "loss"), norm: or(GATES.norm, "gradient_norm"), ..GATES }
    }

    fn each(&self) -> [(&'static str, f64); 7] {
        [
            ("loss", self.loss),
            ("norm", self.norm),
            ("ln p", self.log_prob),
            ("gradient", self.gradient),
            ("gradient's norm", self.gradient_norm),
            ("end", self.end),
            ("logit", self.logit),
        ]
    }

    /// Those that are not within the gates.
    fn failed(&self, gates: &Self) -> Vec<&'static str> {
        self.each()
            .iter()
            .zip(gates.each())
            .filter(|((_, found), (_, most))| found.is_nan() || found > most)
            .map(|((name, _), _)| *name)
            .collect()
    }
}

impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.each().iter().try_for_each(|(name, figure)| write!(f, "{name} {figure:.1e}  "))
    }
}

fn most(differences: impl IntoIterator<Item = f64>) -> f64 {
    // A NaN is no small difference.
    differences.into_iter().fold(0.0, |most, found| if found <= most { most } else { found })
}

fn numbers(tensor: &Tensor) -> Vec<f64> {
    let numbers: Vec<f32> = tensor.flatten_all().and_then(|flat| flat.to_vec1()).expect("numbers of single precision");
    numbers.into_iter().map(f64::from).collect()
}

fn norm(tensor: &Tensor) -> f64 {
    numbers(tensor).iter().map(|x| x * x).sum::<f64>().sqrt()
}

/// Compares what the first step gave.
fn first_step(golden: &Golden, log_probs: &[f32], gradients: &Tensors, figures: &mut Figures) {
    let expected = list(&golden.json["log_probs"]);
    assert_eq!(expected.len(), log_probs.len());
    let largest = most(expected.iter().map(|log_prob| number(log_prob).abs()));
    figures.log_prob = most(expected.iter().zip(log_probs).map(|(expected, found)| (number(expected) - f64::from(*found)).abs() / largest));
    let norms = golden.json["gradient_norms"].as_object().expect("norms");
    assert_eq!(norms.len(), gradients.len(), "as many gradients as parameters");
    figures.gradient_norm =
        most(norms.iter().map(|(theirs, expected)| (norm(&gradients[&name_of(theirs)]) / number(expected) - 1.0).abs()));
    let expected = golden.tensors("gradient");
    assert!(!expected.is_empty());
    figures.gradient = most(expected.iter().map(|(name, expected)| {
        let difference = gradients[name].sub(expected).unwrap_or_else(|error| panic!("{name}: {error}"));
        norm(&difference) / norm(expected)
    }));
}

/// Logits at the start, by way of ln p of every token at every place of a sequence.
fn logits(golden: &Golden, engine: &impl Learner, parameters: &Tensors) -> f64 {
    let expected = golden.logits();
    let mut batch = Batch::default();
    batch.push(&Row { tokens: golden::tokens(&json("batches")["sequence"]), weights: Vec::new() });
    let vocabulary = expected[0].len();
    let largest = most(expected.iter().flatten().map(|logit| f64::from(logit.abs())));
    let every = |place| (0..vocabulary).map(move |token| Label { place, token: u32::try_from(token).expect("small"), weight: 1.0 });
    batch.labels = (0..expected.len()).flat_map(every).collect();
    let found = engine.log_probs(parameters, &batch).expect("ln p");
    most(expected.iter().zip(found.chunks_exact(vocabulary)).flat_map(|(expected, found)| {
        let sum = expected.iter().map(|&logit| f64::from(logit).exp()).sum::<f64>().ln();
        expected.iter().zip(found).map(move |(expected, found)| (f64::from(*expected) - sum - f64::from(*found)).abs() / largest)
    }))
}

/// Rows in the order of the golden files, whatever the order that the trainer asks for.
struct InTurn {
    count: usize,
    rows: Mutex<VecDeque<Row>>,
}

impl InTurn {
    fn new(rows: impl IntoIterator<Item = Row>) -> Self {
        let rows: VecDeque<_> = rows.into_iter().collect();
        Self { count: rows.len(), rows: Mutex::new(rows) }
    }
}

impl Rows for InTurn {
    fn len(&self) -> usize {
        self.count
    }

    fn length(&self, _: usize) -> usize {
        LONGEST
    }

    fn row(&self, index: usize) -> io::Result<Row> {
        let next = self.rows.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
        // The trainer reads ahead into the next epoch, which is never made.
        Ok(next.unwrap_or_else(|| Row { tokens: vec![0; index.min(2)], weights: vec![1.0; index.min(2)] }))
    }
}

/// Keeps what it is told of the steps.
#[derive(Default)]
struct Steps(Vec<Step>);

impl Observer for Steps {
    fn metrics(&mut self, record: &Record) -> io::Result<()> {
        if let Record::Step(step) = record {
            self.0.push(step.clone());
        }
        Ok(())
    }
}

/// The trainer's steps over the rows, so many at a time, and what the parameters are afterwards.
fn trained(learner: &dyn Learner, options: &Options, rows: &InTurn, parameters: &Tensors) -> (Vec<Step>, Tensors) {
    let folder = tempfile::tempdir().expect("a folder");
    let training = Training {
        learner,
        rows,
        validation: None,
        options,
        data: "golden",
        base: "golden",
        folder: folder.path(),
        clock: &Clock::system(),
    };
    let mut steps = Steps::default();
    let trained = train(&training, parameters.clone(), &mut steps).expect("trained");
    (steps.0, trained.parameters)
}

/// As the script trains.
fn options(settings: &Value, method: Method, rows: usize) -> Options {
    let or = |name: &str, otherwise| settings[name].as_f64().unwrap_or(otherwise);
    Options {
        method,
        epochs: 1,
        sequence_tokens: LONGEST,
        batch_tokens: rows * LONGEST,
        batch_rows: Some(rows),
        accumulation: 1,
        packing: false,
        learning_rate: or("learning_rate", 1e-3),
        lora_plus_ratio: or("lora_plus_ratio", 1.0),
        weight_decay: or("weight_decay", 0.0),
        max_gradient_norm: Some(or("clip", 1.0)),
        schedule: Shape::Constant,
        warmup: Warmup::Steps(0),
        keep: Keep::Last,
        ..Options::default()
    }
}

/// Compares all steps, and what the parameters are after the last.
fn all_steps(golden: &Golden, steps: &[Step], parameters: &Tensors, figures: &mut Figures) {
    let expected = list(&golden.json["steps"]);
    assert_eq!(expected.len(), steps.len());
    let pairs = || expected.iter().zip(steps);
    figures.loss = most(pairs().map(|(expected, step)| (number(&expected["loss"]) - step.loss).abs()));
    figures.norm = most(pairs().map(|(expected, step)| (step.gradient_norm / number(&expected["gradient_norm"]) - 1.0).abs()));
    figures.end = most(golden.tensors("end").iter().flat_map(|(name, expected)| {
        let pairs = numbers(expected).into_iter().zip(numbers(&parameters[name]));
        pairs.map(|(expected, found)| (expected - found).abs()).collect::<Vec<_>>()
    }));
}

/// The engine on the model of a run, with what the script trained.
fn load(golden: &Golden) -> Engine {
    let settings = settings(golden);
    Engine::load(&golden.path, &golden.header, Device::Cpu, &settings).unwrap_or_else(|error| panic!("{}: {error}", golden.path.display()))
}

fn settings(golden: &Golden) -> Settings {
    let method = if golden.setting("method") == "full" {
        engine::Method::Full(Vec::new())
    } else {
        engine::Method::Lora(Lora {
            rank: whole(golden.setting("rank")),
            alpha: u16::try_from(whole(golden.setting("alpha"))).expect("small").into(),
            rslora: golden.setting("rslora") == true,
            dora: golden.setting("dora") == true,
            ..Lora::default()
        })
    };
    Settings { method, ..Settings::default() }
}

/// How far the engine is from a run. The settings that the script trained with are the file's.
fn figures_of(golden: &Golden) -> Figures {
    let engine = load(golden);
    let mut figures = Figures::default();
    let parameters = if golden.setting("method") == "lora" { golden.tensors("start") } else { engine.init(0).expect("the file's weights") };
    let batches = json("batches");
    let steps = || list(&batches["steps"]).iter();

    figures.logit = logits(golden, &engine, &parameters);
    let mut gradients = Tensors::new();
    let log_probs =
        engine.accumulate(&parameters, &batch_of_means(&rows_of(&batches["steps"][0])), None, &mut gradients).expect("gradients");
    first_step(golden, &log_probs, &gradients, &mut figures);

    let rows = InTurn::new(steps().flat_map(rows_of));
    let options = options(&golden.json["settings"], Method::Sft, 2);
    let (made, parameters) = trained(&engine, &options, &rows, &parameters);
    all_steps(golden, &made, &parameters, &mut figures);
    figures
}

/// All labels count the same, and all together 1.
#[expect(clippy::cast_precision_loss, reason = "some dozens of labels")]
fn batch_of_means(rows: &[Row]) -> Batch {
    let mut batch = Batch::default();
    for row in rows {
        batch.push(row);
    }
    let labels = batch.labels.len() as f32;
    batch.labels.iter_mut().for_each(|label| label.weight /= labels);
    batch
}

fn expect_within_gates(runs: &[&str]) {
    let mut failures = Vec::new();
    for run in runs {
        let golden = Golden::load(run);
        let (figures, gates) = (figures_of(&golden), Figures::gates(&golden));
        println!("{run}: {figures}");
        let failed = figures.failed(&gates);
        if !failed.is_empty() {
            failures.push(format!("{run}, {}: {figures}\n  of {gates}", failed.join(" and ")));
        }
    }
    assert!(failures.is_empty(), "beyond the gates:\n{}", failures.join("\n"));
}

#[test]
fn every_family_learns_as_with_peft() {
    expect_within_gates(&[
        "llama-untied-gqa",
        "llama3-scaling-tied",
        "mistral-window",
        "gemma-mqa",
        "gemma2-softcaps",
        "gemma3-window",
        "phi3-longrope",
        "phi3-partial-tied",
        "qwen2-biases",
        "qwen3-norms",
    ]);
}

#[test]
fn so_does_every_kind_of_adapter() {
    expect_within_gates(&["llama3-scaling-tied-rslora", "llama3-scaling-tied-dora", "llama3-scaling-tied-lora-plus"]);
}

#[test]
fn all_of_a_model_learns_as_with_pytorch() {
    expect_within_gates(&["llama3-scaling-tied-full"]);
}

/// The adapter starts as in the run of its model.
#[test]
fn the_opinions_of_a_teacher_are_learnt_as_with_pytorch() {
    let expected = json("distill");
    let options_of = &expected["settings"];
    let golden = Golden::load(options_of["model"].as_str().expect("a name"));
    let teacher = golden::folder().join(format!("lm_{}.gguf", options_of["teacher"].as_str().expect("a name")));
    let header = Header::read_file(&teacher).expect("a header");
    let engine = Engine::load_taught((&golden.path, &golden.header), (&teacher, &header), Device::Cpu, &settings(&golden)).expect("loaded");
    let (parameters, batches) = (golden.tensors("start"), json("batches"));
    let how = Distill { alpha: number(&options_of["share"]), temperature: number(&options_of["temperature"]) };

    let (batch, mut gradients) = (batch_of_means(&rows_of(&batches["steps"][0])), Tensors::new());
    let found = engine.distill(&parameters, &batch, how, None, &mut gradients).expect("gradients");
    let far = list(&expected["divergences"]).iter().zip(&found.divergences).map(|(theirs, ours)| (number(theirs) - f64::from(*ours)).abs());
    let norms = expected["gradient_norms"].as_object().expect("norms").iter();
    let figures = [
        ("divergence", most(far), 5e-6),
        (
            "gradient's norm",
            most(norms.map(|(name, theirs)| (norm(&gradients[&name_of(name)]) / number(theirs) - 1.0).abs())),
            GATES.gradient_norm,
        ),
    ];
    let rows = InTurn::new(list(&batches["steps"]).iter().flat_map(rows_of));
    let (made, _) = trained(&engine, &options(options_of, Method::Distill(how), 2), &rows, &parameters);
    let steps = list(&expected["steps"]);
    assert_eq!(steps.len(), made.len());
    let pairs = || steps.iter().zip(&made);
    let loss = most(pairs().map(|(theirs, ours)| (number(&theirs["loss"]) - ours.loss).abs()));
    let whole = most(pairs().map(|(theirs, ours)| (ours.gradient_norm / number(&theirs["gradient_norm"]) - 1.0).abs()));
    // As in `Figures::gates`.
    let or = |gate: f64, figure: &str| gate.max(2.0 * number(&expected["single_precision"][figure]));
    let of_steps = [("loss", loss, or(GATES.loss, "loss")), ("norm", whole, or(GATES.norm, "gradient_norm"))];
    for (what, found, gate) in figures.into_iter().chain(of_steps) {
        println!("{what} {found:.1e}");
        assert!(found <= gate, "{what}: {found:.1e} of {gate:.1e}");
    }
}

#[test]
fn preferences_are_weighed_by_the_formulas_of_their_papers() {
    let expected = json("preferences");
    let settings = &expected["settings"];
    let golden = Golden::load(settings["model"].as_str().expect("a name"));
    let (engine, parameters) = (load(&golden), golden.tensors("start"));
    for (name, method) in
        [("dpo", Method::Dpo { beta: number(&settings["beta"]) }), ("orpo", Method::Orpo { lambda: number(&settings["odds_weight"]) })]
    {
        let rows = InTurn::new(rows_of(&json("batches")["pairs"]));
        let (steps, _) = trained(&engine, &options(settings, method, 4), &rows, &parameters);
        let [step] = steps.as_slice() else { panic!("{} steps", steps.len()) };
        let (loss, norm) = (number(&expected[name]["loss"]), number(&expected[name]["gradient_norm"]));
        println!("{name}: loss {} apart, gradient norm {:.1e} of it", step.loss - loss, step.gradient_norm / norm - 1.0);
        assert!((step.loss - loss).abs() <= GATES.loss, "{name}: {} and not {loss}", step.loss);
        assert!((step.gradient_norm / norm - 1.0).abs() <= GATES.norm, "{name}: {} and not {norm}", step.gradient_norm);
    }
}
