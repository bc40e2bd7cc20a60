//! Why training ended before its end.

use std::io;
use std::path::{Path, PathBuf};

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("the options cannot be used: {}", .0.join("; "))]
    Options(Vec<String>),
    #[error("the {set} rows cannot be used: {what}")]
    Rows { set: &'static str, what: String },
    #[error("row {row} cannot be read: {source}")]
    Row { row: usize, source: io::Error },
    #[error("the thread that reads ahead could not be started: {0}")]
    Thread(io::Error),
    #[error("there is nothing to train: no parameter was given")]
    NoParameters,
    #[error("the device failed while {doing}: {source}")]
    Device { doing: &'static str, source: candle_core::Error },
    /// What a device gives back after it ran out of memory, among others.
    #[error(
        "step {step}: the loss is {loss}. A device that failed unnoticed gives such numbers; otherwise lower the learning rate, or look at \
         these rows: {rows:?}"
    )]
    Loss { step: u64, loss: f64, rows: Vec<usize> },
    #[error(
        "step {step}: the gradient of `{tensor}` is {what}, so it would not learn. This is a fault of the engine or of the device, or the \
         rows leave this tensor nothing to do"
    )]
    Gradient { step: u64, tensor: String, what: &'static str },
    #[error("step {step}: there is nothing to foretell in rows {rows:?}: leave out rows without a label")]
    Unlabelled { step: u64, rows: Vec<usize> },
    #[error("cannot {doing} {}: {source}", path.display())]
    Io { doing: &'static str, path: PathBuf, source: io::Error },
    #[error(
        "the checkpoint {} was made with other {what} ({found}, and now {wanted}): go on with those, or begin anew in an empty folder",
        path.display()
    )]
    Other { path: PathBuf, what: &'static str, found: String, wanted: String },
    #[error("who follows the training could not take note: {0}")]
    Observer(io::Error),
}

pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    pub(super) fn device(doing: &'static str) -> impl Fn(candle_core::Error) -> Self {
        move |source| Self::Device { doing, source }
    }

    pub(super) fn io(doing: &'static str, path: &Path) -> impl Fn(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io { doing, path: path.clone(), source }
    }
}
