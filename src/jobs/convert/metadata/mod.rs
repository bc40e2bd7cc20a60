//! What a GGUF file says of its model, in the order in which llama.cpp's converter writes it: the same pairs give the same bytes.
//!
//! `general.*` comes from the folder's name, the model card and the configuration, then the model's own settings, then the
//! tokenizer's (see `tokenizer`).

mod card;
mod general;
mod model;
mod naming;
mod pairs;
mod pooling;

pub(super) use general::General;
pub(in crate::jobs) use model::rope_tensors;
pub(super) use model::{ROPE_ATTENTION_FACTOR, parameters};
pub(super) use naming::Size;
pub(super) use pairs::Pairs;
pub(super) use pooling::pooling;
