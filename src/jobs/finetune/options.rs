//! How a model is trained: everything that can be chosen, with defaults that suit LoRA.

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::domain::digest::Digest;

/// All of it is part of what a checkpoint belongs to: a run goes on with the options it began with, or not at all.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Options {
    pub method: Method,
    /// Of the order of rows, and of what is dropped.
    pub seed: u64,
    /// How often every row is read.
    pub epochs: u32,
    /// In the place of `epochs`: so many steps of the optimiser, however often rows are read for them.
    pub max_steps: Option<u64>,
    /// Most tokens of one row; longer ones are refused.
    pub sequence_tokens: usize,
    /// Most tokens of one pass.
    pub batch_tokens: usize,
    /// Most rows of one pass; pairs count as two.
    pub batch_rows: Option<usize>,
    /// Passes before one step of the optimiser.
    pub accumulation: usize,
    /// Whether rows are put together so that each pass is full; otherwise those that are about as long are.
    pub packing: bool,
    pub learning_rate: f64,
    /// LoRA+ (Hayou et al. 2024, arXiv:2402.12354): how many times faster B learns than A. The paper uses 16.
    pub lora_plus_ratio: f64,
    /// Decoupled: of each parameter, times the learning rate, a step. Norms and biases are spared.
    pub weight_decay: f64,
    pub betas: [f64; 2],
    pub epsilon: f64,
    /// Longest gradient; longer ones are scaled down to it. `None`: none is.
    pub max_gradient_norm: Option<f64>,
    /// Whether the optimiser keeps its state in 8 bits a number rather than 32.
    pub eight_bit: bool,
    pub schedule: Shape,
    /// Until the full learning rate.
    pub warmup: Warmup,
    /// Steps between two looks at the validation rows. `None`: after each epoch.
    pub evaluate_every_steps: Option<u64>,
    /// By which figure of the validation rows the best parameters are known.
    pub metric: Metric,
    /// Looks in a row that found nothing better, after which training ends.
    pub patience: Option<u32>,
    /// What counts as better, for patience.
    pub min_delta: f64,
    /// Steps between two checkpoints. `None`: after each epoch. One is also written of the best parameters, and when the run is stopped.
    pub save_every_steps: Option<u64>,
    /// Which parameters are the result.
    pub keep: Keep,
}

/// What is learnt from the rows.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Method {
    /// To foretell their tokens.
    Sft,
    /// To prefer one row of each pair to the other, without going far from the base model.
    Dpo { beta: f64 },
    /// Both at once, without a look at the base model.
    Orpo { lambda: f64 },
    /// To foretell their tokens, and to find all others as likely as a teacher does.
    Distill(Distill),
}

/// Knowledge distillation (Hinton, Vinyals and Dean 2015, arXiv:1503.02531): (1 − α) · −ln p + α · T² · KL(teacher ‖ learner).
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Distill {
    /// α: how much the teacher counts; at 1 the rows' own tokens count for nothing.
    pub alpha: f64,
    /// T: what logits are divided by before both are compared, so that unlikely tokens count, too.
    pub temperature: f64,
}

impl Default for Distill {
    fn default() -> Self {
        Self { alpha: 0.5, temperature: 2.0 }
    }
}

impl Method {
    /// Whether rows belong together by twos.
    #[must_use]
    pub fn pairs(self) -> bool {
        matches!(self, Self::Dpo { .. } | Self::Orpo { .. })
    }
}

/// How the learning rate goes, by the names of Hugging Face.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Shape {
    Constant,
    ConstantWithWarmup,
    Linear,
    Cosine,
}

