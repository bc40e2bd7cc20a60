//! One binary for all integration tests: they share one build and nothing else.

mod architecture;
mod cancel;
mod docs;
mod faults;
mod generate;
mod input;
#[cfg(feature = "embedded")]
mod lm;
mod ops;
mod process;
mod shutdown;
mod sockets;
mod support;
#[cfg(feature = "embedded")]
mod text;
