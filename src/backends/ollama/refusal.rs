//! What an answer that is no generation means: status and body, or the error line in the middle of a stream.
//!
//! Pure. Texts of the server are passed on shortened and without control characters; none is longer than a few hundred characters.

use std::time::Duration;

use http::header::{DATE, HeaderMap, LOCATION, RETRY_AFTER};
use http::{HeaderValue, StatusCode};
use jiff::Timestamp;
use jiff::fmt::rfc2822;
use serde_json::Value;

use crate::backends::Error;
use crate::domain::clock::Clock;

/// Longest text of a server that is passed on, and longest excerpt of what could not be read, in characters.
const MAX_TEXT: usize = 500;
const MAX_EXCERPT: usize = 120;
/// Longest `Retry-After` that is believed.
const MAX_RETRY_AFTER: Duration = Duration::from_hours(1);
/// How many times an error may be wrapped in the text of another one.
const MAX_NESTING: usize = 3;

/// The error that an answer with this status stands for. `model` is what was asked for.
#[must_use]
pub fn from_answer(status: StatusCode, headers: &HeaderMap, body: &[u8], model: &str) -> Error {
    let Some(told) = Told::from_body(body) else { return foreign(status, headers, body) };
    let code = status.as_u16();
    if let Some((prompt_tokens, context_tokens)) = told.overflow {
        return Error::ContextTooLong { prompt_tokens, context_tokens };
    }
    let message = told.message;
    match code {
        404 if is_model_missing(&message) => Error::ModelNotFound { model: model.to_owned() },
        429 | 503 => Error::Overloaded { message, retry_after: retry_after(headers) },
        // Credentials and addresses are the gateway's: the client cannot mend these.
        300..=399 | 401 | 403 | 404 | 405 | 407 | 408 | 499 => Error::Failed { status: Some(code), message },
        400..=498 => Error::Refused { status: code, message },
        500 if is_clients_fault(&message) => Error::Refused { status: code, message },
        _ => Error::Failed { status: Some(code), message },
    }
}

/// The error that a line `{"error": …}` in the middle of a stream stands for.
#[must_use]
pub fn in_band(error: &Value) -> Error {
    let told = Told::from_value(error, MAX_NESTING);
    match told.overflow {
        Some((prompt_tokens, context_tokens)) => Error::ContextTooLong { prompt_tokens, context_tokens },
        None => Error::Failed { status: None, message: told.message },
    }
}

/// The start of `bytes`, quoted, for an error message: short, valid, without control characters.
#[must_use]
pub fn excerpt(bytes: &[u8]) -> String {
    if bytes.is_empty() {
        return "nothing".to_owned();
    }
    // Four bytes are the longest character, so this many hold at least as many characters as are shown.
    let start = &bytes[..bytes.len().min(MAX_EXCERPT * 4)];
    format!("`{}`", shorten(&String::from_utf8_lossy(start), MAX_EXCERPT, start.len() < bytes.len()))
}

fn shorten(text: &str, max: usize, cut_already: bool) -> String {
    let mut short: String = text.trim().chars().take(max).map(|c| if c.is_control() { ' ' } else { c }).collect();
    if cut_already || text.trim().chars().nth(max).is_some() {
        short.push('…');
    }
    short
}

/// What the server says about a failure.
struct Told {
    message: String,
    /// Tokens of the prompt and of the context, when the prompt is the trouble.
    overflow: Option<(u64, u64)>,
}

impl Told {
    /// `None`: not in Ollama's form, an object with `error`.
    fn from_body(body: &[u8]) -> Option<Self> {
        let answer: Value = serde_json::from_slice(body).ok()?;
        answer.get("error").filter(|error| !error.is_null()).map(|error| Self::from_value(error, MAX_NESTING))
    }

    /// Errors of the runner come as its JSON, written as a string, inside Ollama's.
    fn from_value(error: &Value, nesting: usize) -> Self {
        if nesting > 0
            && let Some(inner) = error.as_str().filter(|text| text.trim_start().starts_with('{'))
            && let Ok(inner) = serde_json::from_str::<Value>(inner)
        {
            return Self::from_value(inner.get("error").unwrap_or(&inner), nesting - 1);
        }
        let tokens = |name: &str| error.get(name).and_then(Value::as_u64);
        let text = error.get("message").and_then(Value::as_str).or(error.as_str());
        let text = text.map_or_else(|| error.to_string(), str::to_owned);
        let message = if text.trim().is_empty() { "it does not say why".to_owned() } else { shorten(&text, MAX_TEXT, false) };
        Self { message, overflow: tokens("n_prompt_tokens").zip(tokens("n_ctx")) }
    }
}

fn is_model_missing(message: &str) -> bool {
    message.starts_with("model") && message.contains("not found")
}

