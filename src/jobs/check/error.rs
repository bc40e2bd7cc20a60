//! Why two models could not be compared.

use std::path::PathBuf;

use super::{Role, TextError};
use crate::jobs::subject;
use crate::lm::{self, template};

#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The engine has no kernels for it: a matter of this program, not of the model.
    #[error(
        "the {role}, {}, cannot be compared here: {source}. It may be a sound file for all that: publish it and try it there, \
         or compare a file of another type", path.display()
    )]
    Unsupported { role: Role, path: PathBuf, source: lm::Error },
    #[error("the {role}, {}, cannot be loaded: {source}", path.display())]
    Load { role: Role, path: PathBuf, source: subject::Error },
    #[error("the chat template of the {role} cannot be used: {source}")]
    Template { role: Role, source: template::Error },
    #[error("the {role} failed while it was run: {source}")]
    Run { role: Role, source: lm::Error },
    #[error("the device cannot be used: {0}")]
    Device(lm::Error),
    #[error(
        "the two models read text differently ({what}): only models with one vocabulary can be compared token by token; \
         is the reference the model that the candidate was made of?"
    )]
    Vocabulary { what: String },
    #[error(transparent)]
    Text(#[from] TextError),
    #[error("the text has {tokens} tokens, too few to compare anything; give a longer one")]
    TooShort { tokens: usize },
    #[error("the comparison was cancelled")]
    Cancelled,
}

impl Error {
    pub(super) fn run(role: Role) -> impl Fn(lm::Error) -> Self {
        move |source| Self::Run { role, source }
    }

    pub(super) fn load(role: Role, path: PathBuf, source: subject::Error) -> Self {
        match source {
            subject::Error::Model(
                source @ (lm::Error::TensorKind { .. } | lm::Error::Architecture { .. } | lm::Error::Unsupported { .. }),
            ) => Self::Unsupported { role, path, source },
            source => Self::Load { role, path, source },
        }
    }
}
