//! Arriero: a gateway in front of one or many Ollama servers.
//!
//! `docs/ARCHITECTURE.md` is the map: what each folder is for and which may import which (checked by `tests/it`).

pub mod api;
pub mod app;
pub mod backends;
pub mod cli;
pub mod config;
pub mod domain;
pub mod gateway;
pub mod gguf;
#[cfg(feature = "embedded")]
pub mod lm;
pub mod models;
pub mod monitor;
pub mod routing;
pub mod storage;
pub mod telemetry;
pub mod usage;
