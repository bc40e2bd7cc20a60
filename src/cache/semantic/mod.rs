//! Answers to questions that mean the same.

mod config;

pub use config::{Config, Route};
