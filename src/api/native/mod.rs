//! Arriero's own API: `POST /generate` and `GET /models`.

pub mod convert;
pub mod envelope;
pub mod handlers;
pub mod stream;
pub mod types;
