//! Fine-tuning: a GGUF file and tokens in, trained parameters out.
//!
//! [`learner::Learner`] is the seam in the middle: the engine is a decoder that can be asked for log-probabilities and their gradients;
//! the trainer decides what is read when, and what is done with the gradients. Rows are laid one behind the other without padding
//! ([`batch::Batch`]), so that packed, grouped and single rows are one and the same thing. [`export`] makes files of what was trained.

pub mod batch;
mod busy;
pub mod checkpoint;
pub mod engine;
mod error;
mod exact;
pub mod export;
mod gradient;
mod host;
pub mod job;
pub mod learner;
pub mod measure;
pub mod objective;
mod optimizer;
pub mod options;
pub mod order;
pub mod report;
pub mod rng;
mod schedule;
pub mod trainer;

pub use error::Error;