/// How long the learning rate rises.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Warmup {
    Steps(u64),
    /// Of all steps.
    Ratio(f64),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Metric {
    Loss,
    Perplexity,
    /// The share of pairs whose preferred row is preferred; of DPO and ORPO only.
    PreferenceAccuracy,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Keep {
    /// The last, where there are no validation rows.
    Best,
    Last,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            method: Method::Sft,
            seed: 42,
            epochs: 3,
            max_steps: None,
            sequence_tokens: 2048,
            batch_tokens: 2048,
            batch_rows: None,
            accumulation: 4,
            packing: true,
            learning_rate: 2e-4,
            lora_plus_ratio: 1.0,
            weight_decay: 0.0,
            betas: [0.9, 0.999],
            epsilon: 1e-8,
            max_gradient_norm: Some(1.0),
            eight_bit: false,
            schedule: Shape::Cosine,
            warmup: Warmup::Ratio(0.03),
            evaluate_every_steps: None,
            metric: Metric::Loss,
            patience: None,
            min_delta: 0.0,
            save_every_steps: None,
            keep: Keep::Best,
        }
    }
}

impl Options {
    /// # Errors
    /// Everything that is wrong, each with its key.
    pub fn validate(&self) -> Result<(), Vec<String>> {
        let mut problems = self.lengths();
        problems.extend(self.numbers());
        problems.extend(self.contradictions());
        if problems.is_empty() { Ok(()) } else { Err(problems) }
    }

    fn lengths(&self) -> Vec<String> {
        let counts = [
            ("epochs", self.max_steps.is_some() || self.epochs > 0),
            ("max_steps", self.max_steps != Some(0)),
            ("batch_rows", self.batch_rows != Some(0)),
            ("accumulation", self.accumulation > 0),
            ("evaluate_every_steps", self.evaluate_every_steps != Some(0)),
            ("patience", self.patience != Some(0)),
            ("save_every_steps", self.save_every_steps != Some(0)),
        ];
        let mut problems: Vec<_> = counts.iter().filter(|(_, fine)| !fine).map(|(key, _)| format!("`{key}` must be at least 1")).collect();
        if self.sequence_tokens < 2 {
            problems.push("`sequence_tokens` must be at least 2: a row of one token has nothing to foretell".to_owned());
        }
        problems
    }

    fn numbers(&self) -> Vec<String> {
        let share = |number: f64| (0.0..1.0).contains(&number);
        let positive = |number: f64| number.is_finite() && number > 0.0;
        let ratio = if let Warmup::Ratio(ratio) = self.warmup { ratio } else { 0.0 };
        let (mut beta, mut lambda, mut distill) = (1.0, 1.0, Distill::default());
        match self.method {
            Method::Sft => {}
            Method::Dpo { beta: given } => beta = given,
            Method::Orpo { lambda: given } => lambda = given,
            Method::Distill(given) => distill = given,
        }
        [
            ("learning_rate", "above 0", positive(self.learning_rate)),
            ("lora_plus_ratio", "above 0", positive(self.lora_plus_ratio)),
            ("weight_decay", "0 or above", self.weight_decay == 0.0 || positive(self.weight_decay)),
            ("betas", "two numbers from 0 to below 1", self.betas.into_iter().all(share)),
            ("epsilon", "above 0", positive(self.epsilon)),
            ("max_gradient_norm", "above 0, or absent", self.max_gradient_norm.is_none_or(positive)),
            ("warmup.ratio", "from 0 to below 1", share(ratio)),
            ("min_delta", "0 or above", self.min_delta == 0.0 || positive(self.min_delta)),
            ("method.dpo.beta", "above 0", positive(beta)),
            ("method.orpo.lambda", "above 0", positive(lambda)),
            ("method.distill.alpha", "above 0 and at most 1", positive(distill.alpha) && distill.alpha <= 1.0),
            ("method.distill.temperature", "from 0.05 to 100", (0.05..=100.0).contains(&distill.temperature)),
        ]
        .into_iter()
        .filter(|(_, _, fine)| !fine)
        .map(|(key, range, _)| format!("`{key}` must be {range}"))
        .collect()
    }

