//! For those who run the gateway.

pub mod limits;
