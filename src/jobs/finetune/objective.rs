//! What is made small: the losses of supervised fine-tuning, distillation, DPO and ORPO, as weights of labels.
//!
//! A learner knows Σ weight · −ln p and its gradient. For supervised tuning the weights are known beforehand. For preferences they are the
//! derivative of the loss by each log-probability, which is asked for first: exact, as long as nothing is dropped between the two passes
//! (with LoRA's dropout, the weights are those of the whole model).
//! A loss is a mean over the whole step of the optimiser, whatever the passes it is made in: of tokens by their weights, or of pairs.

use serde::{Deserialize, Serialize};

use super::batch::{Batch, Label};
use super::error::{Error, Result};
use super::learner::{Distilled, Learner, Pass, Tensors};
use super::options::{Distill, Method};

/// ORPO's odds are without bound where a row is certain; so near to that they are taken as they are here.
const CERTAIN: f64 = -1e-12;

/// Sums over batches, from which means are made. They add up.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Sums {
    /// Of weight · −ln p, or of the losses of pairs.
    pub loss: f64,
    /// What the loss is divided by: weights, or pairs.
    pub weight: f64,
    /// −ln p of every label that is to become likelier, whatever its weight.
    pub negative_log_likelihood: f64,
    pub labels: u64,
    pub tokens: u64,
    pub pairs: u64,
    /// Pairs whose preferred row is the preferred one.
    pub agreeing_pairs: u64,
    /// Of DPO, β times how much likelier than to the base model; of ORPO, λ times the mean ln p of a token.
    pub chosen_reward: f64,
    pub rejected_reward: f64,
}

impl Sums {
    pub fn add(&mut self, other: &Self) {
        self.loss += other.loss;
        self.weight += other.weight;
        self.negative_log_likelihood += other.negative_log_likelihood;
        self.labels += other.labels;
        self.tokens += other.tokens;
        self.pairs += other.pairs;
        self.agreeing_pairs += other.agreeing_pairs;
        self.chosen_reward += other.chosen_reward;
        self.rejected_reward += other.rejected_reward;
    }

    #[must_use]
    pub fn mean_loss(&self) -> f64 {
        self.loss / self.weight
    }

    #[must_use]
    #[expect(clippy::cast_precision_loss, reason = "no step has 2^53 labels")]
    pub fn perplexity(&self) -> f64 {
        (self.negative_log_likelihood / self.labels as f64).exp()
    }

    /// `None`: there were no pairs.
    #[must_use]
    #[expect(clippy::cast_precision_loss, reason = "no set has 2^53 pairs")]
    pub fn preferences(&self) -> Option<Preferences> {
        let mean = |sum: f64| sum / self.pairs as f64;
        (self.pairs > 0).then(|| Preferences {
            accuracy: mean(self.agreeing_pairs as f64),
            chosen_reward: mean(self.chosen_reward),
            rejected_reward: mean(self.rejected_reward),
            margin: mean(self.chosen_reward - self.rejected_reward),
        })
    }
}

/// Means over pairs.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Preferences {
    #[serde(with = "super::exact")]
    pub accuracy: f64,
    #[serde(with = "super::exact")]
    pub chosen_reward: f64,
    #[serde(with = "super::exact")]
    pub rejected_reward: f64,
    #[serde(with = "super::exact")]
    pub margin: f64,
}

/// What a batch counts in the mean over a step: the sum of its weights, or its pairs.
#[must_use]
#[expect(clippy::cast_precision_loss, reason = "no batch has 2^53 rows")]
pub fn weight(method: Method, batch: &Batch) -> f64 {
    if method.pairs() { (batch.rows().count() / 2) as f64 } else { batch.labels.iter().map(|label| f64::from(label.weight)).sum() }
}

