//! The API for those who run the gateway.

pub mod keys;
pub mod limits;
