//! The settings of a header, checked for their ranges as they are read.

use crate::gguf::Metadata;

use super::super::error::{Error, Result};

/// Above this a length is a mistake or an attack; the largest open models stay well below.
pub(super) const MAX_LENGTH: usize = 1 << 24;

/// The settings of one architecture, whose keys begin with its name.
pub(super) struct Keys<'a> {
    pub(super) metadata: &'a Metadata,
    pub(super) architecture: &'a str,
}

impl Keys<'_> {
    pub(super) fn key(&self, name: &str) -> String {
        format!("{}.{name}", self.architecture)
    }

    pub(super) fn wrong(&self, name: &str, why: impl Into<String>) -> Error {
        Error::Header { key: self.key(name), why: why.into() }
    }

    pub(super) fn missing(&self, name: &str) -> Error {
        self.wrong(name, "is missing")
    }

    pub(super) fn optional_length(&self, name: &str) -> Result<Option<usize>> {
        if self.metadata.get(&self.key(name)).is_none() {
            return Ok(None);
        }
        let length = self.metadata.u32(&self.key(name)).and_then(|length| usize::try_from(length).ok());
        match length {
            Some(length) if (1..=MAX_LENGTH).contains(&length) => Ok(Some(length)),
            _ => Err(self.wrong(name, format!("is not a number from 1 to {MAX_LENGTH}"))),
        }
    }

    pub(super) fn length(&self, name: &str) -> Result<usize> {
        self.optional_length(name)?.ok_or_else(|| self.missing(name))
    }

    pub(super) fn length_or(&self, name: &str, default: usize) -> Result<usize> {
        Ok(self.optional_length(name)?.unwrap_or(default))
    }

    /// A finite number above 0.
    pub(super) fn number(&self, name: &str) -> Result<Option<f32>> {
        match (self.metadata.get(&self.key(name)), self.metadata.f32(&self.key(name))) {
            (None, _) => Ok(None),
            (_, Some(number)) if number.is_finite() && number > 0.0 => Ok(Some(number)),
            _ => Err(self.wrong(name, "is not a number above 0")),
        }
    }
}
