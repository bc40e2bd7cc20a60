//! A learner small enough to be right at a glance: ln softmax of one row of numbers for each token, foretelling the next.

use candle_core::{DType, Device, Result, Tensor};

use crate::jobs::finetune::batch::{Batch, Label, Row};
use crate::jobs::finetune::learner::{Learner, Pass, Tensors};
use crate::jobs::finetune::rng::{Philox, Purpose};

/// So many that the table is large enough to have its state in 8 bits.
pub const TOKENS: usize = 64;
/// Those that are in rows.
const USED: usize = 8;
pub const TABLE: &str = "table.weight";
pub const BIAS: &str = "table.bias";

/// Scores of the token after another: those of the base, plus a row of the table, plus the bias.
#[derive(Debug, Default)]
pub struct Bigrams {
    /// Whether a quarter of the table's numbers is dropped in each pass.
    pub dropping: bool,
    /// What is broken, if anything.
    pub broken: Option<Broken>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Broken {
    Nan,
    Certain,
    NoBias,
    StillBias,
}

pub fn parameters() -> Tensors {
    let zeros = |shape: &[usize]| Tensor::zeros(shape, DType::F32, &Device::Cpu).expect("made");
    Tensors::from([(TABLE.to_owned(), zeros(&[TOKENS, TOKENS])), (BIAS.to_owned(), zeros(&[TOKENS]))])
}

/// Zeros where there are none.
pub fn numbers(parameters: &Tensors, name: &str) -> Vec<f32> {
    let count = if name == TABLE { TOKENS * TOKENS } else { TOKENS };
    parameters.get(name).map_or_else(|| vec![0.0; count], |tensor| tensor.flatten_all().expect("flat").to_vec1().expect("numbers"))
}

/// Rows that go round: after each token comes the one three further on, and now and then another one.
pub fn rows(count: usize) -> Vec<Row> {
    let row = |row: usize| {
        let token = |place: usize| ((row + 3 * place + usize::from(place % 5 == 4)) % USED) as u32;
        let tokens: Vec<u32> = (0..2 + row * 7 % 11).map(token).collect();
        let weight = |place: usize| if place == 1 && tokens.len() > 3 { 0.0 } else { 1.0 };
        let weights = (0..tokens.len()).map(weight).collect();
        Row { tokens, weights }
    };
    (0..count).map(row).collect()
}

/// The model as it is in one pass.
struct Model {
    table: Vec<f32>,
    bias: Vec<f32>,
    /// What the table's numbers are multiplied with.
    kept: Vec<f64>,
}

impl Model {
    fn new(parameters: &Tensors, dropping: Option<Pass>) -> Self {
        let kept = dropping.map_or_else(
            || vec![1.0; TOKENS * TOKENS],
            |pass| {
                let stream = Philox::new(pass.seed).stream(Purpose::Dropout, [pass.step, pass.micro_batch, 0, 0]);
                let drawn = |place: usize| stream.at(place as u64);
                (0..TOKENS * TOKENS).map(|place| if drawn(place).is_multiple_of(4) { 0.0 } else { 4.0 / 3.0 }).collect()
            },
        );
        Self { table: numbers(parameters, TABLE), bias: numbers(parameters, BIAS), kept }
    }

    fn probabilities(&self, before: usize) -> Vec<f64> {
        let score = |token: usize| {
            let place = before * TOKENS + token;
            let base = f64::from((before * 5 + token * 3) as u32 % 7) * 0.1;
            (base + self.kept[place] * f64::from(self.table[place]) + f64::from(self.bias[token])).exp()
        };
        let scores: Vec<f64> = (0..TOKENS).map(score).collect();
        let sum: f64 = scores.iter().sum();
        scores.iter().map(|score| score / sum).collect()
    }
}

impl Bigrams {
    fn answer(&self, probabilities: &[f64], label: &Label) -> f32 {
        match self.broken {
            Some(Broken::Nan) => f32::NAN,
            Some(Broken::Certain) => 0.0,
            _ => probabilities[label.token as usize].ln() as f32,
        }
    }
}

impl Learner for Bigrams {
    fn log_probs(&self, parameters: &Tensors, batch: &Batch) -> Result<Vec<f32>> {
        let model = Model::new(parameters, None);
        let of = |label: &Label| self.answer(&model.probabilities(batch.tokens[label.place] as usize), label);
        Ok(batch.labels.iter().map(of).collect())
    }

    fn accumulate(&self, parameters: &Tensors, batch: &Batch, pass: Option<Pass>, gradients: &mut Tensors) -> Result<Vec<f32>> {
        let model = Model::new(parameters, pass.filter(|_| self.dropping));
        let (mut table, mut bias, mut found) = (vec![0.0_f64; TOKENS * TOKENS], vec![0.0_f64; TOKENS], Vec::new());
        for label in &batch.labels {
            let before = batch.tokens[label.place] as usize;
            let probabilities = model.probabilities(before);
            for (token, probability) in probabilities.iter().enumerate() {
                let slope = f64::from(label.weight) * (probability - f64::from(u8::from(token == label.token as usize)));
                table[before * TOKENS + token] += slope * model.kept[before * TOKENS + token];
                bias[token] += slope;
            }
            found.push(self.answer(&probabilities, label));
        }
        if self.broken == Some(Broken::StillBias) {
            bias.fill(0.0);
        }
        add(gradients, TABLE, &table, &[TOKENS, TOKENS])?;
        if self.broken != Some(Broken::NoBias) {
            add(gradients, BIAS, &bias, &[TOKENS])?;
        }
        Ok(found)
    }
}

fn add(gradients: &mut Tensors, name: &str, more: &[f64], shape: &[usize]) -> Result<()> {
    let more = Tensor::from_vec(more.iter().map(|number| *number as f32).collect::<Vec<_>>(), shape, &Device::Cpu)?;
    let sum = gradients.get(name).map_or_else(|| Ok(more.clone()), |before| before + &more)?;
    gradients.insert(name.to_owned(), sum);
    Ok(())
}
