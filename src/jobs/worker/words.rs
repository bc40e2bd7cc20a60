//! What a worker and its child process say to each other: JSON, one object a line.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::jobs::kind::{Ground, Referred};
use crate::storage::jobs::Step;

/// Longest line that is taken from a child, in bytes. A longer one is cut, and is then a line of its log.
pub const MAX_LINE_BYTES: usize = 8 << 20;

/// Largest output of a step and largest result, in bytes: with what is around it, it fits into a line.
pub const MAX_OUTPUT_BYTES: usize = 4 << 20;

/// The first line that a child is told: what to do, and within which bounds.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Brief {
    pub job: String,
    pub kind: String,
    pub input: Value,
    pub attempt: u32,
    /// The steps that earlier attempts have ended.
    pub steps: Vec<Step>,
    pub ground: Ground,
    /// What `artifact:` in the input stands for, and what was collected for it.
    pub inputs: Vec<Referred>,
    /// A folder of the job's own, kept from one attempt to the next.
    pub work_dir: PathBuf,
    pub threads: u32,
    pub nice: i32,
    pub memory_bytes: u64,
    /// The child ends when it has not been told anything for so long: its job may be another's by then.
    pub silence_ms: u64,
    pub trial: bool,
}

/// What a child is told after that.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Ask {
    /// Its worker is there and still has the job.
    Heard,
    /// Stop at the next good place.
    Stop,
    /// Hold still at the next good place.
    Wait,
    /// Go on.
    Go,
}

/// What a child says.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Say {
    /// It is alive.
    Beat,
    Progress {
        done: u64,
        total: u64,
        unit: String,
    },
    Log {
        line: String,
    },
    Metric {
        name: String,
        value: f64,
    },
    /// It begins a step.
    Begin {
        step: u32,
    },
    Step(Step),
    /// A whole file in its folder, on the disk, that is to be kept.
    Artifact {
        name: String,
        file: String,
        size_bytes: u64,
        sha256: String,
        lineage: Value,
    },
    Done {
        result: Value,
    },
    Failed {
        kind: String,
        message: String,
        /// Whether trying again may help.
        again: bool,
    },
    /// It stopped because it was asked to.
    Stopped,
}

impl Say {
    /// What a line says; what is none of these is a line of the log.
    #[must_use]
    pub fn read(line: &[u8]) -> Self {
        serde_json::from_slice(line).unwrap_or_else(|_| Self::Log { line: String::from_utf8_lossy(line).trim_end().to_owned() })
    }

    /// Whether nothing follows.
    #[must_use]
    pub fn is_last(&self) -> bool {
        matches!(self, Self::Done { .. } | Self::Failed { .. } | Self::Stopped)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    #[test]
    fn what_is_said_is_understood() {
        let step = Step { number: 2, input_hash: "h".into(), output: json!([1, "\n"]) };
        for say in [Say::Beat, Say::Step(step), Say::Stopped, Say::Progress { done: 1, total: 2, unit: "bytes".into() }] {
            let line = serde_json::to_string(&say).expect("JSON");
            assert!(!line.contains('\n'));
            assert_eq!(Say::read(line.as_bytes()), say);
        }
        assert_eq!(Say::read(b"thread panicked\n"), Say::Log { line: "thread panicked".into() });
    }

    proptest! {
        #[test]
        fn whatever_a_child_says_is_something(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = Say::read(&bytes);
        }
    }
}
