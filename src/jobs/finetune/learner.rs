//! What the trainer trains.

use std::collections::BTreeMap;

use candle_core::Tensor;

use super::batch::Batch;
use super::options::Distill;

/// Named tensors of single precision on the learner's device, in the order of their names.
///
/// Trainable parameters are called as the weight of the GGUF file they belong to, and what they are to it: `blk.0.attn_q.lora_a` (rank ×
/// inputs), `blk.0.attn_q.lora_b` (outputs × rank), `blk.0.attn_q.magnitude` (DoRA, one for each output), `blk.0.attn_q.weight` (in the
/// place of the file's own). Rows of queries and keys are in the file's order, which for Llama is not that of Hugging Face.
pub type Tensors = BTreeMap<String, Tensor>;

/// Which numbers are dropped in a pass. The same pass drops the same numbers, whenever and how often it is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pass {
    pub seed: u64,
    /// Of the optimiser, from 0.
    pub step: u64,
    /// Within the step, from 0.
    pub micro_batch: u64,
}

/// What a learner and its teacher say of labels, in their order.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Distilled {
    /// The learner's ln p of every label.
    pub log_probs: Vec<f32>,
    /// How far it is from its teacher there: KL(teacher ‖ learner) of all tokens, both softened by the temperature.
    pub divergences: Vec<f32>,
}

/// AdamW's numbers for one step of one tensor, rounded to what they are used with.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Update {
    /// What the gradient is multiplied with first.
    pub scale: f32,
    /// What weight decay leaves of a parameter.
    pub kept: f32,
    /// What the mean moves towards a new gradient.
    pub mean_moves: f32,
    /// What stays of the mean square, and what it takes of a new one.
    pub square_stays: f32,
    pub square_takes: f32,
    /// −rate / (1 − β₁ⁿ), and √(1 − β₂ⁿ).
    pub size: f32,
    pub root: f32,
    pub epsilon: f32,
}

/// A model that can be trained.
pub trait Learner {
    /// ln p of every label, in their order; nothing is dropped. Parameters that are not named are not there: with none, it is the base model
    /// that answers.
    ///
    /// # Errors
    /// What the device says, and tokens outside of the vocabulary.
    fn log_probs(&self, parameters: &Tensors, batch: &Batch) -> candle_core::Result<Vec<f32>>;

    /// Adds the gradient of Σ weight · −ln p to `gradients`, in which every parameter gets an entry; gives ln p of every label, in their
    /// order. `pass`: where LoRA's dropout is wanted.
    ///
    /// # Errors
    /// As [`Learner::log_probs`].
    fn accumulate(&self, parameters: &Tensors, batch: &Batch, pass: Option<Pass>, gradients: &mut Tensors)
    -> candle_core::Result<Vec<f32>>;

    /// Adds the gradient of Σ weight · ((1 − α) · −ln p + α · T² · KL(teacher ‖ learner)) to `gradients`, as [`Learner::accumulate`] does.
    /// The teacher is frozen, and nothing of it is dropped.
    ///
    /// # Errors
    /// As [`Learner::log_probs`], and that there is no teacher.
    fn distill(
        &self,
        parameters: &Tensors,
        batch: &Batch,
        how: Distill,
        pass: Option<Pass>,
        gradients: &mut Tensors,
    ) -> candle_core::Result<Distilled> {
        let _ = (parameters, batch, how, pass, gradients);
        candle_core::bail!("this learner has no teacher")
    }

    /// The sum of the squares of each tensor, in single precision and in one piece each. `None`: the learner has no way of its own.
    ///
    /// # Errors
    /// What the device says.
    fn squares(&self, _tensors: &[&Tensor]) -> candle_core::Result<Option<Vec<f64>>> {
        Ok(None)
    }

    /// Changes a parameter by its gradient where it lies, and with it the means of gradients and of their squares; all four are of single
    /// precision and of one shape. Clones of these tensors see it. `false`: nothing was done, as the learner has no way of its own.
    ///
    /// # Errors
    /// When shapes differ, or what the device says.
    fn step_in_place(&self, _update: &Update, _parameter_gradient_mean_square: [&Tensor; 4]) -> candle_core::Result<bool> {
        Ok(false)
    }
}
