//! Fine-tuning: a GGUF file and tokens in, trained parameters out.
//!
//! [`learner::Learner`] is the seam in the middle: the engine is a decoder that can be asked for log-probabilities and their gradients;
//! the trainer decides what is read when, and what is done with the gradients. Rows are laid one behind the other without padding
//! ([`batch::Batch`]), so that packed, grouped and single rows are one and the same thing. [`export`] makes files of what was trained.

pub mod batch;
pub mod engine;
pub mod export;
pub mod learner;
pub mod rng;