/// Adds the gradient of a batch's share of the loss. `whole`: what all batches of the step count together.
pub(super) fn learn(
    method: Method,
    (learner, parameters): (&dyn Learner, &Tensors),
    batch: &Batch,
    whole: f64,
    pass: Pass,
    gradients: &mut Tensors,
) -> Result<Sums> {
    let failed = Error::device("learning a batch");
    if method.pairs() {
        let (sums, mut weighted) = judge(method, learner, parameters, batch)?;
        scale(&mut weighted, 1.0 / whole);
        learner.accumulate(parameters, &weighted, Some(pass), gradients).map_err(failed)?;
        return Ok(sums);
    }
    let mut weighted = batch.clone();
    scale(&mut weighted, 1.0 / whole);
    if let Method::Distill(how) = method {
        let found = learner.distill(parameters, &weighted, how, Some(pass), gradients);
        return found.and_then(|found| taught(batch, how, found)).map_err(failed);
    }
    let log_probs =
        learner.accumulate(parameters, &weighted, Some(pass), gradients).and_then(|found| of_each(batch, found)).map_err(failed)?;
    Ok(foretold(batch, &log_probs))
}

/// The same of rows from which nothing is learnt. Of distillation it is the rows' own loss, so that runs with and without a teacher compare.
pub(super) fn evaluate(method: Method, (learner, parameters): (&dyn Learner, &Tensors), batch: &Batch) -> Result<Sums> {
    if method.pairs() {
        return Ok(judge(method, learner, parameters, batch)?.0);
    }
    Ok(foretold(batch, &read((learner, parameters), batch)?))
}

fn read((learner, parameters): (&dyn Learner, &Tensors), batch: &Batch) -> Result<Vec<f32>> {
    let found = learner.log_probs(parameters, batch).and_then(|found| of_each(batch, found));
    found.map_err(Error::device("reading a batch"))
}

/// A learner that answers fewer labels than were asked for would go unnoticed.
fn of_each(batch: &Batch, log_probs: Vec<f32>) -> candle_core::Result<Vec<f32>> {
    if log_probs.len() == batch.labels.len() {
        return Ok(log_probs);
    }
    Err(candle_core::Error::Msg(format!("there are {} labels and {} numbers of them", batch.labels.len(), log_probs.len())))
}

#[expect(clippy::cast_possible_truncation, reason = "weights are of single precision")]
fn scale(batch: &mut Batch, by: f64) {
    batch.labels.iter_mut().for_each(|label| label.weight = (f64::from(label.weight) * by) as f32);
}

fn foretold(batch: &Batch, log_probs: &[f32]) -> Sums {
    let mut sums = Sums { labels: batch.labels.len() as u64, tokens: batch.len() as u64, ..Sums::default() };
    for (label, log_prob) in batch.labels.iter().zip(log_probs) {
        sums.weight += f64::from(label.weight);
        sums.loss -= f64::from(label.weight) * f64::from(*log_prob);
        sums.negative_log_likelihood -= f64::from(*log_prob);
    }
    sums
}

/// [`foretold`], with what the teacher has to say in the loss.
fn taught(batch: &Batch, how: Distill, found: Distilled) -> candle_core::Result<Sums> {
    let divergences = of_each(batch, found.divergences)?;
    let mut sums = foretold(batch, &of_each(batch, found.log_probs)?);
    let softened = how.alpha * how.temperature * how.temperature;
    let far = batch.labels.iter().zip(&divergences).map(|(label, far)| f64::from(label.weight) * f64::from(*far)).sum::<f64>();
    sums.loss = (1.0 - how.alpha) * sums.loss + softened * far;
    Ok(sums)
}

/// What a row of a pair came to.
#[derive(Debug, Clone, Copy, Default)]
struct Side {
    /// Σ weight · ln p.
    log_prob: f64,
    weight: f64,
    plain: f64,
    labels: u64,
}

/// The loss of one pair, and its derivatives.
struct Judged {
    loss: f64,
    /// By Σ weight · ln p of the chosen and of the rejected row.
    slopes: [f64; 2],
    rewards: [f64; 2],
}

