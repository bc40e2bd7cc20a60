//! Why a training's result did not become files.

use crate::jobs::convert;

/// What failed, why, and what to do about it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    #[error(transparent)]
    Files(#[from] convert::Error),
    /// The parameters are not such that the base can take them.
    #[error("the parameter {name} {what}")]
    Parameter { name: String, what: String },
    /// The form that is asked for cannot hold what was trained.
    #[error("{what} cannot be written as {form}; {instead}")]
    Form { what: String, form: &'static str, instead: &'static str },
    #[error("the parameters cannot be read from their device: {0}")]
    Device(#[from] candle_core::Error),
}

/// A result of this module.
pub(super) type Result<T> = std::result::Result<T, Error>;

impl Error {
    pub(super) fn parameter(name: &str, what: impl Into<String>) -> Self {
        Self::Parameter { name: name.to_owned(), what: what.into() }
    }

    pub(super) fn impossible(what: impl Into<String>) -> Self {
        Self::Files(convert::Error::Impossible(what.into()))
    }
}
