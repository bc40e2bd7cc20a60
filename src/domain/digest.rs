//! The SHA-256 of a file, by which artifacts and the layers of models are known.

use std::fmt;
use std::fmt::Write as _;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// What servers write before the hexadecimal digits, and before them in names of files.
const PREFIXES: [&str; 2] = ["sha256:", "sha256-"];

/// A SHA-256. Written as `sha256:` and 64 hexadecimal digits; read with or without what stands before them.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Digest([u8; 32]);

/// A text that is no digest.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{shown}` is not a SHA-256: write it as sha256: and 64 hexadecimal digits")]
pub struct DigestError {
    shown: String,
}

impl Digest {
    #[must_use]
    pub fn new(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The 64 digits alone.
    #[must_use]
    pub fn hex(&self) -> String {
        self.0.iter().fold(String::with_capacity(64), |mut text, byte| {
            let _ = write!(text, "{byte:02x}");
            text
        })
    }
}

impl From<[u8; 32]> for Digest {
    fn from(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }
}

impl FromStr for Digest {
    type Err = DigestError;

    fn from_str(text: &str) -> Result<Self, DigestError> {
        let digits = PREFIXES.iter().find_map(|prefix| text.strip_prefix(prefix)).unwrap_or(text);
        bytes_of(digits).map(Self).ok_or_else(|| DigestError { shown: text.chars().take(80).collect() })
    }
}

fn bytes_of(digits: &str) -> Option<[u8; 32]> {
    let mut bytes = [0; 32];
    let plain = digits.len() == 64 && digits.bytes().all(|b| b.is_ascii_hexdigit());
    for (byte, pair) in bytes.iter_mut().zip(plain.then(|| digits.as_bytes().chunks_exact(2))?) {
        *byte = u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()?;
    }
    Some(bytes)
}

impl TryFrom<String> for Digest {
    type Error = DigestError;

    fn try_from(text: String) -> Result<Self, DigestError> {
        text.parse()
    }
}

impl From<Digest> for String {
    fn from(digest: Digest) -> Self {
        digest.to_string()
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "sha256:{}", self.hex())
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_spellings_are_one_digest() {
        let digits = "e997afd18e5f6be004fc193aed2c90291e68ab2c7599a62538c935b7fca6ab0f";
        let digest: Digest = digits.parse().expect("a digest");
        assert_eq!(digest.hex(), digits);
        for spelling in [format!("sha256:{digits}"), format!("sha256-{digits}"), digits.to_uppercase()] {
            assert_eq!(spelling.parse(), Ok(digest), "{spelling}");
        }
        assert_eq!(serde_json::to_string(&digest).expect("JSON"), format!("\"sha256:{digits}\""));
    }

    #[test]
    fn what_is_no_digest_is_refused() {
        let long = "0".repeat(65);
        let odd = format!("+{}", "0".repeat(63));
        let wide = "é".repeat(32);
        for text in ["", "sha256:", "xyz", long.as_str(), odd.as_str(), wide.as_str(), "sha256:sha256-00"] {
            assert!(text.parse::<Digest>().is_err(), "{text}");
        }
    }
}