/// The sums of a batch of pairs, and the batch with the derivatives of their loss by −ln p as weights.
fn judge(method: Method, learner: &dyn Learner, parameters: &Tensors, batch: &Batch) -> Result<(Sums, Batch)> {
    let policy = sides(batch, &read((learner, parameters), batch)?);
    let base = match method {
        Method::Dpo { .. } => sides(batch, &read((learner, &Tensors::new()), batch)?),
        _ => vec![Side::default(); policy.len()],
    };
    let mut weighted = batch.clone();
    let mut sums = Sums { tokens: batch.len() as u64, ..Sums::default() };
    let mut labels = weighted.labels.iter_mut().peekable();
    let mut ends = batch.rows().map(|places| places.end);
    for (policy, base) in policy.chunks_exact(2).zip(base.chunks_exact(2)) {
        let judged = match method {
            Method::Orpo { lambda } => orpo(lambda, [policy[0], policy[1]]),
            Method::Dpo { beta } => dpo(beta, [policy[0], policy[1]], [base[0], base[1]]),
            Method::Sft | Method::Distill(_) => continue,
        };
        count(&mut sums, &judged, &policy[0]);
        for slope in judged.slopes {
            let end = ends.next().unwrap_or(0);
            while let Some(label) = labels.next_if(|label| label.place < end) {
                turn(label, slope);
            }
        }
    }
    Ok((sums, weighted))
}

#[expect(clippy::cast_possible_truncation, reason = "weights are of single precision")]
fn turn(label: &mut Label, slope: f64) {
    label.weight = (-slope * f64::from(label.weight)) as f32;
}

fn count(sums: &mut Sums, judged: &Judged, chosen: &Side) {
    let [chosen_reward, rejected_reward] = judged.rewards;
    sums.loss += judged.loss;
    sums.weight += 1.0;
    sums.pairs += 1;
    sums.agreeing_pairs += u64::from(chosen_reward > rejected_reward);
    sums.chosen_reward += chosen_reward;
    sums.rejected_reward += rejected_reward;
    sums.negative_log_likelihood -= chosen.plain;
    sums.labels += chosen.labels;
}

/// Of each row.
fn sides(batch: &Batch, log_probs: &[f32]) -> Vec<Side> {
    let mut labels = batch.labels.iter().zip(log_probs).peekable();
    batch
        .rows()
        .map(|places| {
            let mut side = Side::default();
            while let Some((label, log_prob)) = labels.next_if(|(label, _)| label.place < places.end) {
                side.log_prob += f64::from(label.weight) * f64::from(*log_prob);
                side.weight += f64::from(label.weight);
                side.plain += f64::from(*log_prob);
                side.labels += 1;
            }
            side
        })
        .collect()
}

/// Rafailov et al. 2023 (arXiv:2305.18290), equation 7: −ln σ(β (ln π_c/ref_c − ln π_r/ref_r)).
fn dpo(beta: f64, policy: [Side; 2], base: [Side; 2]) -> Judged {
    let rewards = [0, 1].map(|side| beta * (policy[side].log_prob - base[side].log_prob));
    let margin = rewards[0] - rewards[1];
    let pull = beta * sigmoid(-margin);
    Judged { loss: softplus(-margin), slopes: [-pull, pull], rewards }
}

/// Hong et al. 2024 (arXiv:2403.07691), equations 6 and 7, with p the geometric mean over a row's tokens:
/// −ln p_c − λ ln σ(ln odds(p_c) − ln odds(p_r)), odds(p) = p / (1 − p).
fn orpo(lambda: f64, policy: [Side; 2]) -> Judged {
    let means = policy.map(|side| (side.log_prob / side.weight).min(CERTAIN));
    // 1 − p.
    let rests = means.map(|mean| -mean.exp_m1());
    let ratio = (means[0] - rests[0].ln()) - (means[1] - rests[1].ln());
    let pull = lambda * sigmoid(-ratio);
    let slopes = [(-1.0 - pull / rests[0]) / policy[0].weight, pull / rests[1] / policy[1].weight];
    Judged { loss: -means[0] + lambda * softplus(-ratio), slopes, rewards: means.map(|mean| lambda * mean) }
}

fn sigmoid(x: f64) -> f64 {
    if x >= 0.0 { 1.0 / (1.0 + (-x).exp()) } else { x.exp() / (1.0 + x.exp()) }
}

