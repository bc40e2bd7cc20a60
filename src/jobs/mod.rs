//! Long work in the background: what it is, and how it is done.

pub mod convert;
