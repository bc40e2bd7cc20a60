//! The head and the cross-entropy behind it, for some tokens at a time, so that logits are never whole; a teacher's neither.

use candle_core::{D, DType, Result, Tensor};
use rayon::prelude::*;

use super::compute::Compute;
use super::distill;
use super::gradients::Gradients;
use super::linear::{self, Linear, Part};
use super::slices::edit;
use super::vector;
use crate::jobs::finetune::batch::Label;
use crate::jobs::finetune::learner::{Distilled, Pass, Tensors};
use crate::jobs::finetune::options::Distill;

/// The last matrix, and what its products go through.
#[derive(Debug)]
pub struct Head {
    pub linear: Linear,
    /// Logits are kept within this by tanh.
    pub softcap: Option<f32>,
    /// Labels whose logits are made together.
    pub chunk: usize,
}

/// What a teacher has to say of the same labels.
#[derive(Debug)]
pub struct Lesson<'a> {
    pub compute: &'a Compute,
    pub head: &'a Head,
    /// A row for each label.
    pub hidden: Tensor,
    pub how: Distill,
}

/// ln p of every label from its row of `hidden`.
pub fn log_probs(compute: &Compute, head: &Head, parameters: &Tensors, hidden: &Tensor, labels: &[Label]) -> Result<Vec<f32>> {
    let mut all = Vec::with_capacity(labels.len());
    for (index, labels) in labels.chunks(head.chunk).enumerate() {
        let rows = hidden.narrow(0, index * head.chunk, labels.len())?;
        let (logits, _) = linear::forward(compute, &head.linear, parameters, &rows, None)?;
        all.extend(cross_entropy(compute, head, logits, labels, false)?.0);
    }
    Ok(all)
}

/// As [`log_probs`], and the gradient of Σ weight · −ln p in every row of `hidden`; with a lesson, that of [`Distill`]'s loss.
pub fn backward(
    compute: &Compute,
    head: &Head,
    parameters: &Tensors,
    (hidden, labels, lesson): (&Tensor, &[Label], Option<&Lesson<'_>>),
    pass: Option<Pass>,
    gradients: &mut Gradients<'_>,
) -> Result<(Distilled, Tensor)> {
    let (mut all, mut d_hidden) = (Distilled::default(), Vec::new());
    for (index, labels) in labels.chunks(head.chunk).enumerate() {
        let rows = hidden.narrow(0, index * head.chunk, labels.len())?;
        // Of the first chunk, as dropout goes by the place in what it is given.
        let pass = pass.map(|pass| Pass { micro_batch: pass.micro_batch + ((index as u64) << 32), ..pass });
        let (logits, saved) = linear::forward(compute, &head.linear, parameters, &rows, pass)?;
        let (log_probs, d_logits) = match lesson {
            None => cross_entropy(compute, head, logits, labels, true)?,
            Some(lesson) => {
                let theirs = lesson.logits(index * head.chunk, labels.len())?;
                let caps = [head.softcap, lesson.head.softcap];
                let (found, d_logits) = distill::backward(compute, [logits, theirs], labels, caps, lesson.how)?;
                all.divergences.extend(found.divergences);
                (found.log_probs, d_logits)
            }
        };
        let part = Part { linear: &head.linear, saved: &saved, x: &rows, dy: &d_logits };
        d_hidden.push(linear::backward(compute, &[part], parameters, pass, gradients)?);
        all.log_probs.extend(log_probs);
    }
    Ok((all, Tensor::cat(&d_hidden, 0)?))
}

impl Lesson<'_> {
    /// Of some labels. They are the caller's alone.
    fn logits(&self, first: usize, count: usize) -> Result<Tensor> {
        let rows = self.hidden.narrow(0, first, count)?;
        Ok(linear::forward(self.compute, &self.head.linear, &Tensors::new(), &rows, None)?.0)
    }
}

/// ln p of labels; the logits become their gradient if `back`. They have to be the caller's alone.
fn cross_entropy(compute: &Compute, head: &Head, logits: Tensor, labels: &[Label], back: bool) -> Result<(Vec<f32>, Tensor)> {
    if !compute.fused {
        return composed(compute, head, &logits, labels, back);
    }
    let (width, mut log_probs) = (logits.dim(1)?, vec![0.0; labels.len()]);
    edit(&logits, |all| {
        let rows = all.par_chunks_mut(width).zip(labels).zip(&mut log_probs);
        rows.for_each(|((row, label), log_prob)| *log_prob = fused(row, *label, head.softcap, back));
    })?;
    Ok((log_probs, logits))
}

#[expect(clippy::cast_possible_truncation, reason = "summed in double, used in single precision")]
fn fused(row: &mut [f32], label: Label, softcap: Option<f32>, back: bool) -> f32 {
    /// So many exponentials are summed in single precision.
    const SUMMED: usize = 2_048;
    let capped = softcap.map(|limit| {
        vector::soft_cap(row, limit);
        (if back { row.to_vec() } else { Vec::new() }, limit)
    });
    let (token, most) = (label.token as usize, vector::largest(row));
    let logit = f64::from(row[token]);
    let sum: f64 = row.chunks_mut(SUMMED).map(|part| f64::from(vector::exponentials(part, most))).sum();
    if back {
        vector::scale(row, (f64::from(label.weight) / sum) as f32);
        row[token] -= label.weight;
        if let Some((capped, limit)) = &capped {
            vector::soft_cap_gradient(row, capped, *limit);
        }
    }
    (logit - f64::from(most) - sum.ln()) as f32
}

fn composed(compute: &Compute, head: &Head, logits: &Tensor, labels: &[Label], back: bool) -> Result<(Vec<f32>, Tensor)> {
    let column = |values: Vec<f32>| compute.tensor(values, (labels.len(), 1));
    let tokens: Vec<u32> = labels.iter().map(|label| label.token).collect();
    let tokens = Tensor::from_vec(tokens, (labels.len(), 1), &compute.device)?;
    let mut logits = logits.to_dtype(DType::F32)?;
    if let Some(limit) = head.softcap.map(f64::from) {
        logits = ((logits / limit)?.tanh()? * limit)?;
    }
    let most = logits.max_keepdim(D::Minus1)?;
    let powers = logits.broadcast_sub(&most)?.exp()?;
    let sums = powers.sum_keepdim(D::Minus1)?;
    let log_probs = ((logits.gather(&tokens, 1)? - most)? - sums.log()?)?.flatten_all()?.to_vec1()?;
    if !back {
        return Ok((log_probs, logits));
    }
    let weights: Vec<f32> = labels.iter().map(|label| label.weight).collect();
    let minus = column(weights.iter().map(|weight| -weight).collect())?;
    let mut d_logits = powers.broadcast_mul(&(column(weights)? / sums)?)?.scatter_add(&tokens, &minus, 1)?;
    if let Some(limit) = head.softcap.map(f64::from) {
        d_logits = (d_logits * (logits / limit)?.sqr()?.affine(-1.0, 1.0)?)?;
    }
    Ok((log_probs, compute.narrow(&d_logits)?))
}
