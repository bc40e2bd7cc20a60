//! A whole answer at once, for clients that do not stream.

use futures_util::StreamExt;
use serde_json::{Map, Value};

use super::error::Error;
use super::generate::Generation;
use crate::backends;
use crate::domain::generation::{Delta, Event, Finish};

/// All pieces of an answer, put together.
#[derive(Debug, Clone, PartialEq)]
pub struct Answer {
    pub text: String,
    pub thinking: String,
    /// Unknown fields of the pieces: lists are joined, of other values the last one holds.
    pub extra: Map<String, Value>,
    pub finish: Finish,
}

/// Reads a generation to its end.
///
/// # Errors
/// Its own, and one for an answer longer than `bound_bytes`: it is refused, never cut.
pub async fn collect(generation: &mut Generation, bound_bytes: usize) -> Result<Answer, Error> {
    let mut whole = Delta::default();
    let (mut size_bytes, mut restarts) = (0, 0);
    while let Some(event) = generation.next().await {
        let event = event?;
        if generation.restarts() > restarts {
            // What came so far belongs to an answer that was given up.
            (whole, size_bytes, restarts) = (Delta::default(), 0, generation.restarts());
        }
        match event {
            Event::Delta(delta) => {
                size_bytes += delta.text.len() + delta.thinking.len();
                if size_bytes > bound_bytes {
                    return Err(Error::AnswerTooLarge { bound_bytes });
                }
                append(&mut whole, delta);
            }
            Event::Done(finish) => return Ok(Answer { text: whole.text, thinking: whole.thinking, extra: whole.extra, finish: *finish }),
        }
    }
    let message = "it ended without a final object".to_owned();
    Err(Error::Backend { backend: generation.about().backend.clone(), source: backends::Error::Protocol { message } })
}

fn append(whole: &mut Delta, piece: Delta) {
    whole.text.push_str(&piece.text);
    whole.thinking.push_str(&piece.thinking);
    for (name, value) in piece.extra {
        match (whole.extra.get_mut(&name), value) {
            (Some(Value::Array(list)), Value::Array(more)) => list.extend(more),
            (_, value) => {
                whole.extra.insert(name, value);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn unknown_lists_are_joined() {
        let piece = |n: u32| Delta {
            text: n.to_string(),
            extra: json!({"logprobs": [n], "note": n}).as_object().cloned().unwrap_or_default(),
            ..Delta::default()
        };
        let mut whole = Delta::default();
        append(&mut whole, piece(1));
        append(&mut whole, piece(2));
        assert_eq!(whole.text, "12");
        assert_eq!(Value::Object(whole.extra), json!({"logprobs": [1, 2], "note": 2}));
    }
}
