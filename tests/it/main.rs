//! One binary for all integration tests: they share one build and nothing else.

mod architecture;
mod cancel;
mod cli;
mod faults;
mod generate;
mod input;
mod ops;
mod shutdown;
mod sockets;
mod support;
#[cfg(feature = "embedded")]
mod text;
