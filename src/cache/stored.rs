//! The form in which an answer lies in the database.
//!
//! One byte that tells the form, sixteen of a digest over key and content, then JSON. Whatever was not written by this form, was
//! damaged, or lies under another key is told apart and is never an answer.

use std::collections::HashSet;
use std::sync::{Arc, LazyLock, Mutex, PoisonError};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use sha2::{Digest as _, Sha256};

use super::answer::{Answer, Piece};
use super::key::Key;
use crate::domain::generation::{Change, Delta, Event, Finish, FinishReason, NotApplied, Remarks, Timing, Truncated, Usage};

const FORM: u8 = 1;
const DIGEST_BYTES: usize = 16;

/// An answer as it is written. `None` when it cannot be (which no answer of this program is known to be).
pub(super) fn encode(key: &Key, answer: &Answer) -> Option<Vec<u8>> {
    let mut bytes = vec![FORM; 1 + DIGEST_BYTES];
    serde_json::to_writer(&mut bytes, &Stored::from_answer(answer)?).ok()?;
    let digest = digest(key, &bytes[1 + DIGEST_BYTES..]);
    bytes[1..=DIGEST_BYTES].copy_from_slice(&digest);
    Some(bytes)
}

/// The answer that [`encode`] wrote under this key.
pub(super) fn decode(key: &Key, bytes: &[u8]) -> Option<Answer> {
    let (head, content) = bytes.split_at_checked(1 + DIGEST_BYTES)?;
    if head[0] != FORM || head[1..] != digest(key, content) {
        return None;
    }
    serde_json::from_slice::<Stored>(content).ok()?.into_answer()
}

fn digest(key: &Key, content: &[u8]) -> [u8; DIGEST_BYTES] {
    let whole: [u8; 32] = Sha256::new().chain_update(key.as_bytes()).chain_update(content).finalize().into();
    let mut half = [0; DIGEST_BYTES];
    half.copy_from_slice(&whole[..DIGEST_BYTES]);
    half
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Stored {
    pieces: Vec<StoredPiece>,
    end: StoredEnd,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct StoredPiece {
    at_us: u64,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    text: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    thinking: String,
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    extra: Map<String, Value>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct StoredEnd {
    at_us: u64,
    reason: FinishReason,
    context: Option<Vec<u32>>,
    usage: Usage,
    /// Total, load, reading the prompt, writing the answer.
    timing_ns: [Option<u64>; 4],
    /// Field, why.
    not_applied: Vec<(String, String)>,
    /// Tokens there were, tokens kept.
    truncated: Option<(u64, u64)>,
    /// Field, from, to, why.
    changed: Vec<(String, Value, Value, String)>,
    extra: Map<String, Value>,
}

impl Stored {
    fn from_answer(answer: &Answer) -> Option<Self> {
        let (last, others) = answer.pieces().split_last()?;
        let pieces = others.iter().map(|piece| StoredPiece::new(piece)).collect::<Option<_>>()?;
        Some(Self { pieces, end: StoredEnd::new(microseconds(last.at), answer.finish()?) })
    }

    fn into_answer(self) -> Option<Answer> {
        let end = Piece::new(Duration::from_micros(self.end.at_us), Event::Done(Box::new(self.end.into_finish()?)));
        Answer::new(self.pieces.into_iter().map(StoredPiece::into_piece).chain([end]).map(Arc::new))
    }
}

impl StoredPiece {
    fn new(piece: &Piece) -> Option<Self> {
        let Event::Delta(delta) = &piece.event else { return None };
        let Delta { text, thinking, extra } = delta.clone();
        Some(Self { at_us: microseconds(piece.at), text, thinking, extra })
    }

    fn into_piece(self) -> Piece {
        let Self { at_us, text, thinking, extra } = self;
        Piece::new(Duration::from_micros(at_us), Event::Delta(Delta { text, thinking, extra }))
    }
}

impl StoredEnd {
    fn new(at_us: u64, finish: &Finish) -> Self {
        // Every field is named, so that a new one cannot be forgotten here.
        let Finish { reason, context, usage, timing, remarks, extra } = finish.clone();
        let Timing { total, load, prompt_eval, eval } = timing;
        let Remarks { not_applied, truncated, changed } = remarks;
        Self {
            at_us,
            reason,
            context,
            usage,
            timing_ns: [total, load, prompt_eval, eval].map(|span| span.map(nanoseconds)),
            not_applied: not_applied.into_iter().map(|wish| (wish.field, wish.why.to_owned())).collect(),
            truncated: truncated.map(|truncated| (truncated.prompt_tokens, truncated.kept_tokens)),
            changed: changed.into_iter().map(|change| (change.field, change.from, change.to, change.why.to_owned())).collect(),
            extra,
        }
    }

    fn into_finish(self) -> Option<Finish> {
        let [total, load, prompt_eval, eval] = self.timing_ns.map(|span| span.map(Duration::from_nanos));
        let not_applied = self.not_applied.into_iter().map(|(field, why)| Some(NotApplied { field, why: sentence(&why)? }));
        let changed = self.changed.into_iter().map(|(field, from, to, why)| Some(Change { field, from, to, why: sentence(&why)? }));
        let remarks = Remarks {
            not_applied: not_applied.collect::<Option<_>>()?,
            truncated: self.truncated.map(|(prompt_tokens, kept_tokens)| Truncated { prompt_tokens, kept_tokens }),
            changed: changed.collect::<Option<_>>()?,
        };
        let timing = Timing { total, load, prompt_eval, eval };
        Some(Finish { reason: self.reason, context: self.context, usage: self.usage, timing, remarks, extra: self.extra })
    }
}

/// Most sentences that are learnt from the database, and their longest, in bytes. The program's own are some dozens.
const MAX_SENTENCES: usize = 512;
const MAX_SENTENCE_BYTES: usize = 512;

/// The program's sentences are constants; those read from the database become some, each once, for as long as the process runs.
/// `None` beyond the bound: then the answer is not taken.
fn sentence(text: &str) -> Option<&'static str> {
    static KNOWN: LazyLock<Mutex<HashSet<&'static str>>> = LazyLock::new(Mutex::default);
    let mut known = KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(found) = known.get(text) {
        return Some(found);
    }
    if known.len() >= MAX_SENTENCES || text.len() > MAX_SENTENCE_BYTES {
        return None;
    }
    let lasting: &'static str = Box::leak(text.into());
    known.insert(lasting);
    Some(lasting)
}

fn microseconds(span: Duration) -> u64 {
    u64::try_from(span.as_micros()).unwrap_or(u64::MAX)
}

fn nanoseconds(span: Duration) -> u64 {
    u64::try_from(span.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
#[path = "stored_tests.rs"]
mod tests;
