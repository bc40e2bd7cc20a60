//! `/feedback` and `/collection`: what people say of answers, and what was collected to learn from.

pub mod feedback;
pub mod look;
