//! How long a server may take over each step of a publication.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Bounds of waits. None bounds a step as a whole: files are as large as they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Patience {
    /// For a short answer: whether a file is there, what a model is, a copy, a removal.
    #[serde(with = "crate::domain::span")]
    pub answer: Duration,
    /// While a file is sent, how long no byte may go out.
    #[serde(with = "crate::domain::span")]
    pub upload_stall: Duration,
    /// From the last byte of a file to the server's word that it is the right one.
    #[serde(with = "crate::domain::span")]
    pub upload_end: Duration,
    /// While a model is built, how long the server may say nothing. It reads, checks and may write the whole file in one such silence.
    #[serde(with = "crate::domain::span")]
    pub build_silence: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self {
            answer: Duration::from_secs(30),
            upload_stall: Duration::from_mins(1),
            upload_end: Duration::from_mins(5),
            build_silence: Duration::from_mins(20),
        }
    }
}
