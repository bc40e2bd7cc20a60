//! What can go wrong on the way to a server, and what to do about it.

use std::path::PathBuf;

use super::Step;
use crate::backends::{Error as Failure, ollama::shelf};
use crate::domain::blame::Retry;
use crate::domain::digest::Digest;
use crate::domain::id::ModelName;

/// A publication to one server that failed. Unless it says otherwise, the server's list is as it was before.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("{backend}, while {}: {source}{}", step.in_words(), advice_of(source))]
    Server { backend: String, step: Step, source: Failure },
    #[error("{} cannot be read: {source}; make it again, or say where it is now", path.display())]
    File { path: PathBuf, source: std::io::Error },
    #[error("{} is not the file that was to be published ({digest}): it was changed after it had been hashed; make it again", path.display())]
    Digest { path: PathBuf, digest: Digest },
    #[error("{backend} built something else than it was given: its {what} is not there; is it of a version that does not know it?")]
    NotAsSent { backend: String, what: &'static str },
    #[error(
        "{backend} does not have `{name}` as it was published, though it said that it had taken it: look at its log, and publish again"
    )]
    NotThere { backend: String, name: ModelName },
    #[error("publishing to {backend} was cancelled; nothing of it is left there")]
    Cancelled { backend: String },
    /// The name is not what it was before, but nothing is lost.
    #[error(
        "{backend} could neither give `{name}` to the new model ({why}) nor back to the one before ({source}); \
         that is kept as `{kept}`: once the cause is gone, publish again or run `ollama cp {kept} {name}`"
    )]
    NotRestored { backend: String, name: ModelName, kept: ModelName, why: Box<Error>, source: Failure },
}

impl Error {
    pub(super) fn new(backend: &str, step: Step, error: shelf::Error) -> Self {
        match error {
            shelf::Error::Server(source) => Self::Server { backend: backend.to_owned(), step, source },
            shelf::Error::File { path, source } => Self::File { path, source },
            shelf::Error::Digest { path, digest, .. } => Self::Digest { path, digest },
        }
    }

    /// Whether a model is missing that had been made just before.
    pub(super) fn is_about_a_missing_model(&self) -> bool {
        matches!(self, Self::NotThere { .. } | Self::Server { source: Failure::ModelNotFound { .. }, .. })
    }

    /// What another attempt at the same publication may do.
    #[must_use]
    pub fn retry(&self) -> Retry {
        match self {
            Self::Server { source, .. } if is_for_good(source) => Retry::Never,
            Self::Server { source, .. } => source.retry(),
            Self::NotThere { .. } | Self::NotRestored { .. } => Retry::Elsewhere,
            Self::File { .. } | Self::Digest { .. } | Self::NotAsSent { .. } | Self::Cancelled { .. } => Retry::Never,
        }
    }

    /// A short word from a closed set, for metrics and stored rows.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Server { source, .. } => source.kind(),
            Self::File { .. } => "file",
            Self::Digest { .. } => "digest",
            Self::NotAsSent { .. } => "not_as_sent",
            Self::NotThere { .. } => "not_there",
            Self::Cancelled { .. } => "cancelled",
            Self::NotRestored { .. } => "not_restored",
        }
    }
}

/// Words by which a server's complaint is known, and what to do about it. Whether the same publication can never succeed there.
const ADVICE: [(&str, &str, bool); 8] = [
    ("no space left", "free some space there, then publish again: what was sent is not sent twice", false),
    ("adapters are no longer supported", "merge the adapter into the model and publish that", true),
    ("only one adapter", "merge the adapters into the model and publish that", true),
    ("adapter", "merge the adapter into the model and publish that", true),
    ("not in gguf format", "the server cannot read the file: convert it again", true),
    ("unsupported architecture", "the server is too old for this kind of model: update it", true),
    ("unknown model architecture", "the server is too old for this kind of model: update it", true),
    ("requires more system memory", "the model does not fit that machine: publish a smaller quantisation", true),
];

fn entry_for(source: &Failure) -> Option<&'static (&'static str, &'static str, bool)> {
    let text = source.to_string().to_ascii_lowercase();
    ADVICE.iter().find(|(words, _, _)| text.contains(words))
}

fn advice_of(source: &Failure) -> String {
    let general = match source {
        Failure::Unreachable { .. } => Some("see that it runs, then publish again"),
        Failure::Stalled { .. } => Some("see whether its disk or the network keeps up, then publish again, or allow it more time"),
        Failure::Overloaded { .. } => Some("publish again when it has less to do"),
        _ => None,
    };
    let advice = entry_for(source).map(|(_, advice, _)| *advice).or(general);
    advice.map_or_else(String::new, |advice| format!("; {advice}"))
}

fn is_for_good(source: &Failure) -> bool {
    entry_for(source).is_some_and(|(_, _, for_good)| *for_good)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failed(message: &str) -> Error {
        let source = Failure::Failed { status: None, message: message.to_owned() };
        Error::Server { backend: "box".into(), step: Step::Building, source }
    }

    #[test]
    fn a_complaint_comes_with_what_to_do() {
        let full = failed("write /models/blobs/x: no space left on device");
        assert!(full.to_string().contains("box, while building the model") && full.to_string().contains("free some space"), "{full}");
        assert_ne!(full.retry(), Retry::Never);
        let refused = failed("LoRA adapters are no longer supported");
        assert!(refused.to_string().contains("merge the adapter"), "{refused}");
        assert_eq!(refused.retry(), Retry::Never);
        assert!(!failed("something else").to_string().contains(';'));
    }
}
