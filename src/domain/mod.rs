//! The words every other folder shares: what a request is, what an answer is, what a model is, who is to blame.
//!
//! Plain values and pure functions. No I/O, no task, no knowledge of HTTP or of any backend; time comes from [`clock`] alone.

pub mod allowance;
pub mod blame;
pub mod clock;
pub mod digest;
pub mod generation;
pub mod id;
pub mod model;
pub mod options;
pub mod principal;
pub mod secret;
pub mod span;
pub mod waiting;
