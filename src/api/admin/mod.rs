//! The API for those who run the gateway.

pub mod cache;
pub mod config;
pub mod keys;
pub mod limits;
pub mod queue;
