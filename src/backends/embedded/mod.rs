//! Inference in this process.
