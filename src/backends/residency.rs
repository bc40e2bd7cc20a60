//! What a backend says of its memory and of what is stuck in it.

use serde::Serialize;

use crate::domain::id::ModelName;

/// A model in memory.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Resident {
    pub model: ModelName,
    /// Until when, in milliseconds since 1970, if nobody asks for it again. `None`: not known.
    pub expires_at_unix_ms: Option<i64>,
    /// Of the context it was loaded with, in tokens.
    pub context_length: Option<u32>,
    pub size_bytes: Option<u64>,
    /// The part of it that is in the accelerator's memory, in bytes.
    pub size_vram_bytes: Option<u64>,
}

/// How a server can be stuck although it still answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum TroubleKind {
    /// A loaded model has room for a request and does not begin to answer it.
    LeakedSlot,
    /// A model is not loaded because another one, which nobody uses, does not leave memory.
    EvictionDeadlock,
    /// A loaded model says nothing more, on any of its answers.
    HungRunner,
}

impl TroubleKind {
    pub const ALL: [Self; 3] = [Self::LeakedSlot, Self::EvictionDeadlock, Self::HungRunner];

    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::LeakedSlot => "leaked_slot",
            Self::EvictionDeadlock => "eviction_deadlock",
            Self::HungRunner => "hung_runner",
        }
    }

    /// What an operator can do when no cure helps.
    #[must_use]
    pub fn advice(self) -> &'static str {
        match self {
            Self::LeakedSlot => "unload the model (`ollama stop`), or restart Ollama if that does not free it",
            Self::EvictionDeadlock => "unload the model that stays (`ollama stop`), or restart Ollama if it does not leave",
            Self::HungRunner => "restart Ollama, or end the model's runner process if the rest still works",
        }
    }
}

/// Something that is stuck on a server.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Trouble {
    pub kind: TroubleKind,
    /// The model that is not asked for meanwhile, in its canonical spelling.
    pub model: String,
    /// When it was found, in milliseconds since 1970.
    pub since_unix_ms: i64,
    /// When it was over, in milliseconds since 1970. `None`: it still stands.
    pub until_unix_ms: Option<i64>,
    /// What was seen.
    pub why: String,
    /// Cures that were tried.
    pub cures_tried: u32,
    /// What an operator can do.
    pub advice: &'static str,
}
