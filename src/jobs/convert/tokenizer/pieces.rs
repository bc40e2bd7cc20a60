//! The list of tokens in the making: text, score and type of each id.

use super::super::metadata::Pairs;
use crate::gguf::{Strings, Value};

/// What a token is for (llama.cpp's `llama_token_type`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(i32)]
pub(super) enum Kind {
    Normal = 1,
    Unknown = 2,
    Control = 3,
    UserDefined = 4,
    Unused = 5,
    Byte = 6,
}

/// Tokens by id. Those that nothing fills are `[PAD7]` and unused.
#[derive(Debug)]
pub(super) struct Pieces {
    texts: Vec<Option<Box<str>>>,
    scores: Vec<f32>,
    kinds: Vec<Kind>,
}

impl Pieces {
    pub(super) fn new(size: usize) -> Self {
        Self { texts: vec![None; size], scores: vec![-10_000.0; size], kinds: vec![Kind::Unused; size] }
    }

    pub(super) fn len(&self) -> usize {
        self.texts.len()
    }

    /// Fills an id; one beyond the vocabulary is passed over, as the converter does.
    pub(super) fn set(&mut self, id: usize, text: &str, score: f32, kind: Kind) {
        if id < self.len() {
            self.texts[id] = Some(text.into());
            self.scores[id] = score;
            self.kinds[id] = kind;
        }
    }

    /// Writes tokens, scores if the algorithm uses them, and types.
    pub(super) fn write(self, pairs: &mut Pairs, model: &str, pre: &str, with_scores: bool) {
        let mut texts = Strings::default();
        for (id, text) in self.texts.iter().enumerate() {
            match text {
                Some(text) => texts.push(text.as_bytes()),
                None => texts.push(format!("[PAD{id}]").as_bytes()),
            }
        }
        pairs.string("tokenizer.ggml.model", model);
        pairs.string("tokenizer.ggml.pre", pre);
        pairs.set("tokenizer.ggml.tokens", Value::Strings(texts));
        if with_scores {
            pairs.set("tokenizer.ggml.scores", Value::F32s(self.scores));
        }
        pairs.set("tokenizer.ggml.token_type", Value::I32s(self.kinds.iter().map(|kind| *kind as i32).collect()));
    }
}

/// Whether a token is one of those that ought to be control tokens and are often not marked so.
pub(super) fn looks_special(text: &str) -> bool {
    let within = |start, end| text.len() >= 3 && text.starts_with(start) && text.ends_with(end);
    matches!(text, "<pad>" | "<mask>" | "<2mass>" | "[@BOS@]") || within("<|", "|>") || within("<｜", "｜>") || within("<unused", ">")
}

/// The text and type of a token that was added by hand.
pub(super) fn added(text: &str, special: bool) -> (String, Kind) {
    if special || looks_special(text) {
        (text.to_owned(), Kind::Control)
    } else {
        // llama.cpp looks for these in the text before spaces are replaced.
        (text.replace('\u{2581}', " "), Kind::UserDefined)
    }
}
