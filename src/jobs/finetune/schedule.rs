//! The learning rate of each step, by the formulas of Hugging Face (`transformers/optimization.py`), to the bit.

use std::f64::consts::PI;

use super::options::{Options, Shape, Warmup};

/// How the learning rate goes in a run of a known length.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Schedule {
    shape: Shape,
    warmup_steps: u64,
    steps: u64,
}

impl Schedule {
    /// As `get_scheduler` makes it of a run of so many steps.
    #[must_use]
    pub fn new(options: &Options, steps: u64) -> Self {
        Self { shape: options.schedule, warmup_steps: warmup(options, steps), steps }
    }

    /// What the learning rate of a step, counted from 0, is multiplied with. With a warm-up, the first step's is 0.
    #[must_use]
    pub fn factor(&self, step: u64) -> f64 {
        let rising = step < self.warmup_steps && self.shape != Shape::Constant;
        if rising {
            return float(step) / float(self.warmup_steps.max(1));
        }
        let falling_steps = float(self.steps.saturating_sub(self.warmup_steps).max(1));
        match self.shape {
            Shape::Constant | Shape::ConstantWithWarmup => 1.0,
            Shape::Linear => float(self.steps.saturating_sub(step)) / falling_steps,
            Shape::Cosine => {
                let progress = float(step - self.warmup_steps) / falling_steps;
                (0.5 * (1.0 + (PI * progress).cos())).max(0.0)
            }
        }
    }
}

/// Steps of the warm-up: as given, or the share of all, rounded up.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a share of a number of steps")]
fn warmup(options: &Options, steps: u64) -> u64 {
    match options.warmup {
        Warmup::Steps(given) => given,
        Warmup::Ratio(ratio) => (float(steps) * ratio).ceil() as u64,
    }
}

#[expect(clippy::cast_precision_loss, reason = "no run has 2^53 steps")]
fn float(steps: u64) -> f64 {
    steps as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn factors(shape: Shape, warmup_steps: u64, steps: u64) -> Vec<f64> {
        let options = Options { schedule: shape, warmup: Warmup::Steps(warmup_steps), ..Options::default() };
        (0..=steps).map(|step| Schedule::new(&options, steps).factor(step)).collect()
    }

    #[test]
    fn each_shape_goes_as_it_is_called() {
        assert_eq!(factors(Shape::Constant, 2, 3), [1.0; 4]);
        assert_eq!(factors(Shape::ConstantWithWarmup, 2, 4), [0.0, 0.5, 1.0, 1.0, 1.0]);
        assert_eq!(factors(Shape::Linear, 2, 6), [0.0, 0.5, 1.0, 0.75, 0.5, 0.25, 0.0]);
        let cosine = factors(Shape::Cosine, 0, 4);
        assert_eq!((cosine[0], cosine[4]), (1.0, 0.0));
        assert!((cosine[2] - 0.5).abs() < 1e-15 && (cosine[1] - 0.853_553_390_593_273_8).abs() < 1e-15, "{cosine:?}");
    }

    #[derive(serde::Deserialize)]
    struct Golden {
        learning_rate: f64,
        schedules: Vec<Run>,
    }

    #[derive(serde::Deserialize)]
    struct Run {
        schedule: Shape,
        warmup_steps: u64,
        total_steps: u64,
        #[serde(with = "crate::jobs::finetune::exact::list")]
        learning_rates: Vec<f64>,
    }

    #[test]
    fn every_learning_rate_is_hugging_faces() {
        let golden: Golden = serde_json::from_str(include_str!("../../../tests/golden/finetune/schedules.json")).expect("read");
        assert!(golden.schedules.len() >= 28);
        for run in golden.schedules {
            let factors = factors(run.schedule, run.warmup_steps, run.total_steps);
            let rates: Vec<f64> = factors.iter().map(|factor| golden.learning_rate * factor).take(run.learning_rates.len()).collect();
            assert_eq!(rates, run.learning_rates, "{:?} {} {}", run.schedule, run.warmup_steps, run.total_steps);
        }
    }

    #[test]
    fn a_warm_up_may_be_a_share_and_may_be_longer_than_the_run() {
        let options = Options { schedule: Shape::Linear, warmup: Warmup::Ratio(0.03), ..Options::default() };
        assert_eq!(Schedule::new(&options, 101).warmup_steps, 4);
        assert_eq!(factors(Shape::Linear, 8, 2), [0.0, 0.125, 0.25]);
        assert_eq!(factors(Shape::Cosine, 1, 0), [0.0]);
    }
}
