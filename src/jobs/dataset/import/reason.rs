//! Why a row cannot be used.

/// What is wrong with a row. Nothing of what the row says is part of it, but for names of its fields.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Reason {
    #[error("it is not JSON: {0}")]
    Json(String),
    #[error("it is JSON, but no object with fields")]
    NotAnObject,
    #[error("it is longer than {max_bytes} bytes (`max_row_bytes`)")]
    TooLong { max_bytes: usize },
    #[error("it is not in UTF-8")]
    NotUtf8,
    #[error("it has {found} fields, and the first row names {named}")]
    Fields { found: usize, named: usize },
    #[error("the file ends within it")]
    Unfinished,
    #[error("its fields are of no known shape: {0}")]
    Shape(String),
    #[error("its `{0}` is not of the expected kind")]
    Field(&'static str),
    #[error("it has an empty {0}")]
    Empty(&'static str),
    #[error("no turn is the assistant's")]
    NoAnswer,
    #[error("a turn has an unknown role")]
    Role,
    #[error("a turn holds something that is no text")]
    Media,
    #[error("what is chosen and what is rejected are the same")]
    Same,
    #[error("its answer was rated bad and has no correction")]
    Bad,
    #[error("its answer reached the bound on its length, and has no correction")]
    Bounded,
    #[error("its answer has no correction to be preferred")]
    Uncorrected,
}

impl Reason {
    /// What reports count it as.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Json(_) => "not JSON",
            Self::NotAnObject => "no object",
            Self::TooLong { .. } => "too long",
            Self::NotUtf8 => "not UTF-8",
            Self::Fields { .. } => "wrong number of fields",
            Self::Unfinished => "cut off",
            Self::Shape(_) => "unknown shape",
            Self::Field(_) => "field of another kind",
            Self::Empty(_) => "empty",
            Self::NoAnswer => "no answer",
            Self::Role => "unknown role",
            Self::Media => "not text",
            Self::Same => "no preference",
            Self::Bad => "rated bad",
            Self::Bounded => "not ended",
            Self::Uncorrected => "no correction",
        }
    }
}
