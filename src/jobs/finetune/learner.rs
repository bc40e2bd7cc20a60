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
}
