//! Adapters in PEFT's format: `adapter_config.json` and `adapter_model.safetensors`, written and read back.
//!
//! Weights are in F32, names and rows as Hugging Face's model has them, so that `peft.PeftModel` loads the folder onto the model that
//! the base was made from. Only keys that every PEFT of the last years knows are written.

mod config;
mod read;
mod write;

pub use read::read_peft;
pub use write::{Adapter, PeftOptions, write_peft};
