//! One binary for all integration tests: they share one build and nothing else.

#![expect(clippy::disallowed_methods, reason = "tests start tasks and read their environment as they please")]

mod architecture;
mod cancel;
mod cli;
mod docs;
#[cfg(feature = "embedded")]
mod embedded;
mod faults;
mod generate;
mod input;
mod keys;
mod limits;
#[cfg(feature = "embedded")]
mod lm;
mod ops;
mod process;
mod real_ollama;
mod shutdown;
mod sockets;
mod support;
#[cfg(feature = "embedded")]
mod text;
