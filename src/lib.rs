//! Arriero: a gateway in front of one or many Ollama servers.
//!
//! `docs/ARCHITECTURE.md` is the map: what each folder is for and which may import which (checked by `tests/it`).

pub mod api;
pub mod app;
pub mod auth;
pub mod backends;
pub mod cache;
pub mod cli;
pub mod collection;
pub mod config;
pub mod domain;
pub mod gateway;
pub mod gguf;
pub mod jobs;
pub mod limits;
#[cfg(feature = "embedded")]
pub mod lm;
pub mod models;
pub mod monitor;
pub mod routing;
pub mod scheduler;
pub mod storage;
pub mod telemetry;
pub mod usage;
