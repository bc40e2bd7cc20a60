//! The whole engine on tiny models.

mod distillation;
mod models;
mod numbers;
mod promises;
