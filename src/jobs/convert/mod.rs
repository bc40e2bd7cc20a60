//! x
mod error;
mod folder;
mod positioned;
mod safetensors;

pub use error::Error;
