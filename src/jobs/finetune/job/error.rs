//! Why there is no fine-tuned model.

use std::io;
use std::path::{Path, PathBuf};

use crate::jobs::finetune::{engine, error as trainer, export};
use crate::jobs::kind::Fault;
use crate::jobs::{convert, dataset, evaluate, subject};
use crate::{gguf, lm};

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("the base: {0}")]
    Base(#[from] convert::Error),
    #[error("the base, {}, is no model file that can be read: {source}", path.display())]
    Header { path: PathBuf, source: gguf::Error },
    #[error(
        "the teacher's vocabulary is not that of the base: {why}. Their opinions cannot be compared token by token: name a teacher of the same \
         family, or have it write the answers instead (`data.teacher`)"
    )]
    Vocabulary { why: String },
    #[error("`{path}`: {why}")]
    Source { path: String, why: String },
    #[error("the data: {0}")]
    Data(#[from] dataset::Error),
    #[error("the device cannot be used: {0}")]
    Device(lm::Error),
    #[error(transparent)]
    Engine(#[from] engine::Error),
    #[error("training: {0}")]
    Training(#[from] trainer::Error),
    #[error("what was trained: {0}")]
    Export(#[from] export::Error),
    #[error("{}, cannot be asked: {source}", path.display())]
    Subject { path: PathBuf, source: subject::Error },
    #[error("asking the test rows: {0}")]
    Evaluation(#[from] evaluate::Error),
    #[error("cannot {doing} {}: {source}", path.display())]
    Io { doing: &'static str, path: PathBuf, source: io::Error },
    #[error("stopped")]
    Stopped,
}

impl Error {
    pub(super) fn io(doing: &'static str, path: &Path) -> impl Fn(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io { doing, path: path.clone(), source }
    }

    /// Whether it was told to stop.
    #[must_use]
    pub fn is_stopped(&self) -> bool {
        matches!(
            self,
            Self::Stopped
                | Self::Data(dataset::Error::Stopped)
                | Self::Base(convert::Error::Cancelled)
                | Self::Export(export::Error::Files(convert::Error::Cancelled))
                | Self::Evaluation(evaluate::Error::Cancelled)
        )
    }

    /// Whether trying again may help: what concerns the disk, not the model or the rows.
    #[must_use]
    pub fn is_passing(&self) -> bool {
        let disk = |error: &convert::Error| matches!(error, convert::Error::Io { .. } | convert::Error::DiskFull { .. });
        match self {
            Self::Io { .. }
            | Self::Data(dataset::Error::Write(_) | dataset::Error::Teacher { passing: true, .. })
            | Self::Training(trainer::Error::Io { .. } | trainer::Error::Observer(_)) => true,
            Self::Base(error) | Self::Export(export::Error::Files(error)) => disk(error),
            _ => false,
        }
    }
}

impl From<Error> for Fault {
    fn from(error: Error) -> Self {
        match error {
            error if error.is_stopped() => Self::Stopped,
            error if error.is_passing() => Self::Passing(error.to_string()),
            error => Self::Final(error.to_string()),
        }
    }
}
