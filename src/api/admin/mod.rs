//! For those who run the gateway.

pub mod limits;
//! The API for those who run the gateway.

pub mod keys;
