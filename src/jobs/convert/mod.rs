//! x
mod config;
mod error;
mod folder;
mod metadata;
mod names;
mod positioned;
mod safetensors;
mod tensors;
mod tokenizer;

pub use error::Error;
