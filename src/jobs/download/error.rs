//! Why a model could not be fetched, and what to do.

use std::error::Error as StdError;
use std::io;
use std::path::{Path, PathBuf};

use super::Name;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("no connection can be made from this machine ({why})")]
    Client { why: String },
    #[error(
        "{place} cannot be reached, or broke off ({why}); what has come stays: fetch again to go on, or set another address for the Hub"
    )]
    Network { place: String, why: String },
    #[error("{place} has no `{name}`: is it written as there, with its owner?")]
    NotFound { place: String, name: String },
    #[error("{place} gives `{name}` only to those who are let in ({status}): {advice}")]
    NotOpen { place: String, name: String, status: u16, advice: &'static str },
    #[error("{place} answered {status} when it was asked for `{name}`; what has come stays: fetch again later")]
    Status { place: String, name: String, status: u16 },
    #[error("what is said about `{name}` cannot be used: {why}; is the address that of a Hub?")]
    Listing { name: String, why: String },
    #[error("`{name}` has nothing in it that could be converted or run: {why}")]
    Nothing { name: String, why: String },
    #[error("`{name}` has {bytes} bytes, at most {most} are fetched: fetch a single file of it, or raise the bound")]
    TooMuch { name: String, bytes: u64, most: u64 },
    #[error("{} came otherwise than it was announced ({why}); it was thrown away: fetch it again", path.display())]
    Corrupt { path: PathBuf, why: String },
    #[error("{} cannot be written: {source}{}", path.display(), advice_of(source))]
    Io { path: PathBuf, source: io::Error },
    #[error("the fetch was cancelled; what has come stays")]
    Cancelled,
}

impl Error {
    pub(super) fn io(path: &Path) -> impl Fn(io::Error) -> Self {
        move |source| Self::Io { path: path.to_owned(), source }
    }

    pub(super) fn refused(status: u16, name: &Name, place: &str, has_token: bool) -> Self {
        let (place, name) = (place.to_owned(), name.to_string());
        let advice = if has_token {
            "accept its terms on its page, with the account that the token is of"
        } else {
            "accept its terms on its page, make a token, and set it for the Hub"
        };
        match status {
            401 | 403 => Self::NotOpen { place, name, status, advice },
            404 => Self::NotFound { place, name },
            _ => Self::Status { place, name, status },
        }
    }

    /// Whether the same may go well a little later.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Network { .. } | Self::Corrupt { .. } => true,
            Self::Status { status, .. } => matches!(status, 408 | 416 | 429 | 500..=599),
            _ => false,
        }
    }
}

fn advice_of(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            "; free some space: what has come stays, and the next fetch goes on from there"
        }
        io::ErrorKind::PermissionDenied => "; choose a folder that can be written to",
        _ => "",
    }
}

/// What lies under an error, in its own words; the address, which may hold credentials, is left out.
pub(super) fn root(error: &(dyn StdError + 'static)) -> String {
    let last = std::iter::successors(Some(error), |&error| error.source()).last();
    last.map_or_else(String::new, |error| error.to_string().chars().take(200).collect())
}
