//! Work that takes its time: what background jobs and the command line do.

#[cfg(feature = "embedded")]
pub mod check;
pub mod download;
pub mod publish;