/// Texts under which Ollama answers 500 for what is wrong in the request. Taken for failures of the server, they would let one
/// client take a healthy backend out of service.
fn is_clients_fault(message: &str) -> bool {
    (message.starts_with("option \"") && message.contains("must be of"))
        || message.starts_with("invalid format: ")
        || message.starts_with("template: ")
}

/// An answer that Ollama does not give: something else listens there, or stands in between.
fn foreign(status: StatusCode, headers: &HeaderMap, body: &[u8]) -> Error {
    let code = status.as_u16();
    let told = excerpt(body);
    let message = match code {
        429 | 503 => {
            let message = format!("it answered {code}: {told}");
            return Error::Overloaded { message, retry_after: retry_after(headers) };
        }
        413 => {
            return Error::Refused {
                status: code,
                message: "the request is larger than what stands before the backend lets through".to_owned(),
            };
        }
        300..=399 => {
            let target = headers.get(LOCATION).map_or_else(|| "nowhere".to_owned(), |to| excerpt(to.as_bytes()));
            format!("it redirects to {target}, which is not followed: set the backend's url to where the server really is")
        }
        401 | 407 => {
            format!("it wants other credentials than it was given ({code}): write them into the backend's url as user:password@host")
        }
        403 => format!("it forbids access (403): {told}; an Ollama bound to a local address also answers this to a foreign host name"),
        404 | 405 => format!("it has no /api/generate there ({code}): is the backend's url that of an Ollama server?"),
        400 => format!("it answered 400 and not as Ollama does: {told}; is it http instead of https, or another server?"),
        _ => format!("it answered {code}: {told}"),
    };
    Error::Failed { status: Some(code), message }
}

/// `Retry-After` in seconds or as a date, the latter counted from the server's own `Date` where it sends one.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    if let Ok(seconds) = text.parse() {
        return Some(Duration::from_secs(seconds).min(MAX_RETRY_AFTER));
    }
    let until = date(headers.get(RETRY_AFTER)?)?;
    let now = headers.get(DATE).and_then(date).unwrap_or_else(now);
    let wait = Duration::try_from(until.duration_since(now)).unwrap_or_default();
    Some(wait.min(MAX_RETRY_AFTER))
}

/// The machine's time, for servers that do not tell theirs.
fn now() -> Timestamp {
    Timestamp::from_millisecond(Clock::system().unix_ms()).unwrap_or(Timestamp::UNIX_EPOCH)
}

fn date(value: &HeaderValue) -> Option<Timestamp> {
    rfc2822::DateTimeParser::new().parse_timestamp(value.to_str().ok()?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn excerpts_are_short_and_harmless() {
        assert_eq!(excerpt(b""), "nothing");
        assert_eq!(excerpt(b" a\x1b[31m\xffb\n"), "`a [31m\u{fffd}b`");
        assert_eq!(excerpt("\u{1f999}".repeat(200).as_bytes()).chars().count(), MAX_EXCERPT + 3);
    }

    #[test]
    fn an_error_wrapped_without_end_ends() {
        let mut text = "deep".to_owned();
        for _ in 0..10 {
            text = serde_json::json!({"error": text}).to_string();
        }
        let error = from_answer(StatusCode::BAD_REQUEST, &HeaderMap::new(), text.as_bytes(), "m");
        assert!(matches!(error, Error::Refused { status: 400, .. }), "{error:?}");
    }

    #[test]
    fn faults_of_the_request_are_not_the_servers() {
        let told = |text: &str| {
            let body = serde_json::json!({"error": text}).to_string();
            from_answer(StatusCode::INTERNAL_SERVER_ERROR, &HeaderMap::new(), body.as_bytes(), "m")
        };
        for text in ["option \"stop\" must be of type array", "invalid format: \"5\"; expected \"json\"", "template: :1: unclosed action"] {
            assert!(matches!(told(text), Error::Refused { status: 500, .. }), "{text}");
        }
        assert!(matches!(told("model runner has unexpectedly stopped"), Error::Failed { status: Some(500), .. }));
    }

    proptest! {
        #[test]
        fn every_answer_is_some_error(
            status in 100u16..1000,
            body in proptest::collection::vec(any::<u8>(), 0..300),
            retry in "[ -~]{0,40}",
        ) {
            let mut headers = HeaderMap::new();
            headers.insert(RETRY_AFTER, HeaderValue::from_str(&retry).expect("printable"));
            let status = StatusCode::from_u16(status).expect("in range");
            let error = from_answer(status, &headers, &body, "m");
            prop_assert!(error.to_string().len() < 3000);
            prop_assert!(!error.to_string().contains(char::is_control));
        }
    }
}
