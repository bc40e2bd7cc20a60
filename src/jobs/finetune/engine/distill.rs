//! The loss of knowledge distillation and its gradient: (1 − α) · −ln p + α · T² · KL(teacher ‖ learner) of each label (Hinton, Vinyals and
//! Dean 2015, arXiv:1503.02531).
//!
//! With p = softmax(z), and s and t those of z / T and of the teacher's logits / T, the gradient in z is
//! (1 − α) · (p − 1 at the label) + α · T · (s − t): T² over the T that z was divided by.

use candle_core::{D, DType, Result, Tensor};
use rayon::prelude::*;

use super::compute::Compute;
use super::slices::edit;
use super::vector;
use crate::jobs::finetune::batch::Label;
use crate::jobs::finetune::learner::Distilled;
use crate::jobs::finetune::options::Distill;

/// So many numbers are summed in single precision.
const SUMMED: usize = 2_048;

/// What both say of labels; the learner's logits become the gradient. Logits (the learner's, its teacher's) have to be the caller's alone; a
/// teacher's vocabulary may be longer. `caps`: within which limits either keeps its logits by tanh.
pub fn backward(
    compute: &Compute,
    [logits, theirs]: [Tensor; 2],
    labels: &[Label],
    caps: [Option<f32>; 2],
    how: Distill,
) -> Result<(Distilled, Tensor)> {
    if !compute.fused {
        return composed(compute, [logits, theirs], labels, caps, how);
    }
    let ([width, width_theirs], mut found) = ([logits.dim(1)?, theirs.dim(1)?], vec![(0.0, 0.0); labels.len()]);
    let mut edited = Ok(());
    edit(&theirs, |theirs| {
        edited = edit(&logits, |all| {
            let rows = all.par_chunks_mut(width).zip(theirs.par_chunks_mut(width_theirs)).zip(labels).zip(&mut found);
            rows.for_each(|(((row, theirs), label), found)| *found = fused(row, &mut theirs[..width], *label, caps, how));
        });
    })?;
    edited?;
    let (log_probs, divergences) = found.into_iter().unzip();
    Ok((Distilled { log_probs, divergences }, logits))
}

/// ln p and the divergence of one label. `row` becomes the gradient; `theirs` is used up.
#[expect(clippy::cast_possible_truncation, reason = "summed in double, used in single precision")]
fn fused(row: &mut [f32], theirs: &mut [f32], label: Label, caps: [Option<f32>; 2], how: Distill) -> (f32, f32) {
    if let Some(limit) = caps[1] {
        vector::soft_cap(theirs, limit);
    }
    let capped = caps[0].map(|limit| {
        vector::soft_cap(row, limit);
        (row.to_vec(), limit)
    });
    let (token, most, cooled) = (label.token as usize, vector::largest(row), (1.0 / how.temperature) as f32);
    let logit = f64::from(row[token]);
    let mut softened = row.to_vec();
    vector::shift(&mut softened, most, cooled);
    vector::shift(theirs, vector::largest(theirs), cooled);
    let mut taught = theirs.to_vec();
    let sum_taught = exponentials(&mut taught, 0.0);
    let parts = taught.chunks(SUMMED).zip(theirs.chunks(SUMMED)).zip(softened.chunks(SUMMED));
    let apart: f64 = parts.map(|((t, theirs), ours)| f64::from(vector::weighed_difference(t, theirs, ours))).sum();
    let sum_softened = exponentials(&mut softened, 0.0);
    let divergence = apart / sum_taught - sum_taught.ln() + sum_softened.ln();
    let sum = exponentials(row, most);

    let weight = f64::from(label.weight);
    let (own, learnt) = (weight * (1.0 - how.alpha), weight * how.alpha * how.temperature);
    vector::blend(row, &softened, &taught, [own / sum, learnt / sum_softened, learnt / sum_taught].map(|factor| factor as f32));
    row[token] -= own as f32;
    if let Some((capped, limit)) = &capped {
        vector::soft_cap_gradient(row, capped, *limit);
    }
    // Nothing is nearer than the same: what is below is rounding.
    ((logit - f64::from(most) - sum.ln()) as f32, divergence.max(0.0) as f32)
}

fn exponentials(row: &mut [f32], most: f32) -> f64 {
    row.chunks_mut(SUMMED).map(|part| f64::from(vector::exponentials(part, most))).sum()
}

/// Each piece goes as soon as it was used: at most five of single precision are there at once, which
/// [`Engine::predicted`](super::Engine::predicted) counts with.
fn composed(
    compute: &Compute,
    [logits, theirs]: [Tensor; 2],
    labels: &[Label],
    caps: [Option<f32>; 2],
    how: Distill,
) -> Result<(Distilled, Tensor)> {
    let column = |factor: f64| -> Result<Tensor> {
        #[expect(clippy::cast_possible_truncation, reason = "weights are of single precision")]
        let weights = labels.iter().map(|label| (f64::from(label.weight) * factor) as f32).collect();
        compute.tensor(weights, (labels.len(), 1))
    };
    let tokens: Vec<u32> = labels.iter().map(|label| label.token).collect();
    let tokens = Tensor::from_vec(tokens, (labels.len(), 1), &compute.device)?;
    let theirs = theirs.narrow(1, 0, logits.dim(1)?)?;
    let taught = log_softmax((capped(theirs, caps[1])? / how.temperature)?)?;
    let logits = capped(logits, caps[0])?;
    let softened = log_softmax((&logits / how.temperature)?)?;
    let probable = taught.exp()?;
    let apart = (taught - &softened)?;
    let divergences = (apart * &probable)?.sum(D::Minus1)?.clamp(0_f32, f32::INFINITY)?.to_vec1()?;
    let softened = exponentials_of(softened)?;
    let of_teacher = (softened - probable)?.broadcast_mul(&column(how.alpha * how.temperature)?)?;
    let own = log_softmax(logits.clone())?;
    let logits = caps[0].map(|limit| (logits, f64::from(limit)));
    let log_probs = own.gather(&tokens, 1)?.flatten_all()?.to_vec1()?;
    let of_rows = exponentials_of(own)?.broadcast_mul(&column(1.0 - how.alpha)?)?;
    let mut d_logits = (of_rows + of_teacher)?.scatter_add(&tokens, &column(how.alpha - 1.0)?, 1)?;
    if let Some((logits, limit)) = logits {
        d_logits = (d_logits * (logits / limit)?.sqr()?.affine(-1.0, 1.0)?)?;
    }
    Ok((Distilled { log_probs, divergences }, compute.narrow(&d_logits)?))
}

/// In single precision, within the limit.
fn capped(logits: Tensor, limit: Option<f32>) -> Result<Tensor> {
    let wide = logits.to_dtype(DType::F32)?;
    drop(logits);
    let Some(limit) = limit.map(f64::from) else { return Ok(wide) };
    (wide / limit)?.tanh()? * limit
}

fn exponentials_of(logits: Tensor) -> Result<Tensor> {
    let all = logits.exp();
    drop(logits);
    all
}

fn log_softmax(logits: Tensor) -> Result<Tensor> {
    let below = logits.broadcast_sub(&logits.max_keepdim(D::Minus1)?)?;
    drop(logits);
    let sums = below.exp()?.sum_keepdim(D::Minus1)?;
    below.broadcast_sub(&sums.log()?)
}
