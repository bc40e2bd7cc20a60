//! What can go wrong with a whole data set; what is wrong with one row is a [`Reason`](super::import::Reason).

use std::io;

/// Why there is no data set.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("{0}")]
    Options(String),
    #[error("`{name}` cannot be read: {source}")]
    Read { name: String, source: io::Error },
    /// The file is of a form that is not read.
    #[error("`{name}` {why}")]
    Form { name: String, why: String },
    #[error("`{name}`: {bad} of {rows} rows cannot be used, more than the {allowed:.1} % that are allowed (`max_bad_share`); {first}")]
    Bad { name: String, bad: u64, rows: u64, allowed: f64, first: String },
    #[error("the sources have more than {rows} rows (`max_rows`)")]
    Rows { rows: u64 },
    #[error("the rows take more than {bytes} bytes of memory (`max_bytes`); make several data sets of them")]
    Bytes { bytes: u64 },
    #[error("no row is left{0}")]
    Nothing(String),
    #[error("what was collected cannot be read: {0}")]
    Collection(String),
    #[error("the rows cannot be written: {0}")]
    Write(#[from] io::Error),
    /// `passing`: trying again may help.
    #[error("the teacher `{model}`: {why}")]
    Teacher { model: String, why: String, passing: bool },
    #[error("stopped")]
    Stopped,
}

impl Error {
    /// A teacher that nobody can ask.
    pub(super) fn teacher(model: &str, why: &dyn std::fmt::Display) -> Self {
        Self::Teacher { model: model.to_owned(), why: why.to_string(), passing: false }
    }
}
