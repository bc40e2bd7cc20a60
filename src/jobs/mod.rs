//! Work that takes its time: what background jobs and the command line do.

pub mod publish;