/// ln(1 + eˣ).
fn softplus(x: f64) -> f64 {
    x.max(0.0) + (-x.abs()).exp().ln_1p()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn side(log_prob: f64, weight: f64) -> Side {
        Side { log_prob, weight, plain: log_prob, labels: 1 }
    }

    /// Slopes are what small steps find.
    fn expect_slopes(judged: impl Fn([Side; 2]) -> Judged) {
        for (chosen, rejected) in [(-3.0, -9.0), (-12.0, -2.0), (-0.05, -0.04)] {
            let sides = [side(chosen, 3.0), side(rejected, 2.0)];
            for which in 0..2 {
                let moved = |by: f64| {
                    let mut sides = sides;
                    sides[which].log_prob += by;
                    judged(sides).loss
                };
                let found = (moved(1e-6) - moved(-1e-6)) / 2e-6;
                let slope = judged(sides).slopes[which];
                assert!((found - slope).abs() <= 1e-6 * slope.abs().max(1.0), "{which}: {found} {slope}");
            }
        }
    }

    #[test]
    fn the_slopes_of_preferences_are_their_derivatives() {
        expect_slopes(|sides| dpo(0.1, sides, [side(-4.0, 3.0), side(-5.0, 2.0)]));
        expect_slopes(|sides| orpo(0.25, sides));
    }

    #[derive(serde::Deserialize)]
    struct Golden {
        settings: Settings,
        log_probs: Vec<f64>,
        reference_log_probs: Vec<f64>,
        counts: Vec<f64>,
        dpo: Losses,
        orpo: Losses,
    }

    #[derive(serde::Deserialize)]
    struct Settings {
        beta: f64,
        odds_weight: f64,
    }

    #[derive(serde::Deserialize)]
    struct Losses {
        losses: Vec<f64>,
    }

    /// Of a tiny Llama with PEFT; the formulas are in `tests/golden/finetune.py`.
    #[test]
    fn losses_are_those_of_pytorch() {
        let golden: Golden = serde_json::from_str(include_str!("../../../tests/golden/finetune/preferences.json")).expect("read");
        let of = |log_probs: &[f64]| log_probs.iter().zip(&golden.counts).map(|(sum, count)| side(*sum, *count)).collect::<Vec<_>>();
        let (policy, base) = (of(&golden.log_probs), of(&golden.reference_log_probs));
        for (index, (policy, base)) in policy.chunks(2).zip(base.chunks(2)).enumerate() {
            let policy = [policy[0], policy[1]];
            let dpo = dpo(golden.settings.beta, policy, [base[0], base[1]]).loss;
            let orpo = orpo(golden.settings.odds_weight, policy).loss;
            assert!((dpo - golden.dpo.losses[index]).abs() < 2e-6, "{dpo}");
            assert!((orpo - golden.orpo.losses[index]).abs() < 2e-6, "{orpo}");
        }
    }

    #[test]
    fn a_model_that_has_learnt_nothing_has_dpos_loss_of_ln_2() {
        let sides = [side(-4.0, 3.0), side(-5.0, 2.0)];
        let judged = dpo(0.3, sides, sides);
        assert!((judged.loss - std::f64::consts::LN_2).abs() < 1e-15);
        assert_eq!((judged.rewards, judged.slopes), ([0.0, 0.0], [-0.15, 0.15]));
    }

    #[test]
    fn a_teacher_counts_by_alpha_and_the_square_of_the_temperature() {
        let mut batch = Batch::default();
        batch.push(&crate::jobs::finetune::batch::Row { tokens: vec![1, 2, 3], weights: vec![1.0, 1.0, 0.5] });
        let how = Distill { alpha: 0.25, temperature: 2.0 };
        let found = Distilled { log_probs: vec![-1.0, -2.0], divergences: vec![0.5, 4.0] };
        let sums = taught(&batch, how, found.clone()).expect("as many as labels");
        assert_eq!((sums.loss, sums.weight, sums.negative_log_likelihood), (0.75 * 2.0 + 2.5, 1.5, 3.0));
        let fewer = Distilled { divergences: vec![0.5], ..found };
        assert!(taught(&batch, how, fewer).expect_err("too few").to_string().contains("2 labels and 1 numbers"));
    }

    #[test]
    fn extremes_are_numbers() {
        let far = dpo(1.0, [side(-1.0, 1.0), side(-2000.0, 1.0)], [side(-1.0, 1.0), side(-1.0, 1.0)]);
        assert!(far.loss >= 0.0 && far.slopes.iter().all(|slope| slope.is_finite()));
        let certain = orpo(0.1, [side(0.0, 1.0), side(-900.0, 1.0)]);
        assert!(certain.loss.is_finite() && certain.slopes.iter().all(|slope| slope.is_finite()), "{certain:?}", certain = certain.loss);
    }
}
