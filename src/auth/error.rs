//! Why a key is not taken, and why something cannot be done with keys.

use std::path::PathBuf;

use crate::storage;

/// Why whoever asks is not let in. Only a holder of the right secret learns that a key was revoked or has expired.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Denied {
    #[error("this is no key of Arriero's: they look like `ark_` and more")]
    Malformed,
    #[error("there is no such key")]
    Unknown,
    #[error("this key was revoked")]
    Revoked,
    #[error("this key has expired")]
    Expired,
}

/// Something about a key that cannot be so.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wrong {
    /// Which field of the terms.
    pub field: String,
    /// What it takes, in words.
    pub takes: String,
    /// What was given, in words.
    pub got: String,
}

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("there is no key with the id `{id}`")]
    NotFound { id: String },
    #[error("a key called `{name}` exists already ({id})")]
    NameTaken { name: String, id: String },
    #[error("the key `{id}` was revoked; a revoked key cannot be changed")]
    Revoked { id: String },
    #[error("there are {most} keys already, as many as `auth.max_keys` allows, and none of them is revoked")]
    TooMany { most: usize },
    #[error("{}", in_words(.0))]
    Invalid(Vec<Wrong>),
    #[error("the file `{}`, without which no key can be checked, cannot be used: {why}; put it back or make it readable", path.display())]
    Pepper { path: PathBuf, why: String },
    #[error("the system gave no random numbers for a new key")]
    Random,
    #[error(transparent)]
    Storage(#[from] storage::Error),
}

fn in_words(wrong: &[Wrong]) -> String {
    let words: Vec<String> = wrong.iter().map(|w| format!("`{}` takes {}, not {}", w.field, w.takes, w.got)).collect();
    words.join("; ")
}
