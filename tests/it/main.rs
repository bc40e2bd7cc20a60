//! Everything that needs more than one folder, or a real model.

#[cfg(feature = "embedded")]
mod embedded;
#[cfg(feature = "embedded")]
mod lm;
#[cfg(feature = "embedded")]
mod text;
