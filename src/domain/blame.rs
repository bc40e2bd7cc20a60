//! Whose fault a failure is and whether trying again can help.
//!
//! Every error of the project answers both questions; nothing here says how an answer travels (HTTP statuses live in `api`).

use std::time::Duration;

/// Who has to change something so that the same request succeeds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Blame {
    /// The request itself is wrong: sending it again unchanged is pointless.
    Client,
    /// Arriero is at fault, or has reached a bound of its own.
    Gateway,
    /// The backend that was asked failed.
    Upstream,
}

/// What another attempt may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Retry {
    /// It would fail in the same way everywhere.
    Never,
    /// Another backend may well answer.
    Elsewhere,
    /// The same backend may answer after this long.
    After(Duration),
}
