//! How an attempt ended, from what the child said and how its process ended: pure.

use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;

use serde_json::Value;

use super::watch::Reason;
use super::worker::Say;

#[derive(Debug, Clone, PartialEq)]
pub enum Outcome {
    Done(Value),
    /// It stopped at a good place, as it was asked to.
    Stopped,
    Failed {
        kind: String,
        message: String,
        again: bool,
    },
    /// The lease is another's: nothing is written.
    Lost,
}

impl Outcome {
    pub fn failed(kind: &str, message: impl Into<String>) -> Self {
        Self::Failed { kind: kind.to_owned(), message: message.into(), again: true }
    }

    /// A word from a closed set, for metrics and the rows of attempts.
    #[must_use]
    pub fn word(&self) -> &'static str {
        match self {
            Self::Done(_) => "succeeded",
            Self::Stopped => "stopped",
            Self::Lost => "lost",
            Self::Failed { kind, .. } => match kind.as_str() {
                "out_of_memory" => "out_of_memory",
                "hung" => "hung",
                "crashed" => "crashed",
                _ => "failed",
            },
        }
    }
}

/// What is known when a child has ended.
#[derive(Debug, Clone, Copy)]
pub struct Evidence<'a> {
    /// The last thing it said, where that was meant to be the last.
    pub last: Option<&'a Say>,
    pub status: ExitStatus,
    /// Why the worker made it end, if it did.
    pub reason: Option<Reason>,
    pub memory_bytes: u64,
    /// Whether it complained that memory was refused to it.
    pub starved: bool,
}

#[must_use]
pub fn judge(evidence: Evidence<'_>) -> Outcome {
    match evidence.last {
        Some(Say::Done { result }) => return Outcome::Done(result.clone()),
        Some(Say::Stopped) => return Outcome::Stopped,
        Some(Say::Failed { kind, message, again }) => {
            return Outcome::Failed { kind: kind.clone(), message: message.clone(), again: *again };
        }
        _ => {}
    }
    let bound = evidence.memory_bytes;
    match evidence.reason {
        Some(Reason::Memory { used_bytes }) => {
            return Outcome::failed("out_of_memory", format!("it used {used_bytes} bytes of memory, and may use {bound}"));
        }
        Some(Reason::Idle) => return Outcome::failed("hung", "it made no progress for longer than `jobs.hang_after`, and was ended"),
        Some(Reason::Silent) => return Outcome::failed("hung", "it gave no sign of life, and was ended"),
        Some(Reason::Asked) => return Outcome::Stopped,
        None => {}
    }
    if evidence.starved {
        return Outcome::failed("out_of_memory", format!("it asked for more memory at once than it may use ({bound} bytes and some)"));
    }
    match (evidence.status.signal(), evidence.status.code()) {
        (Some(9), _) => Outcome::failed("crashed", "it was killed (signal 9): by someone, or by the system for want of memory"),
        (Some(signal), _) => Outcome::failed("crashed", format!("it crashed (signal {signal})")),
        (None, code) => Outcome::failed("crashed", format!("it ended without a result (code {})", code.unwrap_or_default())),
    }
}

/// Whether a line of standard error says that memory was refused: Rust's own words.
#[must_use]
pub fn is_starved(line: &str) -> bool {
    line.contains("memory allocation of ") && line.contains("failed")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn evidence() -> Evidence<'static> {
        Evidence { last: None, status: ExitStatus::from_raw(0), reason: None, memory_bytes: 7, starved: false }
    }

    #[test]
    fn the_childs_own_word_counts_before_how_it_ended() {
        let done = Say::Done { result: json!(1) };
        let killed = ExitStatus::from_raw(9);
        let judged = judge(Evidence { last: Some(&done), status: killed, reason: Some(Reason::Asked), ..evidence() });
        assert_eq!(judged, Outcome::Done(json!(1)));
        assert_eq!(judge(Evidence { last: Some(&Say::Beat), ..evidence() }).word(), "crashed");
    }

    #[test]
    fn each_way_to_end_has_its_word() {
        let word = |evidence: Evidence<'_>| match judge(evidence) {
            Outcome::Failed { kind, message, again: true } => (kind, message),
            other => (other.word().to_owned(), String::new()),
        };
        let (kind, message) = word(Evidence { reason: Some(Reason::Memory { used_bytes: 9 }), ..evidence() });
        assert_eq!((kind.as_str(), message.as_str()), ("out_of_memory", "it used 9 bytes of memory, and may use 7"));
        assert_eq!(word(Evidence { reason: Some(Reason::Idle), ..evidence() }).0, "hung");
        assert_eq!(word(Evidence { reason: Some(Reason::Silent), ..evidence() }).0, "hung");
        assert_eq!(word(Evidence { reason: Some(Reason::Asked), ..evidence() }).0, "stopped");
        assert_eq!(word(Evidence { starved: true, status: ExitStatus::from_raw(6), ..evidence() }).0, "out_of_memory");
        assert!(word(Evidence { status: ExitStatus::from_raw(9), ..evidence() }).1.contains("signal 9"));
        assert!(word(Evidence { status: ExitStatus::from_raw(11), ..evidence() }).1.contains("signal 11"));
        assert!(word(Evidence { status: ExitStatus::from_raw(3 << 8), ..evidence() }).1.contains("code 3"));
        assert!(is_starved("memory allocation of 12 bytes failed"));
    }
}
