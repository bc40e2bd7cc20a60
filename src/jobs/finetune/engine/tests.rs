//! The whole engine on tiny models.

mod models;
mod numbers;
mod promises;
