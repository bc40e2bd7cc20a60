//! Spans of time in configuration and answers: read from and written as text such as `15s`, `5m`, `250ms`, `1h 30m`.
//!
//! For serde: `#[serde(with = "crate::domain::span")]` on a `Duration`, `span::option` on an `Option<Duration>`.

use std::time::Duration;

use jiff::SignedDuration;
use serde::{Deserialize, Deserializer, Serializer};

/// # Errors
/// When the text is no span, or a negative one.
pub fn parse(text: &str) -> Result<Duration, String> {
    let wrong = || format!("`{text}` is no span of time: write a number and a unit, such as \"15s\", \"5m\" or \"250ms\"");
    let span: SignedDuration = text.trim().parse().map_err(|_| wrong())?;
    Duration::try_from(span).map_err(|_| wrong())
}

/// The shortest text that [`parse`] reads back.
#[must_use]
pub fn format(span: Duration) -> String {
    SignedDuration::try_from(span).map_or_else(|_| format!("{}s", span.as_secs()), |signed| format!("{signed:#}"))
}

pub fn serialize<S: Serializer>(span: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&format(*span))
}

pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    parse(&String::deserialize(deserializer)?).map_err(serde::de::Error::custom)
}

/// The same for a span that may be absent.
pub mod option {
    use super::{Deserialize, Deserializer, Duration, Serializer, format, parse};

    pub fn serialize<S: Serializer>(span: &Option<Duration>, serializer: S) -> Result<S::Ok, S::Error> {
        match span {
            Some(span) => serializer.serialize_str(&format(*span)),
            None => serializer.serialize_none(),
        }
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Duration>, D::Error> {
        Option::<String>::deserialize(deserializer)?.map(|text| parse(&text).map_err(serde::de::Error::custom)).transpose()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_and_span_say_the_same() {
        for (text, span) in [
            ("15s", Duration::from_secs(15)),
            ("5m", Duration::from_mins(5)),
            ("250ms", Duration::from_millis(250)),
            ("1h 30m", Duration::from_mins(90)),
            ("0s", Duration::ZERO),
        ] {
            assert_eq!(parse(text), Ok(span));
            assert_eq!(parse(&format(span)), Ok(span));
        }
        for wrong in ["", "15", "-5s", "soon", "5 parsecs"] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }
}