    fn contradictions(&self) -> Vec<String> {
        let mut problems = Vec::new();
        let unit = if self.method.pairs() { 2 } else { 1 };
        if self.batch_tokens < unit * self.sequence_tokens {
            problems.push(format!(
                "`batch_tokens` ({}) must hold {} of `sequence_tokens` ({})",
                self.batch_tokens,
                if unit == 2 { "two rows" } else { "a row" },
                self.sequence_tokens
            ));
        }
        if self.batch_rows.is_some_and(|rows| rows > 0 && rows < unit) {
            problems.push("`batch_rows` must be at least 2 where rows are pairs".to_owned());
        }
        if self.metric == Metric::PreferenceAccuracy && !self.method.pairs() {
            problems.push("`metric` is `preference_accuracy`, which only `dpo` and `orpo` have".to_owned());
        }
        problems
    }

    /// SHA-256 of everything that was chosen, in hexadecimal.
    #[must_use]
    pub fn hash(&self) -> String {
        // Only maps with keys that are no texts, and there are none, could fail.
        let text = serde_json::to_string(self).unwrap_or_default();
        Digest::new(Sha256::digest(text).into()).hex()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn nothing_given_is_the_defaults_and_misspellings_are_refused() {
        let read: Options = serde_json::from_value(json!({})).expect("valid");
        assert_eq!(read, Options::default());
        assert_eq!(read.validate(), Ok(()));
        assert!(serde_json::from_value::<Options>(json!({"learnig_rate": 1})).is_err());
        let dpo: Options =
            serde_json::from_value(json!({"method": {"dpo": {"beta": 0.1}}, "schedule": "constant_with_warmup"})).expect("valid");
        assert_eq!((dpo.method, dpo.schedule), (Method::Dpo { beta: 0.1 }, Shape::ConstantWithWarmup));
        assert!(serde_json::from_value::<Options>(json!({"method": {"dpo": {"beta": 0.1, "gamma": 1}}})).is_err());
        let distill: Options = serde_json::from_value(json!({"method": {"distill": {"alpha": 0.25}}})).expect("valid");
        assert_eq!(distill.method, Method::Distill(Distill { alpha: 0.25, temperature: 2.0 }));
        assert!(!distill.method.pairs() && serde_json::from_value::<Options>(json!({"method": {"distill": {"beta": 1}}})).is_err());
    }

    #[test]
    fn all_problems_are_told_at_once() {
        let wrong = Options {
            method: Method::Dpo { beta: f64::NAN },
            epochs: 0,
            batch_rows: Some(1),
            accumulation: 0,
            learning_rate: 0.0,
            betas: [0.9, 1.0],
            max_gradient_norm: Some(-1.0),
            warmup: Warmup::Ratio(1.0),
            ..Options::default()
        };
        let problems = wrong.validate().expect_err("wrong");
        for key in ["epochs", "accumulation", "learning_rate", "betas", "max_gradient_norm", "beta", "batch_tokens", "batch_rows", "warmup"]
        {
            assert!(problems.iter().any(|problem| problem.contains(key)), "{key}: {problems:?}");
        }
        assert_eq!(problems.len(), 9, "{problems:?}");
    }

    #[test]
    fn a_teacher_counts_for_something_and_softens_by_a_number() {
        let problems = |alpha, temperature| {
            let options = Options { method: Method::Distill(Distill { alpha, temperature }), ..Options::default() };
            options.validate().err().unwrap_or_default().join("; ")
        };
        assert_eq!(problems(1.0, 1.0), "");
        for alpha in [0.0, -0.5, 1.01, f64::NAN, f64::INFINITY] {
            assert!(problems(alpha, 2.0).contains("`method.distill.alpha` must be above 0 and at most 1"), "{alpha}");
        }
        for temperature in [0.0, -1.0, 1e9, f64::NAN] {
            assert!(problems(0.5, temperature).contains("`method.distill.temperature`"), "{temperature}");
        }
    }

    #[test]
    fn every_choice_changes_the_hash() {
        let plain = Options::default();
        assert_eq!(plain.hash(), Options::default().hash());
        assert_ne!(plain.hash(), Options { min_delta: 1e-9, ..Options::default() }.hash());
        assert_ne!(plain.hash(), Options { method: Method::Orpo { lambda: 0.1 }, ..Options::default() }.hash());
    }
}
