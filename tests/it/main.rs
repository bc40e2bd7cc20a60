//! One binary for all integration tests: they share one build and nothing else.

#![expect(clippy::disallowed_methods, reason = "tests start tasks and read their environment as they please")]

mod architecture;
mod caching;
mod cancel;
#[cfg(feature = "embedded")]
mod check;
mod cli;
mod collection;
mod convert;
mod dataset;
mod docs;
mod download;
#[cfg(feature = "embedded")]
mod embedded;
mod failover;
mod fallback;
mod faults;
#[cfg(feature = "embedded")]
mod finetune;
#[cfg(feature = "embedded")]
mod finetuning;
#[cfg(feature = "embedded")]
mod gemma_folder;
#[cfg(feature = "embedded")]
mod gemma_merged;
mod generate;
mod guard;
mod input;
mod jobs;
mod keys;
#[cfg(feature = "embedded")]
mod learned_task;
mod limits;
#[cfg(feature = "embedded")]
mod lm;
mod ops;
mod process;
mod publish;
mod queue;
#[cfg(feature = "embedded")]
mod real_ollama;
mod reload;
mod resume;
mod semantic;
mod shutdown;
mod sockets;
mod support;
mod teacher;
#[cfg(feature = "embedded")]
mod text;
